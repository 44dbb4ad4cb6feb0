//! A small simulated plant over Modbus TCP, for the demonstration: a tank that a pump fills and a consumer drains.
//!
//! Everything but the pump and the setpoint follows from the time alone, so two plants of the same age show the same.
//!
//! | table | address | what |
//! |---|---|---|
//! | input registers | 0 | temperature, int16, 0.1 °C: a slow sine around the setpoint's start of 21.5 |
//! | input registers | 1–2 | seconds since the start, uint32 |
//! | input registers | 3–4 | level, float32, % |
//! | holding registers | 0 | setpoint, int16, 0.1 °C, writable |
//! | coils | 0 | pump, writable |
//! | discrete inputs | 0 | pump is running, follows the coil |

use std::future::{Ready, ready};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};
use tokio_util::sync::CancellationToken;

/// The unit the plant answers for; others get no answer, as on a wire.
pub const UNIT: u8 = 1;
/// The level moves so fast, in percent per second.
const FLOW: f32 = 2.0;

/// The plant's state between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plant {
    pump: bool,
    setpoint: u16,
    /// The level when the pump last changed, and when that was (seconds).
    level: f32,
    since: f32,
}

impl Default for Plant {
    fn default() -> Plant {
        Plant { pump: true, setpoint: 215, level: 50.0, since: 0.0 }
    }
}

impl Plant {
    /// The temperature at a time in seconds, in 0.1 °C: one turn in a minute, 3 °C up and down.
    fn temperature(seconds: f32) -> i16 {
        #[expect(clippy::cast_possible_truncation, reason = "between 185 and 245")]
        let tenths = (215.0 + 30.0 * (seconds / 60.0 * std::f32::consts::TAU).sin()).round() as i16;
        tenths
    }

    /// The level at a time in seconds, in percent.
    fn level(&self, seconds: f32) -> f32 {
        let direction = if self.pump { FLOW } else { -FLOW };
        (self.level + direction * (seconds - self.since)).clamp(0.0, 100.0)
    }

    fn input(&self, address: u16, seconds: f32) -> Option<u16> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since the start")]
        let count = seconds as u32;
        let level = self.level(seconds).to_bits();
        let half = |word: u32, high: bool| u16::try_from(if high { word >> 16 } else { word & 0xffff }).unwrap_or(0);
        match address {
            0 => Some(Plant::temperature(seconds).cast_unsigned()),
            1 | 2 => Some(half(count, address == 1)),
            3 | 4 => Some(half(level, address == 3)),
            _ => None,
        }
    }

    /// Answers one request at a time in seconds since the start.
    ///
    /// # Errors
    /// The exception a device would answer with.
    pub fn answer(&mut self, request: &Request<'_>, seconds: f32) -> Result<Response, ExceptionCode> {
        use ExceptionCode::{IllegalDataAddress, IllegalFunction};
        let words = |address: u16, count: u16, one: &dyn Fn(u16) -> Option<u16>| {
            (0..count)
                .map(|i| address.checked_add(i).and_then(one).ok_or(IllegalDataAddress))
                .collect::<Result<Vec<_>, _>>()
        };
        match *request {
            Request::ReadInputRegisters(a, n) => {
                words(a, n, &|a| self.input(a, seconds)).map(Response::ReadInputRegisters)
            }
            Request::ReadHoldingRegisters(a, n) => {
                words(a, n, &|a| (a == 0).then_some(self.setpoint)).map(Response::ReadHoldingRegisters)
            }
            Request::ReadCoils(0, 1) => Ok(Response::ReadCoils(vec![self.pump])),
            Request::ReadDiscreteInputs(0, 1) => Ok(Response::ReadDiscreteInputs(vec![self.pump])),
            Request::WriteSingleRegister(0, value) => {
                self.setpoint = value;
                Ok(Response::WriteSingleRegister(0, value))
            }
            Request::WriteSingleCoil(0, on) => {
                (self.level, self.since, self.pump) = (self.level(seconds), seconds, on);
                Ok(Response::WriteSingleCoil(0, on))
            }
            Request::ReadCoils(..)
            | Request::ReadDiscreteInputs(..)
            | Request::WriteSingleRegister(..)
            | Request::WriteSingleCoil(..) => Err(IllegalDataAddress),
            _ => Err(IllegalFunction),
        }
    }
}

/// The objects that describe the plant, as KubeEdge's YAML would: a `DeviceModel` and a `Device` named `plant`, polled every
/// second and reported to the cloud.
pub fn objects(port: u16) -> [Value; 2] {
    let api = "devices.kubeedge.io/v1beta1";
    let points = [
        (
            "temperature",
            "FLOAT",
            "ReadOnly",
            "°C",
            json!({"register": "InputRegister", "dataType": "int16", "scale": 0.1}),
        ),
        ("uptime", "INT", "ReadOnly", "s", json!({"register": "InputRegister", "offset": 1, "limit": 2})),
        ("level", "FLOAT", "ReadOnly", "%", json!({"register": "InputRegister", "offset": 3, "limit": 2})),
        (
            "setpoint",
            "FLOAT",
            "ReadWrite",
            "°C",
            json!({"register": "HoldingRegister", "dataType": "int16", "scale": 0.1}),
        ),
        ("pump", "BOOLEAN", "ReadWrite", "", json!({"register": "CoilRegister"})),
        ("running", "BOOLEAN", "ReadOnly", "", json!({"register": "DiscreteInputRegister"})),
    ];
    let of_model = points.iter().map(|(name, kind, access, unit, _)| {
        let mut p = json!({"name": name, "type": kind, "accessMode": access, "unit": unit});
        if *name == "setpoint" {
            (p["minimum"], p["maximum"]) = (json!("5"), json!("35"));
        }
        p
    });
    let of_device = points.iter().map(|(name, .., data)| {
        let visitors = json!({"protocolName": "modbus", "configData": data});
        json!({"name": name, "collectCycle": 1000, "reportToCloud": true, "visitors": visitors})
    });
    let link = json!({"ip": "127.0.0.1", "port": port, "slaveID": UNIT, "communicateMode": "TCP"});
    let model = json!({
        "apiVersion": api, "kind": "DeviceModel", "metadata": {"name": "plant"},
        "spec": {"protocol": "modbus", "properties": of_model.collect::<Vec<_>>()},
    });
    let device = json!({
        "apiVersion": api, "kind": "Device", "metadata": {"name": "plant"},
        "spec": {
            "deviceModelRef": {"name": "plant"},
            "protocol": {"protocolName": "modbus", "configData": link},
            "properties": of_device.collect::<Vec<_>>(),
        },
    });
    [model, device]
}

#[derive(Clone)]
struct Door {
    plant: Arc<Mutex<Plant>>,
    start: Instant,
}

impl Service for Door {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Option<Response>, ExceptionCode>>;

    fn call(&self, request: SlaveRequest<'static>) -> Self::Future {
        if request.slave != UNIT {
            return ready(Ok(None));
        }
        let mut plant = self.plant.lock().unwrap_or_else(PoisonError::into_inner);
        ready(plant.answer(&request.request, self.start.elapsed().as_secs_f32()).map(Some))
    }
}

/// Serves a plant until told to stop.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let door = Door { plant: Arc::default(), start: Instant::now() };
    let server = Server::new(listener);
    let connected = |stream, address| {
        let door = door.clone();
        async move { accept_tcp_connection(stream, address, |_| Ok(Some(door.clone()))) }
    };
    let served = server.serve(&connected, |e| tracing::debug!(error = %e, "plant: connection ended"));
    stop.run_until_cancelled(served).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_age_shows_the_same() {
        let (mut a, mut b) = (Plant::default(), Plant::default());
        let all = Request::ReadInputRegisters(0, 5);
        for seconds in [0.0, 15.0, 61.5] {
            assert_eq!(a.answer(&all, seconds), b.answer(&all, seconds));
        }
        assert_eq!((Plant::temperature(0.0), Plant::temperature(15.0)), (215, 245));
    }

    #[test]
    fn the_level_obeys_the_pump() {
        let mut plant = Plant::default();
        assert_eq!(plant.level(10.0), 70.0);
        plant.answer(&Request::WriteSingleCoil(0, false), 10.0).unwrap();
        assert_eq!((plant.level(20.0), plant.level(1000.0)), (50.0, 0.0));
        let refused = plant.answer(&Request::ReadInputRegisters(4, 2), 0.0);
        assert_eq!(refused, Err(ExceptionCode::IllegalDataAddress));
    }
}
