//! The container's output on disk: the format of the Kubernetes container runtime interface, bounded in size because logs wear
//! flash.
//!
//! `2026-11-30T17:34:27.123456789Z stdout F the line`; `P` instead of `F` marks a piece of a line that goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

use super::protocol::Log;

/// Longest piece of a line, in bytes; also what the shim keeps in memory per stream.
const PIECE: usize = 4096;

/// The log file of a container.
pub struct LogFile {
    settings: Log,
    file: Option<File>,
    size: u64,
    /// Lines that could not be written since the last one that could, such as on a full disk.
    lost: u64,
}

impl LogFile {
    /// A log; the file is opened at the first line.
    pub fn new(settings: Log) -> LogFile {
        LogFile { settings, file: None, size: 0, lost: 0 }
    }

    /// Opens the file again at the next line: somebody has moved it away.
    pub fn reopen(&mut self) {
        self.file = None;
    }

    /// Appends one line, or a piece of one. What cannot be written is counted, and the count is written when it can be again: a
    /// container never waits for its log.
    pub fn write(&mut self, stream: &str, whole: bool, line: &[u8]) {
        if self.settings.path.is_none() {
            return;
        }
        if self.lost > 0 {
            let note = format!("edge-runtime: {} lines of this log were lost", self.lost);
            if self.append("stderr", true, note.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        if self.append(stream, whole, line).is_err() {
            self.lost += 1;
            self.file = None;
        }
    }

    fn append(&mut self, stream: &str, whole: bool, line: &[u8]) -> io::Result<()> {
        let now: DateTime<Utc> = SystemTime::now().into();
        let tag = if whole { "F" } else { "P" };
        let head = format!("{} {stream} {tag} ", now.to_rfc3339_opts(SecondsFormat::Nanos, true));
        let total = head.len() + line.len() + 1;
        let added = u64::try_from(total).unwrap_or(u64::MAX);
        if self.file.is_none() {
            self.open()?;
        }
        if self.size > 0 && self.size.saturating_add(added) > self.settings.max_bytes {
            self.rotate()?;
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        // One write per line, so that a reader never sees half of one; the rare short write is completed.
        let written = file.write_vectored(&[IoSlice::new(head.as_bytes()), IoSlice::new(line), IoSlice::new(b"\n")])?;
        if written < total {
            let rest: Vec<u8> = head.bytes().chain(line.iter().copied()).chain([b'\n']).skip(written).collect();
            file.write_all(&rest)?;
        }
        self.size += added;
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        if let Some(path) = &self.settings.path {
            // Readable by the group, as the API that serves it is; a container's output may hold secrets.
            let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let Some(path) = &self.settings.path else { return Ok(()) };
        let older = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
        if self.settings.files <= 1 {
            return fs::remove_file(path);
        }
        for n in (1..self.settings.files - 1).rev() {
            match fs::rename(older(n), older(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(path, older(1))
    }
}

/// One of the container's output streams on its way into the log.
pub struct Output {
    pipe: File,
    stream: &'static str,
    buffer: Vec<u8>,
}

impl Output {
    /// Reads `pipe`, which has to be non-blocking.
    pub fn new(pipe: OwnedFd, stream: &'static str) -> Output {
        Output { pipe: pipe.into(), stream, buffer: Vec::with_capacity(PIECE) }
    }

    /// To poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Takes what is there; `false` at the end of the stream.
    pub fn pump(&mut self, log: &mut LogFile) -> bool {
        let room = PIECE.saturating_sub(self.buffer.len());
        match (&self.pipe).take(room as u64).read_to_end(&mut self.buffer) {
            // read_to_end stops at `room` bytes or at the end of the stream; WouldBlock is reported with what was read kept.
            Ok(read) if read < room => {
                self.lines(log);
                self.finish(log);
                return false;
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => return false,
        }
        self.lines(log);
        if self.buffer.len() >= PIECE {
            log.write(self.stream, false, &self.buffer);
            self.buffer.clear();
        }
        true
    }

    /// Writes the whole lines in the buffer.
    fn lines(&mut self, log: &mut LogFile) {
        let mut rest = self.buffer.as_slice();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(end);
            log.write(self.stream, true, line);
            rest = after.get(1..).unwrap_or_default();
        }
        let done = self.buffer.len() - rest.len();
        self.buffer.drain(..done);
    }

    /// The stream ends: what is left is a line without its end.
    pub fn finish(&mut self, log: &mut LogFile) {
        if !self.buffer.is_empty() {
            log.write(self.stream, true, &self.buffer);
            self.buffer.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(dir: &std::path::Path, max_bytes: u64, files: u32) -> LogFile {
        LogFile::new(Log { path: Some(dir.join("log")), max_bytes, files })
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn lines_have_time_stream_and_tag() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path(), 1 << 20, 2).write("stdout", true, b"hello");
        let text = read(dir.path().join("log"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
        assert_eq!(time.len(), "2026-11-30T17:34:27.123456789Z".len());
        assert_eq!(rest, "stdout F hello\n");
    }

    #[test]
    fn size_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 300, 3);
        for n in 0..100 {
            log.write("stdout", true, format!("line {n}").as_bytes());
        }
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        for name in names {
            assert!(fs::metadata(dir.path().join(name)).unwrap().len() <= 300);
        }
        assert!(read(dir.path().join("log")).ends_with("line 99\n"));
    }

    #[test]
    fn a_full_disk_is_reported_when_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/log");
        let mut log = LogFile::new(Log { path: Some(path.clone()), max_bytes: 1 << 20, files: 2 });
        log.write("stdout", true, b"lost");
        log.write("stdout", true, b"lost too");
        fs::create_dir(dir.path().join("missing")).unwrap();
        log.write("stdout", true, b"kept");
        let text = read(path);
        assert!(text.contains("2 lines of this log were lost") && text.ends_with("stdout F kept\n"), "{text}");
    }

    #[test]
    fn long_and_binary_lines_come_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1 << 20, 2);
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let mut output = Output::new(reader, "stdout");
        let mut writer = File::from(writer);
        writer.write_all(&vec![b'a'; 2 * PIECE + 3]).unwrap();
        writer.write_all(b"\n\x00\xff\n\nend").unwrap();
        drop(writer);
        while output.pump(&mut log) {}
        let text = fs::read(dir.path().join("log")).unwrap();
        let lines: Vec<&[u8]> =
            text.split(|b| *b == b'\n').map(|l| l.splitn(2, |b| *b == b' ').last().unwrap()).collect();
        let tags: Vec<(&[u8], usize)> = lines.iter().map(|l| (l.get(7..8).unwrap_or_default(), l.len())).collect();
        assert_eq!(
            tags,
            [(&b"P"[..], PIECE + 9), (b"P", PIECE + 9), (b"F", 12), (b"F", 11), (b"F", 9), (b"F", 12), (b"", 0)]
        );
        assert!(lines[3].ends_with(b"\x00\xff"));
        assert!(lines[5].ends_with(b"end"));
    }
}
