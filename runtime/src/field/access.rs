//! Commands: reads and writes somebody asked for, checked here and done by tasks.

use edge_mappers::Port;
use edge_model::reading::{Quality, Reading, Value};

use super::commands::{Command, CommandError, Reply, What};
use super::device::{Known, Mapper, Retry, target};
use super::unit::{Done, Field, Id, WORK};
use crate::twin::Entry;

impl Field {
    pub(super) fn command(&mut self, command: Command) {
        let Command { namespace, device, what, reply } = command;
        let id = (namespace, device);
        match self.start(&id, what) {
            Ok(Started::Now(readings)) => answer(reply, Ok(readings)),
            Ok(Started::Read(port, property)) => {
                self.work.spawn(async move {
                    let result = port.read(property.as_deref()).await.map_err(CommandError::from);
                    answer(reply, result);
                    Done::Nothing
                });
            }
            Ok(Started::Write(port, property, value)) => {
                self.work.spawn(async move {
                    let result = port.write(&property, value.clone()).await;
                    audit(&id, &property, &value, &result);
                    let done = match &result {
                        Ok(reading) => Done::Written(id, property, reading.clone()),
                        Err(_) => Done::NotWritten(id, property),
                    };
                    answer(reply, result.map(|r| vec![r]).map_err(CommandError::from));
                    done
                });
            }
            Err(e) => answer(reply, Err(e)),
        }
    }

    /// Checks a command; what needs the wire is left to a task.
    fn start(&mut self, id: &Id, what: What) -> Result<Started, CommandError> {
        let known = self.devices.get_mut(id);
        let known = known.ok_or_else(|| CommandError::NotFound(format!("device {}/{}", id.0, id.1)))?;
        let config = match &known.mapper {
            Mapper::Own(config) => config,
            Mapper::None(why) => return Err(CommandError::Refused(why.clone())),
            Mapper::Outside => return outside(known, what),
        };
        if self.work.len() >= WORK {
            return Err(CommandError::Busy);
        }
        let port = self.mappers.port(config).ok_or(CommandError::Busy)?;
        match what {
            What::Get(property) => Ok(Started::Read(port, property)),
            What::Set { property, value, method } => {
                if let Some(method) = method {
                    let methods = known.spec.as_ref().map_or(&[][..], |s| &s.methods);
                    let found = methods.iter().find(|m| m.name == method);
                    let found = found.ok_or_else(|| CommandError::NotFound(format!("method {method}")))?;
                    if !found.property_names.contains(&property) {
                        return Err(CommandError::NotFound(format!("property {property} of method {method}")));
                    }
                }
                let unknown = || CommandError::NotFound(format!("property {property}"));
                let index = known.profile.index(&property).ok_or_else(unknown)?;
                let point = known.profile.points.get(index).ok_or_else(unknown)?;
                target(&known.mapper, point, index, &value)?;
                // The old desired value must not be written over the new one before it is replaced.
                known.writing.entry(property.clone()).or_insert_with(Retry::new).commands += 1;
                Ok(Started::Write(port, property, value))
            }
        }
    }
}

enum Started {
    Now(Vec<Reading>),
    Read(Port, Option<String>),
    Write(Port, String, serde_json::Value),
}

/// Who wrote what to which device, and what became of it: a line of the log with a target of its own.
pub(super) fn audit(
    id: &Id,
    property: &str,
    value: &serde_json::Value,
    result: &Result<Reading, edge_mappers::AccessError>,
) {
    let (namespace, device) = (&id.0, &id.1);
    match result {
        Ok(_) => tracing::info!(target: "audit", %namespace, %device, property, %value, "property written"),
        Err(error) => {
            tracing::warn!(target: "audit", %namespace, %device, property, %value, %error, "property not written");
        }
    }
}

fn answer(reply: Reply, result: Result<Vec<Reading>, CommandError>) {
    // Whoever asked may have gone.
    let _ = reply.send(result);
}

/// A command for a device of a mapper in a pod: it can only be asked for what was reported.
fn outside(known: &Known, what: What) -> Result<Started, CommandError> {
    let What::Get(property) = what else {
        let how = "it belongs to a mapper in a pod; set the desired value in its spec or over twin/update";
        return Err(CommandError::Refused(how.to_owned()));
    };
    if let Some(p) = property.as_ref().filter(|p| known.profile.index(p).is_none()) {
        return Err(CommandError::NotFound(format!("property {p}")));
    }
    let reading = |(e, p): (&Entry, &edge_mappers::Point)| Reading {
        namespace: known.namespace.clone(),
        device: known.name.clone(),
        property: e.name.clone(),
        time_ms: e.time_ms,
        quality: e.quality,
        value: e.reported.as_ref().filter(|_| e.quality == Quality::Good).and_then(|t| typed(p, t)),
        unit: p.unit.clone(),
    };
    let all = known.twin.entries.iter().zip(&known.profile.points);
    Ok(Started::Now(all.filter(|(e, _)| property.as_ref().is_none_or(|p| *p == e.name)).map(reading).collect()))
}

/// A reported text as the value it means.
fn typed(point: &edge_mappers::Point, text: &str) -> Option<Value> {
    point.parse(&serde_json::Value::from(text)).ok()
}
