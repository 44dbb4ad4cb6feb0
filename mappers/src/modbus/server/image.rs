//! The registers of a server, and what a request means for them. Pure: no sockets, no clock.

use std::collections::{BTreeMap, BTreeSet};

use edge_model::device::modbus::{Table, Visitor};
use edge_model::reading::Value;
use tokio_modbus::prelude::{ConformityLevel, DeviceIdObject, ReadCode, ReadDeviceIdentificationResponse};
use tokio_modbus::{ExceptionCode, Request, Response};

use super::super::config::{MAX_BITS, MAX_REGISTERS};
use super::super::decode::Codec;
use super::super::encode::{Encoded, merge};
use crate::{AccessError, Point};

/// One value, where clients find it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The unit identifier it belongs to.
    pub unit: u8,
    /// Name, type, limits, and whether clients may write it.
    pub point: Point,
    /// Its table.
    pub table: Table,
    /// Its first address.
    pub address: u16,
    /// How many registers or bits it takes.
    pub count: u16,
    codec: Codec,
}

impl Entry {
    /// A value at the place and in the form a visitor says. `register` may be any table; clients write only coils and holding
    /// registers.
    ///
    /// # Errors
    /// What does not fit together, as a message.
    pub fn new(unit: u8, point: Point, visitor: &Visitor) -> Result<Entry, String> {
        if visitor.register == Table::Identification {
            return Err("the identification is the node's own; use one of the four tables".to_owned());
        }
        let (codec, count) = Codec::resolve(visitor, point.value_type)?;
        let most = if visitor.register.is_bits() { MAX_BITS } else { MAX_REGISTERS };
        if count > most || visitor.offset.checked_add(count - 1).is_none() {
            return Err(format!("{count} from address {} do not fit into the table", visitor.offset));
        }
        if point.writable && !visitor.register.is_writable() {
            return Err("clients cannot write this table; use CoilRegister or HoldingRegister".to_owned());
        }
        Ok(Entry { unit, point, table: visitor.register, address: visitor.offset, count, codec })
    }

    fn addresses(&self) -> impl Iterator<Item = u16> + use<> {
        let first = self.address;
        (0..self.count).filter_map(move |i| first.checked_add(i))
    }

    fn overlaps(&self, unit: u8, table: Table, address: u16, count: u16) -> bool {
        let (from, to) = (u32::from(self.address), u32::from(self.address) + u32::from(self.count));
        self.unit == unit
            && self.table == table
            && from < u32::from(address) + u32::from(count)
            && u32::from(address) < to
    }
}

/// What function 43/14 tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Object 0.
    pub vendor: String,
    /// Object 1.
    pub product: String,
    /// Object 2.
    pub revision: String,
}

/// What a request comes to.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// It can be answered.
    Now(Result<Response, ExceptionCode>),
    /// Somebody has to agree: these entries shall have these values, and then this is the answer.
    Ask(Vec<(usize, Value)>, Then),
}

/// The answer to a write.
#[derive(Debug, PartialEq)]
pub(super) enum Then {
    Say(Response),
    /// Function 23: what is read after the write.
    Read(u16, u16),
}

/// The registers of all units.
#[derive(Debug)]
pub(super) struct Image {
    entries: Vec<Entry>,
    /// A bit is 0 or 1; `None` is exposed and not known.
    cells: BTreeMap<(u8, Table, u16), Option<u16>>,
    units: BTreeSet<u8>,
    identity: Identity,
}

impl Image {
    pub(super) fn new(entries: Vec<Entry>, identity: Identity) -> Image {
        let cells = entries.iter().flat_map(|e| e.addresses().map(|a| ((e.unit, e.table, a), None))).collect();
        let units = entries.iter().map(|e| e.unit).collect();
        Image { entries, cells, units, identity }
    }

    pub(super) fn has(&self, unit: u8) -> bool {
        self.units.contains(&unit)
    }

    /// A value became known, or (`None`) bad.
    ///
    /// # Errors
    /// When its registers cannot hold it; then it counts as bad.
    pub(super) fn set(&mut self, entry: usize, value: Option<&Value>) -> Result<(), AccessError> {
        let Some(e) = self.entries.get(entry) else { return Err(AccessError::Gone) };
        let encoded = value.map(|v| e.codec.encode(v, e.count)).transpose();
        let old: Vec<u16> = e.addresses().map(|a| self.cell(e.unit, e.table, a).flatten().unwrap_or(0)).collect();
        let words: Vec<Option<u16>> = match &encoded {
            Ok(Some(Encoded::Registers(r))) => r.iter().copied().map(Some).collect(),
            Ok(Some(Encoded::Bits(b))) => b.iter().map(|b| Some(u16::from(*b))).collect(),
            Ok(Some(Encoded::Masked { masks, values })) => merge(&old, masks, values).into_iter().map(Some).collect(),
            Ok(None) | Err(_) => vec![None; usize::from(e.count)],
        };
        for (address, word) in e.addresses().zip(words) {
            self.cells.insert((e.unit, e.table, address), word);
        }
        encoded.map(drop)
    }

    fn cell(&self, unit: u8, table: Table, address: u16) -> Option<Option<u16>> {
        self.cells.get(&(unit, table, address)).copied()
    }

    /// The cells of a range: `Err` names the exception.
    fn range(&self, unit: u8, table: Table, address: u16, count: u16) -> Result<Vec<Option<u16>>, ExceptionCode> {
        let most = if table.is_bits() { MAX_BITS } else { MAX_REGISTERS };
        if count == 0 || count > most {
            return Err(ExceptionCode::IllegalDataValue);
        }
        let one = |i: u16| address.checked_add(i).and_then(|a| self.cell(unit, table, a));
        (0..count).map(|i| one(i).ok_or(ExceptionCode::IllegalDataAddress)).collect()
    }

    fn read(&self, unit: u8, table: Table, address: u16, count: u16) -> Result<Vec<u16>, ExceptionCode> {
        let cells = self.range(unit, table, address, count)?;
        cells.into_iter().collect::<Option<Vec<u16>>>().ok_or(ExceptionCode::ServerDeviceFailure)
    }

    /// What is read after a write in one request.
    pub(super) fn read_after(&self, unit: u8, address: u16, count: u16) -> Result<Response, ExceptionCode> {
        self.read(unit, Table::Holding, address, count).map(Response::ReadWriteMultipleRegisters)
    }

    /// What a request to a unit comes to.
    pub(super) fn answer(&self, unit: u8, request: &Request<'_>) -> Answer {
        match self.meaning(unit, request) {
            Ok(answer) => answer,
            Err(code) => Answer::Now(Err(code)),
        }
    }

    fn meaning(&self, unit: u8, request: &Request<'_>) -> Result<Answer, ExceptionCode> {
        use Table::{Coil, Discrete, Holding, Input};
        let bits = |table, a, n| {
            let bits = |words: Vec<u16>| words.into_iter().map(|w| w != 0).collect();
            self.read(unit, table, a, n).map(bits)
        };
        let now = |response| Ok(Answer::Now(Ok(response)));
        match request {
            Request::ReadCoils(a, n) => now(Response::ReadCoils(bits(Coil, *a, *n)?)),
            Request::ReadDiscreteInputs(a, n) => now(Response::ReadDiscreteInputs(bits(Discrete, *a, *n)?)),
            Request::ReadHoldingRegisters(a, n) => {
                now(Response::ReadHoldingRegisters(self.read(unit, Holding, *a, *n)?))
            }
            Request::ReadInputRegisters(a, n) => now(Response::ReadInputRegisters(self.read(unit, Input, *a, *n)?)),
            Request::WriteSingleCoil(a, on) => {
                let then = Then::Say(Response::WriteSingleCoil(*a, *on));
                self.written(unit, Coil, *a, &[u16::from(*on)], then)
            }
            Request::WriteMultipleCoils(a, on) => {
                let words: Vec<u16> = on.iter().map(|on| u16::from(*on)).collect();
                let then = Then::Say(Response::WriteMultipleCoils(*a, length(words.len())));
                self.written(unit, Coil, *a, &words, then)
            }
            Request::WriteSingleRegister(a, word) => {
                self.written(unit, Holding, *a, &[*word], Then::Say(Response::WriteSingleRegister(*a, *word)))
            }
            Request::WriteMultipleRegisters(a, words) => {
                let then = Then::Say(Response::WriteMultipleRegisters(*a, length(words.len())));
                self.written(unit, Holding, *a, words, then)
            }
            Request::MaskWriteRegister(a, and, or) => {
                let old = self.range(unit, Holding, *a, 1)?.first().copied().flatten();
                // A register whose value is not known cannot be changed in part.
                let old = old.ok_or(ExceptionCode::ServerDeviceFailure)?;
                let then = Then::Say(Response::MaskWriteRegister(*a, *and, *or));
                self.written(unit, Holding, *a, &[old & and | or & !and], then)
            }
            Request::ReadWriteMultipleRegisters(a, n, to, words) => {
                self.range(unit, Holding, *a, *n)?;
                self.written(unit, Holding, *to, words, Then::Read(*a, *n))
            }
            Request::ReadDeviceIdentification(code, first) => {
                now(Response::ReadDeviceIdentification(self.identify(*code, *first)?))
            }
            _ => Err(ExceptionCode::IllegalFunction),
        }
    }

    fn written(
        &self,
        unit: u8,
        table: Table,
        address: u16,
        words: &[u16],
        then: Then,
    ) -> Result<Answer, ExceptionCode> {
        let count = length(words.len());
        self.range(unit, table, address, count)?;
        let mut asked = Vec::new();
        for (index, e) in self.entries.iter().enumerate().filter(|(_, e)| e.overlaps(unit, table, address, count)) {
            if !e.point.writable {
                return Err(ExceptionCode::IllegalDataAddress);
            }
            let new = |a: u16| {
                let written = a.checked_sub(address).and_then(|i| words.get(usize::from(i)).copied());
                written.or_else(|| self.cell(unit, table, a).flatten()).unwrap_or(0)
            };
            let own: Vec<u16> = e.addresses().map(new).collect();
            let value = if table.is_bits() {
                e.codec.decode_bits(&own.iter().map(|w| *w != 0).collect::<Vec<bool>>())
            } else {
                e.codec.decode(&own)
            };
            match value {
                Ok(value) if e.point.allows(&value) => asked.push((index, value)),
                _ => return Err(ExceptionCode::IllegalDataValue),
            }
        }
        Ok(Answer::Ask(asked, then))
    }

    fn identify(&self, code: ReadCode, first: u8) -> Result<ReadDeviceIdentificationResponse, ExceptionCode> {
        let texts = [&self.identity.vendor, &self.identity.product, &self.identity.revision];
        let object = |(id, text): (u8, &&String)| DeviceIdObject { id, value: text.as_bytes().to_vec().into() };
        let all: Vec<DeviceIdObject> = (0u8..).zip(&texts).map(object).collect();
        let device_id_objects: Vec<DeviceIdObject> = match code {
            ReadCode::Specific => all.into_iter().filter(|o| o.id == first).collect(),
            // From an object that is not there on: from the beginning (Modbus Application Protocol V1.1b3, section 6.21).
            _ if usize::from(first) >= all.len() => all,
            _ => all.into_iter().filter(|o| o.id >= first).collect(),
        };
        if device_id_objects.is_empty() {
            return Err(ExceptionCode::IllegalDataAddress);
        }
        Ok(ReadDeviceIdentificationResponse {
            read_code: code,
            conformity_level: ConformityLevel::BasicIdentification,
            more_follows: false,
            next_object_id: 0,
            device_id_objects,
        })
    }
}

fn length(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::device::PropertyType;
    use serde_json::json;
    use std::borrow::Cow;

    fn image() -> Image {
        let entry = |name: &str, value_type, writable, keys| {
            let visitor: Visitor = serde_json::from_value(keys).unwrap();
            let (minimum, maximum) = (None, (value_type == PropertyType::Float).then_some(100.0));
            let point = Point { name: name.into(), value_type, unit: String::new(), writable, minimum, maximum };
            Entry::new(1, point, &visitor).unwrap()
        };
        let entries = vec![
            entry("level", PropertyType::Float, true, json!({"register": "HoldingRegister", "limit": 2})),
            entry("count", PropertyType::Int, false, json!({"register": "HoldingRegister", "offset": 2})),
            entry("pump", PropertyType::Boolean, true, json!({"register": "CoilRegister", "offset": 5})),
            entry("mode", PropertyType::Int, true, json!({"register": "HoldingRegister", "offset": 4})),
        ];
        let identity = Identity { vendor: "v".into(), product: "p".into(), revision: "1".into() };
        Image::new(entries, identity)
    }

    #[test]
    fn values_become_registers() {
        let mut image = image();
        let all = Request::ReadHoldingRegisters(0, 3);
        assert_eq!(image.answer(1, &all), Answer::Now(Err(ExceptionCode::ServerDeviceFailure)), "not known yet");
        image.set(0, Some(&Value::Float(1.5))).unwrap();
        image.set(1, Some(&Value::Int(7))).unwrap();
        assert_eq!(image.answer(1, &all), Answer::Now(Ok(Response::ReadHoldingRegisters(vec![0x3fc0, 0, 7]))));
        image.set(1, None).unwrap();
        assert_eq!(image.answer(1, &all), Answer::Now(Err(ExceptionCode::ServerDeviceFailure)), "bad");
        assert!(image.set(1, Some(&Value::Int(70_000))).is_err());
        for request in
            [Request::ReadHoldingRegisters(2, 2), Request::ReadCoils(4, 1), Request::ReadInputRegisters(0, 1)]
        {
            assert_eq!(image.answer(1, &request), Answer::Now(Err(ExceptionCode::IllegalDataAddress)), "{request:?}");
        }
        for request in [Request::ReadHoldingRegisters(0, 0), Request::ReadHoldingRegisters(0, 126)] {
            assert_eq!(image.answer(1, &request), Answer::Now(Err(ExceptionCode::IllegalDataValue)), "{request:?}");
        }
    }

    #[test]
    fn writes_become_values() {
        let mut image = image();
        let write = |address, words: Vec<u16>| Request::WriteMultipleRegisters(address, Cow::Owned(words));
        let then = Then::Say(Response::WriteMultipleRegisters(0, 2));
        let asked = Answer::Ask(vec![(0, Value::Float(1.5))], then);
        assert_eq!(image.answer(1, &write(0, vec![0x3fc0, 0])), asked);
        let coil = Answer::Ask(vec![(2, Value::Bool(true))], Then::Say(Response::WriteSingleCoil(5, true)));
        assert_eq!(image.answer(1, &Request::WriteSingleCoil(5, true)), coil);
        let refused = [
            (write(0, vec![0x7fc0, 0]), ExceptionCode::IllegalDataValue),
            (write(0, vec![0x447a, 0]), ExceptionCode::IllegalDataValue),
            (write(2, vec![1]), ExceptionCode::IllegalDataAddress),
            (write(3, vec![1]), ExceptionCode::IllegalDataAddress),
            (Request::MaskWriteRegister(4, 0, 0), ExceptionCode::ServerDeviceFailure),
            (Request::ReportServerId, ExceptionCode::IllegalFunction),
        ];
        for (request, code) in refused {
            assert_eq!(image.answer(1, &request), Answer::Now(Err(code)), "{request:?}");
        }
        image.set(3, Some(&Value::Int(0x12))).unwrap();
        // The specification's example: 0x12, and-mask 0xF2, or-mask 0x25, result 0x17 (section 6.16).
        let Answer::Ask(asked, _) = image.answer(1, &Request::MaskWriteRegister(4, 0xf2, 0x25)) else { panic!() };
        assert_eq!(asked, [(3, Value::Int(0x17))]);
    }
}
