//! Field protocols to readings and writes. Knows no MQTT, no store and no board.
#![forbid(unsafe_code)]
