//! The test kit: the real binary as a daemon, and real peers, started, watched and stopped.
//!
//! Everything here is blocking and owns what it starts: a [`daemon::Node`] that goes out of scope takes its containers,
//! helper processes, mounts and files with it, also when the test panics. Waits are conditions with a deadline
//! ([`wait::until`]), ports are reserved across processes ([`ports::free`]), so that tests can run in parallel and again.

pub mod aarch64;
pub mod authority;
pub mod binary;
pub mod bluetooth;
pub mod cleanup;
pub mod daemon;
pub mod field;
pub mod filesystem;
pub mod hostile;
pub mod http;
pub mod http_device;
pub mod image;
pub mod libmodbus;
pub mod line;
pub mod load;
pub mod modbus;
pub mod mosquitto;
pub mod onvif_camera;
pub mod pod_node;
pub mod pods;
pub mod ports;
pub mod producer;
pub mod proxy;
pub mod pymodbus;
pub mod raw_mqtt;
pub mod receiver;
pub mod registry;
pub mod run;
pub mod served;
pub mod snmpd;
pub mod source;
pub mod updates;
pub mod wait;
