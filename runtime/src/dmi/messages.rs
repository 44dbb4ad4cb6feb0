//! The messages of KubeEdge's DMI, as far as a node and its mappers need them.
//!
//! Source of names and numbers: KubeEdge, `staging/src/github.com/kubeedge/api/apis/dmi/v1beta1/api.proto`. Fields that are not here
//! (push methods, device commands) are skipped when they come and never sent.

use std::collections::BTreeMap;

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// Which message it is.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `MapperRegisterRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MapperRegisterRequest {
    /// Whether the answer shall have the mapper's models and devices.
    #[prost(bool, tag = "1")]
    pub with_data: bool,
    /// Who registers.
    #[prost(message, optional, tag = "2")]
    pub mapper: Option<MapperInfo>,
}

/// `MapperInfo`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MapperInfo {
    /// Its name, unique on the node.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version, for people.
    #[prost(string, tag = "2")]
    pub version: String,
    /// The version of this interface it speaks, for people.
    #[prost(string, tag = "3")]
    pub api_version: String,
    /// The protocol whose devices it drives.
    #[prost(string, tag = "4")]
    pub protocol: String,
    /// The path of the Unix socket it listens on.
    #[prost(bytes = "vec", tag = "5")]
    pub address: Vec<u8>,
    /// For people.
    #[prost(string, tag = "6")]
    pub state: String,
}

/// `MapperRegisterResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MapperRegisterResponse {
    /// The models of its protocol.
    #[prost(message, repeated, tag = "1")]
    pub model_list: Vec<DeviceModel>,
    /// The devices of its protocol.
    #[prost(message, repeated, tag = "2")]
    pub device_list: Vec<Device>,
}

/// `DeviceModel`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceModel {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it says.
    #[prost(message, optional, tag = "2")]
    pub spec: Option<DeviceModelSpec>,
    /// Its namespace.
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// `DeviceModelSpec`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceModelSpec {
    /// Its properties.
    #[prost(message, repeated, tag = "1")]
    pub properties: Vec<ModelProperty>,
}

/// `ModelProperty`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelProperty {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// For people.
    #[prost(string, tag = "2")]
    pub description: String,
    /// `INT`, `FLOAT`, …
    #[prost(string, tag = "3")]
    pub r#type: String,
    /// `ReadOnly` or `ReadWrite`.
    #[prost(string, tag = "4")]
    pub access_mode: String,
    /// The smallest value, as text; empty for none.
    #[prost(string, tag = "5")]
    pub minimum: String,
    /// The largest value, as text; empty for none.
    #[prost(string, tag = "6")]
    pub maximum: String,
    /// Its unit.
    #[prost(string, tag = "7")]
    pub unit: String,
}

/// `Device`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Device {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What is wanted of it.
    #[prost(message, optional, tag = "2")]
    pub spec: Option<DeviceSpec>,
    /// What it says.
    #[prost(message, optional, tag = "3")]
    pub status: Option<DeviceStatus>,
    /// Its namespace.
    #[prost(string, tag = "4")]
    pub namespace: String,
}

/// `DeviceSpec`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceSpec {
    /// The name of its model.
    #[prost(string, tag = "1")]
    pub device_model_reference: String,
    /// How to reach it.
    #[prost(message, optional, tag = "2")]
    pub protocol: Option<ProtocolConfig>,
    /// Its properties.
    #[prost(message, repeated, tag = "3")]
    pub properties: Vec<DeviceProperty>,
    /// Its methods.
    #[prost(message, repeated, tag = "4")]
    pub methods: Vec<DeviceMethod>,
}

/// `DeviceMethod`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceMethod {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// For people.
    #[prost(string, tag = "2")]
    pub description: String,
    /// The properties it may write.
    #[prost(string, repeated, tag = "3")]
    pub property_names: Vec<String>,
}

/// `DeviceProperty`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceProperty {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value it shall have.
    #[prost(message, optional, tag = "2")]
    pub desired: Option<TwinProperty>,
    /// Where it is.
    #[prost(message, optional, tag = "3")]
    pub visitors: Option<ProtocolConfig>,
    /// Milliseconds between reports.
    #[prost(int64, tag = "4")]
    pub report_cycle: i64,
    /// Milliseconds between readings.
    #[prost(int64, tag = "5")]
    pub collect_cycle: i64,
    /// Whether it goes to the cloud.
    #[prost(bool, tag = "6")]
    pub report_to_cloud: bool,
}

/// `ProtocolConfig` and `VisitorConfig`, which are alike.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProtocolConfig {
    /// The protocol.
    #[prost(string, tag = "1")]
    pub protocol_name: String,
    /// Its settings.
    #[prost(message, optional, tag = "2")]
    pub config_data: Option<CustomizedValue>,
}

/// `CustomizedValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CustomizedValue {
    /// Settings by key.
    #[prost(btree_map = "string, message", tag = "1")]
    pub data: BTreeMap<String, Any>,
}

/// `DeviceStatus`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceStatus {
    /// One per property.
    #[prost(message, repeated, tag = "1")]
    pub twins: Vec<Twin>,
    /// Whether states go to the cloud.
    #[prost(bool, tag = "2")]
    pub report_to_cloud: bool,
    /// Milliseconds between reports of the state.
    #[prost(int64, tag = "3")]
    pub report_cycle: i64,
}

/// `Twin`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Twin {
    /// The property.
    #[prost(string, tag = "1")]
    pub property_name: String,
    /// The desired value the mapper works with.
    #[prost(message, optional, tag = "2")]
    pub observed_desired: Option<TwinProperty>,
    /// The value the device has.
    #[prost(message, optional, tag = "3")]
    pub reported: Option<TwinProperty>,
}

/// `TwinProperty`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TwinProperty {
    /// As text.
    #[prost(string, tag = "1")]
    pub value: String,
    /// What is known of it.
    #[prost(btree_map = "string, string", tag = "2")]
    pub metadata: BTreeMap<String, String>,
}

/// `ReportDeviceStatusRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReportDeviceStatusRequest {
    /// Which device.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// What it says.
    #[prost(message, optional, tag = "2")]
    pub reported_device: Option<DeviceStatus>,
    /// Its namespace.
    #[prost(string, tag = "3")]
    pub device_namespace: String,
}

/// `ReportDeviceStatesRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReportDeviceStatesRequest {
    /// Which device.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub device_namespace: String,
    /// `online`, `offline`, `ok`, …
    #[prost(string, tag = "3")]
    pub state: String,
}

/// `RegisterDeviceRequest` and `UpdateDeviceRequest`, which are alike.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeviceRequest {
    /// The device.
    #[prost(message, optional, tag = "1")]
    pub device: Option<Device>,
}

/// `CreateDeviceModelRequest` and `UpdateDeviceModelRequest`, which are alike.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelRequest {
    /// The model.
    #[prost(message, optional, tag = "1")]
    pub model: Option<DeviceModel>,
}

/// `RemoveDeviceRequest` and `RemoveDeviceModelRequest`, which are alike.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveRequest {
    /// Which one.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
}

/// Any answer nothing is read from.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}
