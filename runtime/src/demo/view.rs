//! What the demo shows: values in, lines out.

use edge_model::{Kind, Object};
use serde_json::Value;

use super::cloud::Arrived;

/// Everything that is shown.
#[derive(Debug, Default)]
pub struct View {
    /// Seconds since the start.
    pub seconds: u64,
    /// Devices and pods, as the store has them.
    pub objects: Vec<Object>,
    /// The link to the cloud, in words, and whether it is up.
    pub link: (String, bool),
    /// Streams of the queue: name, messages waiting, bytes on disk, messages dropped.
    pub queue: Vec<(&'static str, u64, u64, u64)>,
    /// Whether the cloud's plug is in.
    pub plugged: bool,
    /// What the cloud has seen, by stream.
    pub arrived: Vec<(String, Arrived)>,
    /// What cannot be done here, such as containers without root.
    pub remarks: Vec<String>,
    /// The last line of the pod's log.
    pub log: String,
}

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
/// The width of remarks.
const COLUMNS: usize = 78;
const DIM: &str = "\x1b[2m";
const OFF: &str = "\x1b[0m";

fn light(on: bool, text: &str) -> String {
    format!("{}{text}{OFF}", if on { GREEN } else { RED })
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

impl View {
    /// The whole screen.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{BOLD}edge-runtime demo{OFF}  {} s", self.seconds), String::new()];
        self.devices(&mut lines);
        self.pods(&mut lines);
        lines.push(format!("{BOLD}queue      waiting      bytes  dropped{OFF}"));
        for (name, waiting, bytes, dropped) in &self.queue {
            lines.push(format!("{name:<8} {waiting:>9} {bytes:>10} {dropped:>8}"));
        }
        let plug = if self.plugged { light(true, "plugged in") } else { light(false, "unplugged") };
        lines.push(String::new());
        lines.push(format!("{BOLD}cloud{OFF}  {plug}, link {}", light(self.link.1, &self.link.0)));
        for (stream, a) in &self.arrived {
            let lost = light(a.lost == 0, &format!("{} lost", a.lost));
            lines.push(format!("{stream:<8} {:>9} arrived, {lost}, {} repeated", a.messages, a.repeated));
        }
        lines.push(String::new());
        lines.extend(self.remarks.iter().flat_map(|r| wrapped(r)).map(|line| format!("{DIM}{line}{OFF}")));
        lines.push(format!("{DIM}c  pull the cloud's plug, or put it back    p  pump on or off    q  end{OFF}"));
        lines
    }

    fn devices(&self, lines: &mut Vec<String>) {
        lines.push(format!("{BOLD}device   property          value  quality{OFF}"));
        for device in self.objects.iter().filter(|o| o.kind == Kind::Device) {
            let status = device.status();
            for twin in status.get("twins").and_then(Value::as_array).into_iter().flatten() {
                let quality = text(twin, "/reported/metadata/quality");
                let well = matches!(quality, "" | "good");
                let (name, value) = (text(twin, "/propertyName"), text(twin, "/reported/value"));
                let value: String = value.chars().take(8).collect();
                let quality = if well { "good" } else { quality };
                lines.push(format!("{:<8} {name:<14} {value:>8}  {}", device.metadata.name, light(well, quality)));
            }
            if status.is_null() {
                lines.push(format!("{:<8} {DIM}not yet read{OFF}", device.metadata.name));
            }
        }
        lines.push(String::new());
    }

    fn pods(&self, lines: &mut Vec<String>) {
        lines.push(format!("{BOLD}pod      phase     restarts{OFF}"));
        for pod in self.objects.iter().filter(|o| o.kind == Kind::Pod) {
            let status = pod.status();
            let phase = match text(status, "/phase") {
                "" => "Pending",
                phase => phase,
            };
            let restarts = status.pointer("/containerStatuses/0/restartCount").and_then(Value::as_u64).unwrap_or(0);
            let phase = format!("{phase:<9}");
            let why = [text(status, "/reason"), text(status, "/containerStatuses/0/state/waiting/reason")].join(" ");
            lines.push(format!(
                "{:<8} {} {restarts:>8}  {}",
                pod.metadata.name,
                light(phase.starts_with("Running"), &phase),
                why.trim()
            ));
        }
        if !self.log.is_empty() {
            lines.push(format!("{DIM}{}{OFF}", self.log));
        }
        lines.push(String::new());
    }

    /// One line, for where there is no terminal.
    pub fn summary(&self) -> String {
        let value = |name: &str| -> String {
            let twins = self.objects.iter().filter_map(|o| o.status().get("twins")?.as_array()).flatten();
            let twin = twins.clone().find(|t| text(t, "/propertyName") == name);
            twin.map_or("-", |t| text(t, "/reported/value")).chars().take(6).collect()
        };
        let pods = self.objects.iter().filter(|o| o.kind == Kind::Pod).map(|p| text(p.status(), "/phase"));
        let waiting: u64 = self.queue.iter().map(|q| q.1).sum();
        let (arrived, lost) = self.arrived.iter().fold((0, 0), |sum, (_, a)| (sum.0 + a.messages, sum.1 + a.lost));
        format!(
            "{:>3} s  temperature {}  level {}  pump {}  pod {}  link {}  waiting {waiting}  arrived {arrived}  lost {lost}",
            self.seconds,
            value("temperature"),
            value("level"),
            value("pump"),
            pods.collect::<Vec<_>>().join(","),
            self.link.0,
        )
    }
}

/// A remark in lines that fit the narrowest usual terminal: what it advises must not be cut off.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_known_is_shown() {
        let mut device = Object::new(Kind::Device, "", "tank", json!({}));
        device
            .set_status(json!({"twins": [{"propertyName": "level", "reported": {"value": "51.25", "metadata": {}}}]}));
        let view = View {
            objects: vec![device, Object::new(Kind::Pod, "", "hello", json!({}))],
            queue: vec![("data", 7, 100, 0)],
            arrived: vec![("data".into(), Arrived { messages: 3, ..Arrived::default() })],
            ..View::default()
        };
        let screen = view.lines().join("\n");
        for part in ["level", "51.25", "hello", "Pending", "3 arrived", "0 lost", "unplugged"] {
            assert!(screen.contains(part), "{part} is not in\n{screen}");
        }
        assert!(view.summary().contains("level 51.25") && view.summary().contains("waiting 7"));
    }

    #[test]
    fn remarks_are_wrapped_between_words() {
        let lines = super::wrapped(&"word ".repeat(40));
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|l| l.len() <= super::COLUMNS && !l.ends_with(' ')));
        assert_eq!(super::wrapped(""), [""]);
    }
}
