//! Reads a log over its rotated files, oldest first, and goes on when the file it reads is rotated away.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::LogError;
use super::line::{Filter, Line};

/// How much is read at once, in bytes.
const CHUNK: usize = 64 << 10;
/// The most rotated files looked for.
const ROTATED_MAX: u32 = 100;

/// A place in a log.
pub(super) struct Reader {
    path: PathBuf,
    file: Option<File>,
    filter: Filter,
    /// The beginning of a line whose end has not been written yet.
    rest: Vec<u8>,
}

impl Reader {
    /// A reader at the beginning, or so many lines before the end.
    pub(super) fn open(path: &Path, filter: Filter, tail: Option<usize>) -> Result<Reader, LogError> {
        let mut reader = Reader { path: path.to_owned(), file: None, filter, rest: Vec::new() };
        reader.seek(tail).map_err(|source| LogError::Io { path: path.to_owned(), source })?;
        Ok(reader)
    }

    /// What has been written since the last call; empty when there is nothing new.
    pub(super) fn read(&mut self) -> Result<Vec<u8>, LogError> {
        self.read_some().map_err(|source| LogError::Io { path: self.path.clone(), source })
    }

    fn read_some(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            let Some(file) = &mut self.file else {
                // Nothing was written yet when the log was opened.
                match File::open(&self.path) {
                    Ok(file) => self.file = Some(file),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(out),
                    Err(e) => return Err(e),
                }
                continue;
            };
            // Looked up before the read: what is written to the file before it is rotated away is still read from it.
            let next = next_file(&self.path, file)?;
            let mut chunk = vec![0; CHUNK];
            let count = file.read(&mut chunk)?;
            if count > 0 {
                self.take(chunk.get(..count).unwrap_or(&[]), &mut out);
            } else if let Some(next) = next {
                self.file = Some(next);
                self.rest.clear();
            } else {
                return Ok(out);
            }
            if !out.is_empty() {
                return Ok(out);
            }
        }
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.rest.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(line) = self.rest.get(start..).and_then(|r| r.split_inclusive(|b| *b == b'\n').next()) {
            let Some(text) = line.strip_suffix(b"\n") else { break };
            if let Some(line) = Line::parse(text) {
                self.filter.show(&line, out);
            }
            start += line.len();
        }
        self.rest.drain(..start);
    }

    /// Goes to where the last `tail` lines begin; to the beginning when there is no limit.
    fn seek(&mut self, tail: Option<usize>) -> io::Result<()> {
        let mut places: std::collections::VecDeque<(usize, u64)> = std::collections::VecDeque::new();
        let mut files = files(&self.path)?;
        if let Some(tail) = tail {
            for (index, file) in files.iter_mut().enumerate() {
                let mut content = Vec::new();
                file.read_to_end(&mut content)?;
                let mut offset = 0u64;
                let mut begins = true;
                for line in content.split_inclusive(|b| *b == b'\n') {
                    let parsed = line.strip_suffix(b"\n").and_then(Line::parse);
                    if let Some(parsed) = parsed.filter(|l| self.filter.wants(l)) {
                        if begins {
                            places.push_back((index, offset));
                        }
                        begins = parsed.whole;
                    }
                    if places.len() > tail {
                        places.pop_front();
                    }
                    offset += line.len() as u64;
                }
                if tail == 0 {
                    places = [(index, offset)].into();
                }
                file.rewind()?;
            }
        }
        let (index, offset) = places.front().copied().unwrap_or((0, 0));
        if index < files.len() {
            let mut file = files.swap_remove(index);
            file.seek(SeekFrom::Start(offset))?;
            self.file = Some(file);
        }
        Ok(())
    }
}

/// The files of a log, oldest first.
fn files(path: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for name in names(path) {
        match File::open(name) {
            Ok(file) => files.push(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(files)
}

/// The names that exist, oldest first: `path.2`, `path.1`, `path`.
fn names(path: &Path) -> Vec<PathBuf> {
    let rotated = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    let mut names: Vec<PathBuf> = (1..ROTATED_MAX).map(rotated).take_while(|p| p.exists()).collect();
    names.reverse();
    names.push(path.to_owned());
    names
}

/// The file written after this one, if this one has been rotated away; the oldest there is if it was even deleted.
fn next_file(path: &Path, file: &File) -> io::Result<Option<File>> {
    let inode = |m: &std::fs::Metadata| (m.dev(), m.ino());
    let ours = inode(&file.metadata()?);
    if std::fs::metadata(path).is_ok_and(|m| inode(&m) == ours) {
        return Ok(None);
    }
    let mut later = files(path)?;
    let ids: Vec<_> = later.iter().map(|f| f.metadata().map(|m| inode(&m))).collect::<Result<_, _>>()?;
    let next = ids.iter().position(|id| *id == ours).map_or(0, |i| i + 1);
    Ok(if next < later.len() { Some(later.swap_remove(next)) } else { None })
}
