//! Which commands were carried out: so that one that comes twice is answered twice and done once, also when the power went
//! in between.
//!
//! A file of lines, one per step, each on disk before the next step is taken:
//! ```text
//! {"id":"7f3a","state":"begun"}             before it is carried out
//! {"id":"7f3a","state":"done","reply":{…}}  before its answer is queued
//! ```
//! It is written anew, shorter, when it has grown to twice what is kept. A line cut off by a power cut or a full disk is taken
//! off again before the next one: it says nothing, and nothing may run into it.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How many commands are remembered. Brokers repeat what was not acknowledged, which is far less.
const KEPT: usize = 256;

/// What is known of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// Nothing.
    No,
    /// It was begun; nobody knows how far it came.
    Begun,
    /// It was carried out, and this was the answer.
    Done(Value),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
enum Line {
    Begun { id: String },
    Done { id: String, reply: Value },
}

/// The memory of commands. Its calls write to the disk: not for the reactor.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Option<File>,
    known: HashMap<String, Known>,
    order: VecDeque<String>,
    kept: usize,
    lines: usize,
    /// Bytes of the file that are whole lines on disk.
    whole: u64,
}

impl Ledger {
    /// Opens or makes the file; its folder too.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: PathBuf) -> io::Result<Ledger> {
        Ledger::keeping(path, KEPT)
    }

    fn keeping(path: PathBuf, kept: usize) -> io::Result<Ledger> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::options().read(true).append(true).create(true).open(&path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let mut ledger = Ledger {
            path,
            file: None,
            known: HashMap::new(),
            order: VecDeque::new(),
            kept,
            lines: 0,
            whole: text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at as u64 + 1),
        };
        for line in text.split(|b| *b == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Begun { id }) => ledger.remember(id, Known::Begun),
                Ok(Line::Done { id, reply }) => ledger.remember(id, Known::Done(reply)),
                Err(_) => {}
            }
            ledger.lines += 1;
        }
        // Needs no space: a node starts on a full disk, too.
        file.set_len(ledger.whole)?;
        file.sync_all()?;
        if let Some(folder) = ledger.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        ledger.file = Some(file);
        Ok(ledger)
    }

    /// What is known of this command.
    pub fn get(&self, id: &str) -> Known {
        self.known.get(id).cloned().unwrap_or(Known::No)
    }

    /// It is about to be carried out.
    ///
    /// # Errors
    /// What the system says; it must then not be carried out.
    pub fn begun(&mut self, id: &str) -> io::Result<()> {
        self.append(&Line::Begun { id: id.to_owned() })?;
        self.remember(id.to_owned(), Known::Begun);
        Ok(())
    }

    /// It has been carried out. That is known from here on, and on disk unless there is an error.
    ///
    /// # Errors
    /// What the system says.
    pub fn done(&mut self, id: &str, reply: &Value) -> io::Result<()> {
        self.remember(id.to_owned(), Known::Done(reply.clone()));
        self.append(&Line::Done { id: id.to_owned(), reply: reply.clone() })?;
        if self.lines > 4 * self.kept
            && let Err(error) = self.compact()
        {
            // It is only longer than it need be, and tried again with the next one.
            tracing::debug!(%error, "memory of commands: cannot be shortened");
        }
        Ok(())
    }

    fn remember(&mut self, id: String, known: Known) {
        if self.known.insert(id.clone(), known).is_none() {
            self.order.push_back(id);
            if self.order.len() > self.kept
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        if self.file.is_none() {
            self.compact()?;
        }
        let Some(file) = &mut self.file else { return Err(io::Error::other("the ledger is not open")) };
        let written = file.write_all(&text).and_then(|()| file.sync_data());
        match written {
            Ok(()) => {
                self.whole += text.len() as u64;
                self.lines += 1;
            }
            // What is there of the line must neither run into the next one nor count; a file that cannot even be cut is
            // written anew before the next line.
            Err(_) => {
                if file.set_len(self.whole).and_then(|()| file.sync_data()).is_err() {
                    self.file = None;
                }
            }
        }
        written
    }

    /// Writes what is known to a new file and puts it in the place of the old one, at once.
    fn compact(&mut self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut text = Vec::new();
        for id in &self.order {
            let line = match self.known.get(id) {
                Some(Known::Begun) => Line::Begun { id: id.clone() },
                Some(Known::Done(reply)) => Line::Done { id: id.clone(), reply: reply.clone() },
                Some(Known::No) | None => continue,
            };
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        let _ = fs::remove_file(&new);
        let mut file = File::options().append(true).create(true).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.lines = self.order.len();
        self.whole = text.len() as u64;
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn remembers_over_a_restart_whatever_the_last_line_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloud/commands.jsonl");
        let mut ledger = Ledger::open(path.clone()).unwrap();
        assert_eq!(ledger.get("a"), Known::No);
        ledger.begun("a").unwrap();
        ledger.done("a", &json!({"outcome": "ok"})).unwrap();
        ledger.begun("b").unwrap();
        drop(ledger);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(br#"{"state":"done","id":"b","re"#);
        fs::write(&path, text).unwrap();
        let mut ledger = Ledger::open(path.clone()).unwrap();
        assert_eq!(ledger.get("a"), Known::Done(json!({"outcome": "ok"})));
        assert_eq!(ledger.get("b"), Known::Begun);
        ledger.done("b", &json!(1)).unwrap();
        drop(ledger);
        assert_eq!(Ledger::open(path).unwrap().get("b"), Known::Done(json!(1)));
    }

    #[test]
    fn forgets_the_oldest_and_stays_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l");
        let mut ledger = Ledger::keeping(path.clone(), 8).unwrap();
        for n in 0..24 {
            ledger.begun(&n.to_string()).unwrap();
            ledger.done(&n.to_string(), &json!(n)).unwrap();
        }
        assert_eq!(ledger.get("0"), Known::No);
        assert_eq!(ledger.get("16"), Known::Done(json!(16)));
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 4 * 8, "{lines}");
        assert_eq!(Ledger::keeping(path, 8).unwrap().order.len(), 8);
    }
}
