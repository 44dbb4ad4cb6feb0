//! `configData` of cameras that speak ONVIF (`protocolName: onvif`): what they are and where their pictures are. KubeEdge has
//! no word for them.
//!
//! ```yaml
//! # of the model
//! properties:
//!   - name: stream
//!     type: STRING
//!     accessMode: ReadOnly
//!     visitors: {protocolName: onvif, configData: {value: streamUri, profile: Profile_Sub}}
//!   - name: serial
//!     type: STRING
//!     accessMode: ReadOnly
//!     visitors: {protocolName: onvif, configData: {value: serialNumber}}
//! # of the device
//! protocol:
//!   protocolName: onvif
//!   configData: {address: 192.168.1.64, user: admin, password: secret}
//! ```
//! Pictures themselves are not carried: a pod opens the URI (or `/dev/video*`).

use std::net::Ipv4Addr;

use serde::Deserialize;

/// `protocol.configData`: the camera. It has an `address`, or an `endpointReference` by which it is found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// Host name or IP address.
    #[serde(default)]
    pub address: Option<String>,
    /// The port of its device service; 80 when absent.
    #[serde(default = "eighty")]
    pub port: u16,
    /// The path of its device service; `/onvif/device_service` when absent (ONVIF Core, section 5.1.1).
    #[serde(default = "device_service")]
    pub path: String,
    /// The address it calls itself in WS-Discovery, such as `urn:uuid:…`, when it has no fixed one in the network.
    #[serde(default)]
    pub endpoint_reference: Option<String>,
    /// Our own IPv4 address in the network it is looked for in; all of ours when absent.
    #[serde(default)]
    pub interface: Option<Ipv4Addr>,
    /// The user; none asks without saying who.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password. It never leaves the node: what is sent is a digest.
    #[serde(default)]
    pub password: Option<String>,
    /// The media profile of properties that name none, by its token; the camera's first when absent.
    #[serde(default)]
    pub profile: Option<String>,
    /// Put the host the camera was reached by into the URIs it gives: for cameras behind address translation.
    #[serde(default)]
    pub rewrite_host: bool,
    /// How long one request may take, with connecting, and how long it is looked for, in milliseconds, 100 to 60000; 5000 when
    /// absent.
    #[serde(default = "five_seconds")]
    pub timeout: u64,
}

/// `visitors.configData`: what the property is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Visitor {
    /// Which of the camera's values.
    pub value: What,
    /// For URIs: the media profile, by its token; the device's when absent.
    #[serde(default)]
    pub profile: Option<String>,
    /// For `streamUri`: how the stream is to be carried; RTSP when absent.
    #[serde(default)]
    pub transport: Option<Transport>,
}

/// A value of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// Who made it.
    Manufacturer,
    /// Its model.
    Model,
    /// The version of its firmware.
    FirmwareVersion,
    /// Its serial number.
    SerialNumber,
    /// The version of its hardware.
    HardwareId,
    /// Its media profiles: a JSON list of `token`, `name` and, where it encodes video, `encoding`, `width`, `height`.
    Profiles,
    /// Where a picture can be fetched over HTTP.
    SnapshotUri,
    /// Where the video is.
    StreamUri,
    /// Its clock, UTC (RFC 3339).
    DateTime,
    /// How far its clock is ahead of ours, in seconds; an INT.
    ClockOffset,
    /// Where its device service answers: interesting when it was found.
    DeviceUri,
}

/// How a stream is carried (ONVIF Media, section 5.15.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Transport {
    /// RTP in the RTSP connection.
    #[default]
    #[serde(rename = "RTSP")]
    Rtsp,
    /// RTP over UDP, one receiver.
    #[serde(rename = "UDP")]
    Udp,
    /// RTP over UDP multicast.
    #[serde(rename = "multicast")]
    Multicast,
    /// RTP and RTSP in HTTP.
    #[serde(rename = "HTTP")]
    Http,
}

const fn eighty() -> u16 {
    80
}
fn device_service() -> String {
    "/onvif/device_service".to_owned()
}
const fn five_seconds() -> u64 {
    5_000
}
