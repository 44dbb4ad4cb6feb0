//! `configData` of Bluetooth Low Energy devices: KubeEdge's keys, and ours where it has none.
//!
//! KubeEdge's Bluetooth mapper knows `macAddress` for the device, and `characteristicUUID`, `dataConverter` and `dataWrite`
//! for a property (kubeedge/mappers-go, `mappers/ble/configmap/type.go`). They mean the same here, with one repair: KubeEdge
//! strings the decimal digits of the bytes together, so that `[1, 26]` is 126; here the bytes of `dataConverter` make one
//! unsigned integer, most significant first. For a single byte both are the same. The rest is ours and optional.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Connections an adapter keeps at the same time unless a device says otherwise: what common controllers manage.
pub const DEFAULT_CONNECTIONS: u16 = 5;
/// The longest [`Link::offline_after`], in milliseconds: one day.
pub const MAX_OFFLINE_AFTER_MS: u32 = 86_400_000;

/// `protocol.configData`: which device it is, and how to treat it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// The address of the device, such as `A4:C1:38:02:83:F4`.
    #[serde(default)]
    pub mac_address: String,
    /// Ours: the adapter that hears it, such as `hci0` or the adapter's own address; the first one when absent.
    #[serde(default)]
    pub adapter: String,
    /// Ours: what its advertisements are; `auto` (every known format) when absent.
    #[serde(default)]
    pub decoder: Decoder,
    /// Ours: the key of encrypted advertisements in hexadecimal digits: 32 for BTHome and MiBeacon 4 and 5, 24 for MiBeacon
    /// 2 and 3.
    #[serde(default)]
    pub encryption_key: String,
    /// Ours: silence after which a device that only advertises counts as offline, in milliseconds, 1000 to 86400000; 60000
    /// when absent.
    #[serde(default = "defaults::offline_after")]
    pub offline_after: u32,
    /// Ours: how long a read or write may take, in milliseconds, 100 to 60000; 10000 when absent.
    #[serde(default = "defaults::timeout")]
    pub timeout: u32,
    /// Ours: how long connecting may take, in milliseconds, 1000 to 60000; 20000 when absent.
    #[serde(default = "defaults::connect_timeout")]
    pub connect_timeout: u32,
    /// Ours: the most connections of the adapter at the same time, 1 to 32; 5 when absent. Of several devices on one adapter
    /// the smallest number counts.
    #[serde(default = "defaults::connections")]
    pub max_connections: u16,
    /// Ours: pair with the device before anything is read; implied by `passkey`.
    #[serde(default)]
    pub bond: bool,
    /// Ours: the passkey printed on the device, 0 to 999999.
    #[serde(default)]
    pub passkey: Option<u32>,
}

/// What the advertisements of a device are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoder {
    /// Every format below: each is known by its own company or service.
    #[default]
    Auto,
    /// BTHome v2, plain and encrypted.
    Bthome,
    /// RuuviTag RAWv2 (data format 5).
    Ruuvi,
    /// Apple's iBeacon.
    Ibeacon,
    /// Google's Eddystone: UID, URL and TLM.
    Eddystone,
    /// Xiaomi's MiBeacon 2 to 5.
    Xiaomi,
    /// The firmwares of atc1441 and pvvx for Xiaomi's thermometers.
    Atc,
    /// None: properties say themselves where their bytes are.
    Raw,
}

mod defaults {
    pub(super) const fn offline_after() -> u32 {
        60_000
    }
    pub(super) const fn timeout() -> u32 {
        10_000
    }
    pub(super) const fn connect_timeout() -> u32 {
        20_000
    }
    pub(super) const fn connections() -> u16 {
        super::DEFAULT_CONNECTIONS
    }
    pub(super) const fn scale() -> f64 {
        1.0
    }
    pub(super) const fn yes() -> bool {
        true
    }
}

/// `visitors.configData`: where a property is found and how its bytes make a value.
///
/// * With `characteristicUUID` it is a GATT characteristic, read every `collectCycle` or notified.
/// * With `companyID` or `serviceDataUUID` it is a part of the advertisements of the device.
/// * Otherwise it is a `field` of a known advertisement format (the property's own name when absent), or one of `rssi`
///   (dBm), `lastSeen` (UTC milliseconds), `connected`.
///
/// Bytes become a value by KubeEdge's `dataConverter`, or by our `dataType`, `offset`, `length`, `byteOrder`, `mask`, `scale`
/// and `bias`; not by both. Without either, numbers and booleans are the first byte, texts and bytes the whole.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Visitor {
    /// The GATT characteristic: 4, 8 or 32 hexadecimal digits, with or without hyphens.
    #[serde(default, rename = "characteristicUUID")]
    pub characteristic_uuid: Option<String>,
    /// How its bytes make a number.
    #[serde(default)]
    pub data_converter: Option<DataConverter>,
    /// Words that can be written, and the bytes of each. The value of a STRING is then such a word.
    #[serde(default)]
    pub data_write: BTreeMap<String, Bytes>,
    /// Ours: the service of the characteristic, where the characteristic alone is not unique.
    #[serde(default, rename = "serviceUUID")]
    pub service_uuid: Option<String>,
    /// Ours: whether it is read on a period, or sent by the device by itself.
    #[serde(default)]
    pub mode: Mode,
    /// Ours: how it is written: `request` (acknowledged) or `command` (not acknowledged).
    #[serde(default)]
    pub write_type: WriteType,
    /// Ours: read what was written and compare; true when absent. For write-only characteristics say false.
    #[serde(default = "defaults::yes")]
    pub read_back: bool,
    /// Ours: the field of a known advertisement format.
    #[serde(default)]
    pub field: Option<String>,
    /// Ours: the manufacturer data of this company (Bluetooth assigned numbers, section 7), 0 to 65535.
    #[serde(default, rename = "companyID")]
    pub company_id: Option<u16>,
    /// Ours: the service data of this service.
    #[serde(default, rename = "serviceDataUUID")]
    pub service_data_uuid: Option<String>,
    /// Ours: what the bytes hold.
    #[serde(default)]
    pub data_type: Option<DataType>,
    /// Ours: the first byte, from 0.
    #[serde(default)]
    pub offset: u16,
    /// Ours: how many bytes of a `string` or `bytes`, or of a `uint` or `int` of unusual length (1 to 8).
    #[serde(default)]
    pub length: Option<u16>,
    /// Ours: which end comes first; little when absent, as Bluetooth's own values.
    #[serde(default)]
    pub byte_order: ByteOrder,
    /// Ours: the bits of an unsigned integer that count; shifted down to the lowest of them.
    #[serde(default)]
    pub mask: Option<u64>,
    /// Ours: factor from raw to value; 1 when absent, never 0.
    #[serde(default = "defaults::scale")]
    pub scale: f64,
    /// Ours: added after scaling.
    #[serde(default)]
    pub bias: f64,
}

/// KubeEdge's way from bytes to a number: bytes, shift, operations, in this order.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DataConverter {
    /// The first byte that counts, from 0. After `endIndex` the bytes are taken backwards.
    pub start_index: u16,
    /// The last byte that counts.
    pub end_index: u16,
    /// Bits to shift left; instead of `shiftRight`.
    pub shift_left: u8,
    /// Bits to shift right.
    pub shift_right: u8,
    /// Done one after the other.
    pub order_of_operations: Vec<Operation>,
}

/// One step of `orderOfOperations`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// What to do.
    pub operation_type: OperationType,
    /// With what.
    pub operation_value: f64,
}

/// The four operations; KubeEdge takes them in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationType {
    /// Adds.
    Add,
    /// Subtracts.
    Subtract,
    /// Multiplies.
    Multiply,
    /// Divides.
    Divide,
}

impl<'de> Deserialize<'de> for OperationType {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<OperationType, D::Error> {
        let text = String::deserialize(from)?;
        match text.to_ascii_lowercase().as_str() {
            "add" => Ok(OperationType::Add),
            "subtract" => Ok(OperationType::Subtract),
            "multiply" => Ok(OperationType::Multiply),
            "divide" => Ok(OperationType::Divide),
            _ => Err(serde::de::Error::custom(format!("{text:?} is not one of Add, Subtract, Multiply, Divide"))),
        }
    }
}

/// Bytes: a list of numbers, or base64 text as Go writes bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            List(Vec<u8>),
            Text(String),
        }
        let wrong = || serde::de::Error::custom("neither a list of bytes (0 to 255) nor base64 text");
        match Either::deserialize(from).map_err(|_| wrong())? {
            Either::List(bytes) => Ok(Bytes(bytes)),
            Either::Text(text) => match crate::reading::Value::from_base64(&text) {
                Some(crate::reading::Value::Bytes(bytes)) => Ok(Bytes(bytes)),
                _ => Err(wrong()),
            },
        }
    }
}

/// How a characteristic's values come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is read every `collectCycle`.
    #[default]
    Read,
    /// The device sends changes, unacknowledged.
    Notify,
    /// The device sends changes and waits for an acknowledgement.
    Indicate,
}

/// How a characteristic is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteType {
    /// The device acknowledges.
    #[default]
    Request,
    /// Nothing comes back.
    Command,
}

/// Which end of a number comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ByteOrder {
    /// The least significant byte.
    #[default]
    Little,
    /// The most significant byte.
    Big,
}

/// What bytes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataType {
    /// Unsigned, `length` bytes.
    Uint,
    /// Unsigned, one byte.
    Uint8,
    /// Unsigned, two bytes.
    Uint16,
    /// Unsigned, three bytes.
    Uint24,
    /// Unsigned, four bytes.
    Uint32,
    /// Unsigned, eight bytes.
    Uint64,
    /// Signed, `length` bytes.
    Int,
    /// Signed, one byte.
    Int8,
    /// Signed, two bytes.
    Int16,
    /// Signed, three bytes.
    Int24,
    /// Signed, four bytes.
    Int32,
    /// Signed, eight bytes.
    Int64,
    /// IEEE 754 single precision, four bytes.
    Float32,
    /// IEEE 754 double precision, eight bytes.
    Float64,
    /// UTF-8 text, `length` bytes or the rest, ended by the first zero byte.
    String,
    /// Bytes, `length` of them or the rest.
    Bytes,
}

impl DataType {
    /// How many bytes it takes; `None` where `length` says so.
    pub const fn length(self) -> Option<u16> {
        match self {
            DataType::Uint8 | DataType::Int8 => Some(1),
            DataType::Uint16 | DataType::Int16 => Some(2),
            DataType::Uint24 | DataType::Int24 => Some(3),
            DataType::Uint32 | DataType::Int32 | DataType::Float32 => Some(4),
            DataType::Uint64 | DataType::Int64 | DataType::Float64 => Some(8),
            DataType::Uint | DataType::Int | DataType::String | DataType::Bytes => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kubeedges_own_example_is_taken_as_it_is() {
        let link: Link = serde_json::from_value(json!({"macAddress": "A4:C1:38:1A:49:90"})).unwrap();
        assert_eq!((link.mac_address.as_str(), link.decoder), ("A4:C1:38:1A:49:90", Decoder::Auto));
        let visitor: Visitor = serde_json::from_value(json!({
            "characteristicUUID": "ebe0ccc1-7a0a-4b0c-8a1a-6ff2997da3a6",
            "dataConverter": {"startIndex": 2, "endIndex": 2,
                "orderOfOperations": [{"operationType": "Divide", "operationValue": 100}]},
            "dataWrite": {"ON": [1], "OFF": "AA=="},
        }))
        .unwrap();
        let converter = visitor.data_converter.unwrap();
        assert_eq!(converter.order_of_operations[0].operation_type, OperationType::Divide);
        assert_eq!((&visitor.data_write["ON"].0, &visitor.data_write["OFF"].0), (&vec![1], &vec![0]));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (text, part) in [
            (
                json!({"dataConverter": {"orderOfOperations": [{"operationType": "Power", "operationValue": 2}]}}),
                "Divide",
            ),
            (json!({"dataWrite": {"ON": [256]}}), "bytes"),
            (json!({"mode": "poll"}), "notify"),
            (json!({"dataType": "uint12"}), "uint16"),
            (json!({"register": 1}), "unknown field"),
        ] {
            let error = serde_json::from_value::<Visitor>(text.clone()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
