//! A register list as makers print it, in CSV (RFC 4180), made into a DeviceModel and a Device.
//!
//! The first line names the columns, in any order; commas or semicolons separate. `name`, `address` and either `table` or an
//! address in Modicon's notation are needed:
//!
//! | column | what |
//! |---|---|
//! | `name`, `description`, `unit` | of the property |
//! | `type` | `INT` (when empty), `FLOAT`, `DOUBLE`, `STRING`, `BOOLEAN`, `BYTES` |
//! | `access` | `ReadOnly` (when empty), `ReadWrite`; also `R`, `RW` |
//! | `minimum`, `maximum` | limits |
//! | `table` | `holding`, `input`, `coil`, `discrete`, or KubeEdge's words |
//! | `address` | from 0, decimal or `0x…`; without a table `40001` or `400001` is holding register 0, `30001`, `10001`, `00001` likewise |
//! | `collectCycle`, `reportCycle` | milliseconds |
//! | any other | a key of the visitor, such as `dataType`, `limit`, `scale`, `byteOrder`, `bit` |
//!
//! Empty lines and lines that begin with `#` are passed over.

use edge_model::device::modbus::Visitor;
use edge_model::device::{MODBUS, PropertyType};
use serde_json::{Map, Value, json};

use super::decode::Codec;

/// What is wrong with a list, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct CsvError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A list, read.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisterMap {
    /// `spec.properties` of a DeviceModel, each with its visitors.
    pub model: Vec<Value>,
    /// `spec.properties` of a Device.
    pub device: Vec<Value>,
}

impl RegisterMap {
    /// A DeviceModel and a Device that use the list; the device's `configData` as given.
    pub fn objects(&self, name: &str, link: &Value) -> [Value; 2] {
        let api = "devices.kubeedge.io/v1beta1";
        let model = json!({
            "apiVersion": api, "kind": "DeviceModel", "metadata": {"name": name},
            "spec": {"protocol": MODBUS, "properties": self.model},
        });
        let device = json!({
            "apiVersion": api, "kind": "Device", "metadata": {"name": name},
            "spec": {
                "deviceModelRef": {"name": name},
                "protocol": {"protocolName": MODBUS, "configData": link},
                "properties": self.device,
            },
        });
        [model, device]
    }
}

/// One line's fields, each with the text it has.
struct Row {
    line: usize,
    fields: Vec<String>,
}

/// Reads a list.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(text: &str) -> Result<RegisterMap, CsvError> {
    let text = text.trim_start_matches('\u{feff}');
    let mut rows = rows(text)?.into_iter();
    let head =
        rows.next().ok_or(CsvError { line: 1, column: 1, message: "there is no line with the columns".into() })?;
    let columns: Vec<String> = head.fields.iter().map(|f| f.trim().to_owned()).collect();
    for (i, column) in columns.iter().enumerate() {
        if columns.iter().take(i).any(|c| c.eq_ignore_ascii_case(column)) {
            return Err(CsvError { line: head.line, column: i + 1, message: format!("{column:?} is there twice") });
        }
    }
    for needed in ["name", "address"] {
        if !columns.iter().any(|c| c.eq_ignore_ascii_case(needed)) {
            return Err(CsvError { line: head.line, column: 1, message: format!("there is no column {needed:?}") });
        }
    }
    let mut map = RegisterMap { model: Vec::new(), device: Vec::new() };
    let mut names: Vec<String> = Vec::new();
    for row in rows {
        if row.fields.len() > columns.len() {
            let message = format!("{} fields for {} columns", row.fields.len(), columns.len());
            return Err(CsvError { line: row.line, column: columns.len() + 1, message });
        }
        let line = Line { row: &row, columns: &columns };
        let (model, device) = line.property()?;
        let name = line.get("name").to_owned();
        if names.contains(&name) {
            return Err(line.fail("name", format!("{name:?} is there twice")));
        }
        names.push(name);
        map.model.push(model);
        map.device.push(device);
    }
    Ok(map)
}

struct Line<'a> {
    row: &'a Row,
    columns: &'a [String],
}

impl Line<'_> {
    fn at(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.eq_ignore_ascii_case(column))
    }

    fn get(&self, column: &str) -> &str {
        self.at(column).and_then(|i| self.row.fields.get(i)).map_or("", |f| f.trim())
    }

    fn fail(&self, column: &str, message: impl Into<String>) -> CsvError {
        CsvError { line: self.row.line, column: self.at(column).unwrap_or(0) + 1, message: message.into() }
    }

    fn property(&self) -> Result<(Value, Value), CsvError> {
        const OWN: [&str; 11] = [
            "name",
            "description",
            "unit",
            "type",
            "access",
            "minimum",
            "maximum",
            "table",
            "address",
            "collectCycle",
            "reportCycle",
        ];
        let name = self.get("name");
        if name.is_empty() {
            return Err(self.fail("name", "is empty"));
        }
        let kind = match self.get("type") {
            "" => "INT".to_owned(),
            kind => kind.to_ascii_uppercase(),
        };
        let value_type: PropertyType = serde_json::from_value(json!(kind))
            .map_err(|_| self.fail("type", format!("{kind:?} is not INT, FLOAT, DOUBLE, STRING, BOOLEAN or BYTES")))?;
        let access = match self.get("access").to_ascii_lowercase().as_str() {
            "" | "r" | "ro" | "readonly" => "ReadOnly",
            "rw" | "w" | "readwrite" => "ReadWrite",
            other => return Err(self.fail("access", format!("{other:?} is not ReadOnly or ReadWrite"))),
        };
        let (table, offset) = self.place()?;
        if access == "ReadWrite" && matches!(table, "InputRegister" | "DiscreteInputRegister") {
            return Err(self.fail("access", format!("{table} cannot be written")));
        }
        let mut keys = Map::new();
        keys.insert("register".to_owned(), table.into());
        keys.insert("offset".to_owned(), offset.into());
        for column in self.columns.iter().filter(|c| !OWN.iter().any(|o| o.eq_ignore_ascii_case(c))) {
            let text = self.get(column);
            if !text.is_empty() {
                keys.insert(column.clone(), typed(text));
            }
        }
        let visitor: Visitor = visitor_of(&keys).map_err(|(key, message)| self.fail(&key, message))?;
        Codec::resolve(&visitor, value_type).map_err(|message| {
            // The key the message begins with, or speaks of first.
            let place = |c: &&String| message.find(c.as_str()).unwrap_or(usize::MAX);
            let named = self.columns.iter().filter(|c| !c.is_empty() && message.contains(c.as_str())).min_by_key(place);
            self.fail(named.map_or("address", String::as_str), message)
        })?;
        let visitors = json!({"protocolName": MODBUS, "configData": keys});
        let mut model = json!({"name": name, "type": kind, "accessMode": access, "visitors": visitors});
        for column in ["description", "unit", "minimum", "maximum"] {
            let text = self.get(column);
            if text.is_empty() {
                continue;
            }
            if column.ends_with("imum") && text.parse::<f64>().is_err() {
                return Err(self.fail(column, format!("{text:?} is not a number")));
            }
            model[column] = text.into();
        }
        let mut device = json!({"name": name});
        for column in ["collectCycle", "reportCycle"] {
            let text = self.get(column);
            if !text.is_empty() {
                let ms: u64 = text.parse().map_err(|_| self.fail(column, format!("{text:?} is not milliseconds")))?;
                device[column] = ms.into();
            }
        }
        Ok((model, device))
    }

    fn place(&self) -> Result<(&'static str, u16), CsvError> {
        let text = self.get("address");
        let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        let number = number.ok_or_else(|| self.fail("address", format!("{text:?} is not an address")))?;
        let table = match self.get("table").to_ascii_lowercase().as_str() {
            "holding" | "holdingregister" => "HoldingRegister",
            "input" | "inputregister" => "InputRegister",
            "coil" | "coilregister" => "CoilRegister",
            "discrete" | "discreteinputregister" => "DiscreteInputRegister",
            "" => return self.modicon(text, number),
            other => return Err(self.fail("table", format!("{other:?} is not holding, input, coil or discrete"))),
        };
        let offset = u16::try_from(number).map_err(|_| self.fail("address", format!("{number} is above 65535")))?;
        Ok((table, offset))
    }

    /// `40001` or `400001`: a digit for the table, and an address from 1.
    fn modicon(&self, text: &str, number: u32) -> Result<(&'static str, u16), CsvError> {
        let wrong = || {
            let what = format!("{text:?} without a table is not Modicon's notation, such as 40001");
            self.fail("address", what)
        };
        let unit = match text.len() {
            5 => 10_000,
            6 => 100_000,
            _ => return Err(wrong()),
        };
        let table = match number / unit {
            0 => "CoilRegister",
            1 => "DiscreteInputRegister",
            3 => "InputRegister",
            4 => "HoldingRegister",
            _ => return Err(wrong()),
        };
        let offset = (number % unit).checked_sub(1).and_then(|o| u16::try_from(o).ok()).ok_or_else(wrong)?;
        Ok((table, offset))
    }
}

/// The visitor of some keys; on failure the key and what is wrong.
fn visitor_of(keys: &Map<String, Value>) -> Result<Visitor, (String, String)> {
    let all = serde_json::from_value(Value::Object(keys.clone()));
    let Err(error) = all.as_ref() else { return all.map_err(|e| (String::new(), e.to_string())) };
    // Which key it was: the one that fails alone.
    for (key, value) in keys {
        let mut alone = Map::new();
        alone.insert("register".to_owned(), "HoldingRegister".into());
        alone.insert(key.clone(), value.clone());
        if let Err(error) = serde_json::from_value::<Visitor>(Value::Object(alone)) {
            return Err((key.clone(), error.to_string()));
        }
    }
    Err((String::new(), error.to_string()))
}

/// A field as the JSON value it looks like: numbers, true and false, objects and lists; anything else is text.
fn typed(text: &str) -> Value {
    let literal = match text.to_ascii_lowercase().as_str() {
        "true" | "yes" => Some(Value::Bool(true)),
        "false" | "no" => Some(Value::Bool(false)),
        hex if hex.starts_with("0x") => u64::from_str_radix(hex.trim_start_matches("0x"), 16).ok().map(Value::from),
        _ => serde_json::from_str(text).ok().filter(|v: &Value| !v.is_string() && !v.is_null()),
    };
    literal.unwrap_or_else(|| text.into())
}

/// The lines of a text, quoted fields joined over line ends.
fn rows(text: &str) -> Result<Vec<Row>, CsvError> {
    let first = text.lines().find(|l| !l.trim().is_empty() && !l.starts_with('#')).unwrap_or_default();
    let separator = if first.matches(';').count() > first.matches(',').count() { ';' } else { ',' };
    let (mut rows, mut fields, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut began, mut quoted) = (1, 1, false);
    let mut characters = text.chars().peekable();
    let mut fresh = true;
    while let Some(c) = characters.next() {
        if quoted {
            match c {
                '"' if characters.peek() == Some(&'"') => {
                    characters.next();
                    field.push('"');
                }
                '"' => quoted = false,
                _ => {
                    line += usize::from(c == '\n');
                    field.push(c);
                }
            }
            continue;
        }
        match c {
            '#' if fresh && fields.is_empty() => {
                while characters.peek().is_some_and(|c| *c != '\n') {
                    characters.next();
                }
            }
            '"' if field.trim().is_empty() => {
                field.clear();
                (quoted, fresh) = (true, false);
            }
            c if c == separator => {
                fields.push(std::mem::take(&mut field));
                fresh = false;
            }
            '\n' => {
                end(&mut rows, &mut fields, &mut field, began);
                line += 1;
                (began, fresh) = (line, true);
            }
            '\r' => {}
            c => {
                field.push(c);
                fresh = false;
            }
        }
    }
    if quoted {
        return Err(CsvError { line: began, column: fields.len() + 1, message: "a quote is not closed".to_owned() });
    }
    end(&mut rows, &mut fields, &mut field, began);
    Ok(rows)
}

fn end(rows: &mut Vec<Row>, fields: &mut Vec<String>, field: &mut String, line: usize) {
    fields.push(std::mem::take(field));
    let fields = std::mem::take(fields);
    if fields.iter().any(|f| !f.trim().is_empty()) {
        rows.push(Row { line, fields });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::device::{Device, DeviceModel};

    const LIST: &str = "\u{feff}# Acme meter, revision 3\r\n\
        name,table,address,type,access,unit,dataType,scale,description,minimum,maximum,collectCycle\r\n\
        voltage,holding,0x10,float,,V,uint16,0.1,\"mains, \"\"phase 1\"\"\",0,300,500\r\n\
        \r\n\
        limit,,40021,INT,RW,A,int16,,,,,\r\n\
        door,,10003,BOOLEAN,R\r\n";

    #[test]
    fn a_list_becomes_objects() {
        let map = parse(LIST).unwrap();
        let [model, device] = map.objects("meter", &json!({"ip": "10.0.0.9"}));
        let model = DeviceModel::parse(&model["spec"]).unwrap();
        let device = Device::parse(&device["spec"]).unwrap();
        let config = super::super::resolve("default", "meter", &device, &model).unwrap();
        let places: Vec<(u16, u16)> = config.registers.iter().map(|r| (r.address, r.count)).collect();
        assert_eq!(places, [(16, 1), (20, 1), (2, 1)]);
        assert_eq!(model.properties[0].description, "mains, \"phase 1\"");
        let (first, second) = (&config.profile.points[0], &config.profile.points[1]);
        assert_eq!((first.maximum, first.writable, second.writable), (Some(300.0), false, true));
        assert_eq!(config.registers[0].period.as_millis(), 500);
    }

    #[test]
    fn semicolons_do_as_well() {
        assert_eq!(parse("name;address\na;40001\nb;300002\n").unwrap().model.len(), 2);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let head = "name,table,address,type,access,dataType,scale,bit\n";
        let cases = [
            ("", (1, 1), "no line"),
            ("name,table\n", (1, 1), "\"address\""),
            ("name,address,name\n", (1, 3), "twice"),
            (",holding,1\n", (2, 1), "empty"),
            ("a,holding,x\n", (2, 3), "not an address"),
            ("a,holding,70000\n", (2, 3), "above 65535"),
            ("a,,17\n", (2, 3), "Modicon"),
            ("a,file,1\n", (2, 2), "not holding"),
            ("a,holding,1,REAL\n", (2, 4), "REAL"),
            ("a,input,1,INT,RW\n", (2, 5), "cannot be written"),
            ("a,holding,1,INT,,int17\n", (2, 6), "int17"),
            ("a,holding,1,INT,,,0\n", (2, 7), "other than 0"),
            ("a,holding,1,BOOLEAN,,,,16\n", (2, 8), "0 to 15"),
            ("a,holding,1\n\na,holding,2\n", (4, 1), "twice"),
            ("a,holding,1,,,,,,,\n", (2, 9), "fields for"),
            ("a,holding,\"1\n", (2, 3), "quote"),
        ];
        for (text, place, part) in cases {
            let whole =
                if text.is_empty() || text.starts_with("name") { text.to_owned() } else { format!("{head}{text}") };
            let e = parse(&whole).unwrap_err();
            assert_eq!((e.line, e.column), place, "{whole}: {e}");
            assert!(e.message.contains(part), "{whole}: {e}");
        }
    }
}
