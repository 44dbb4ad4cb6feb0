//! Hears what libcontainer logs as errors. Its processes hand only the outermost message to their parent, while the cause – which
//! path, which error number – is logged where it happens.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Longest cause that is kept, in bytes; one write of this size to a pipe is never mixed with another.
const LONGEST: usize = 1024;

/// What has been logged so far, by this process and those it has forked since.
pub struct Diagnosis {
    heard: File,
}

struct Listener {
    tell: File,
}

impl Diagnosis {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> io::Result<Diagnosis> {
        let (heard, tell) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?;
        // A second listener in one process cannot be, and would be of no use.
        let _ = tracing::subscriber::set_global_default(Listener { tell: tell.into() });
        Ok(Diagnosis { heard: heard.into() })
    }

    /// The first error: the one nearest to the cause.
    pub fn cause(mut self) -> Option<String> {
        let mut text = Vec::new();
        // Ends with WouldBlock, because this process itself could still write.
        let _ = self.heard.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        text.lines().next().map(str::to_owned).filter(|line| !line.is_empty())
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut text: String = line.message + &line.fields;
        text = text.replace('\n', " ");
        while text.len() >= LONGEST {
            text.pop();
        }
        text.push('\n');
        // A full pipe has heard enough.
        let _ = (&self.tell).write_all(text.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event as text: its message, then its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
