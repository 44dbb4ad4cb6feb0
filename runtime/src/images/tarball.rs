//! A streaming reader of tar archives (POSIX pax, GNU, old Unix), made for archives from strangers.
//!
//! The headers are decoded by the `tar` crate; the walk over the archive is ours, because its own walk reads names of any
//! length into memory, ends pax records at the first newline (file capabilities are binary) and knows one of the three
//! sparse formats. Memory is bounded by [`MAX_NAME`] and [`MAX_PAX`] whatever the archive says.

use std::io::{self, Read};

use tar::{EntryType, Header};

/// Longest path or link target: the kernel's limit.
const MAX_NAME: u64 = 4096;
/// Longest extended header: a few extended attributes of 64 KiB each.
const MAX_PAX: u64 = 1 << 20;
/// Most pieces of a sparse file.
const MAX_SPARSE: usize = 1 << 16;
const BLOCK: u64 = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Char,
    Block,
    Fifo,
}

/// One entry, without its data: read that from the [`Reader`].
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    /// Permissions with set-uid, set-gid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    pub(super) device: (u32, u32),
    /// Length of the file once written, holes included.
    pub(super) size: u64,
    /// Offset and length of the pieces that have data, when the file has holes.
    pub(super) sparse: Option<Vec<(u64, u64)>>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Goes through an archive; after [`Reader::next`] it reads as the data of that entry.
pub(super) struct Reader<R> {
    inner: R,
    /// Bytes of data of the current entry not read yet.
    left: u64,
    /// Bytes of padding after them.
    padding: u64,
    /// Bytes of the archive read so far.
    position: u64,
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    sparse_map: Option<Vec<(u64, u64)>>,
    sparse_in_data: bool,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R) -> Reader<R> {
        Reader { inner, left: 0, padding: 0, position: 0 }
    }

    /// The stream after (or in the middle of) the archive.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// Where in the archive the data of the current entry starts (before any of it is read).
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; the rest of the current one is skipped. `None` at the end mark or the end of the stream.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(&header.as_old().size, || header.entry_size())?;
            let kind = header.entry_type();
            if kind == EntryType::GNULongName {
                extended.path = Some(text_until_nul(self.small(size, MAX_NAME, "long name")?));
            } else if kind == EntryType::GNULongLink {
                extended.link = Some(text_until_nul(self.small(size, MAX_NAME, "long link")?));
            } else if kind == EntryType::XHeader {
                let records = self.small(size, MAX_PAX, "extended header")?;
                extended.read(&records)?;
            } else if kind == EntryType::XGlobalHeader {
                // Global headers carry comments (git archive); nothing in them concerns a layer.
                self.small(size, MAX_PAX, "global header")?;
            } else if let Some(entry) = self.entry(&header, extended)? {
                return Ok(Some(entry));
            } else {
                extended = Extended::default();
            }
        }
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(bad("archive ends in the middle of a file"));
        }
        self.position += rest;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|r| !r.is_empty()) {
            match self.inner.read(rest)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(bad("archive ends in the middle of a header")),
                n => filled += n,
            }
        }
        self.position += BLOCK;
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        // The check sum counts its own eight bytes as spaces (POSIX ustar).
        let sum: u32 =
            bytes.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        if header.cksum()? != sum {
            return Err(bad("archive header has a wrong check sum"));
        }
        Ok(Some(header))
    }

    /// Sets the extent of the data that follows.
    fn data(&mut self, size: u64) -> io::Result<()> {
        if size > i64::MAX as u64 {
            return Err(bad("archive entry has an impossible size"));
        }
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
        Ok(())
    }

    fn small(&mut self, size: u64, limit: u64, what: &str) -> io::Result<Vec<u8>> {
        if size > limit {
            return Err(bad(&format!("{what} is longer than {limit} bytes")));
        }
        self.data(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, mut extended: Extended) -> io::Result<Option<Entry>> {
        let mut size = match extended.size {
            Some(size) => size,
            None => number(&header.as_old().size, || header.entry_size())?,
        };
        let path = extended.sparse_name.take().or(extended.path.take());
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended.link.take();
        let link = link.unwrap_or_else(|| header.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default());
        if path.len() as u64 > MAX_NAME || link.len() as u64 > MAX_NAME {
            return Err(bad("name is longer than 4096 bytes"));
        }
        let kind = match header.entry_type() {
            // Archives from before POSIX mark a folder by the slash at the end of its name.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Char => Kind::Char,
            EntryType::Block => Kind::Block,
            EntryType::Fifo => Kind::Fifo,
            // Volume labels and what vendors invented: skipped, as other readers do.
            _ => {
                self.data(size)?;
                return Ok(None);
            }
        };
        if kind != Kind::File {
            // Only files have data, whatever the header says of others (a hard link may repeat its target's size).
            size = if kind == Kind::Directory { size } else { 0 };
        }
        let mut sparse = None;
        let mut stored = size;
        if header.entry_type() == EntryType::GNUSparse {
            let (map, real) = self.gnu_sparse(header)?;
            (sparse, size) = (Some(map), real);
            self.data(stored)?;
        } else if extended.sparse_in_data {
            self.data(stored)?;
            let map = self.sparse_from_data()?;
            stored = self.left;
            (sparse, size) = (Some(map), extended.sparse_size.unwrap_or(size));
        } else {
            self.data(stored)?;
            if let Some(map) = extended.sparse_map.take() {
                (sparse, size) = (Some(map), extended.sparse_size.unwrap_or(size));
            }
        }
        check_sparse(sparse.as_deref(), size, stored)?;
        let old = header.as_old();
        let id = |extended: Option<u64>, header: io::Result<u64>| -> io::Result<u32> {
            let id = extended.map_or(header, Ok)?;
            u32::try_from(id).map_err(|_| bad("owner is not a 32-bit number"))
        };
        let (uid, gid) = (number(&old.uid, || header.uid()), number(&old.gid, || header.gid()));
        let mode = number(&old.mode, || header.mode().map(u64::from))?;
        Ok(Some(Entry {
            path,
            link,
            kind,
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            uid: id(extended.uid, uid)?,
            gid: id(extended.gid, gid)?,
            mtime: extended
                .mtime
                .unwrap_or_else(|| header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0)),
            device: (
                header.device_major().ok().flatten().unwrap_or(0),
                header.device_minor().ok().flatten().unwrap_or(0),
            ),
            size,
            sparse,
            xattrs: extended.xattrs,
        }))
    }

    /// GNU's old format: four pieces in the header, 21 in each block after it.
    fn gnu_sparse(&mut self, header: &Header) -> io::Result<(Vec<(u64, u64)>, u64)> {
        let gnu = header.as_gnu().ok_or_else(|| bad("sparse entry without a GNU header"))?;
        let mut map = Vec::new();
        let mut add = |pieces: &[tar::GnuSparseHeader]| -> io::Result<()> {
            for piece in pieces.iter().filter(|p| !p.is_empty()) {
                map.push((piece.offset()?, piece.length()?));
            }
            if map.len() > MAX_SPARSE { Err(bad("sparse file has too many pieces")) } else { Ok(()) }
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.inner.read_exact(block.as_mut_bytes())?;
            self.position += BLOCK;
            add(block.sparse())?;
            more = block.is_extended();
        }
        Ok((map, gnu.real_size()?))
    }

    /// The pax format 1.0: decimal numbers, one a line, in whole blocks at the start of the data.
    fn sparse_from_data(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut read = 0;
        let mut number = || -> io::Result<u64> {
            let mut value = 0u64;
            loop {
                let mut byte = [0];
                self.read_exact(&mut byte)?;
                read += 1;
                let [b] = byte;
                match b {
                    b'\n' => return Ok(value),
                    b'0'..=b'9' => {
                        let next = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(b - b'0')));
                        value = next.ok_or_else(|| bad("sparse map has an impossible number"))?;
                    }
                    _ => return Err(bad("sparse map is not made of numbers")),
                }
            }
        };
        let count = number()?;
        if count > MAX_SPARSE as u64 {
            return Err(bad("sparse file has too many pieces"));
        }
        let map = (0..count).map(|_| Ok((number()?, number()?))).collect::<io::Result<Vec<_>>>()?;
        let rest = (BLOCK - read % BLOCK) % BLOCK;
        io::copy(&mut self.take(rest), &mut io::sink())?;
        Ok(map)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.inner.read(buf.get_mut(..most).unwrap_or_default())?;
        if n == 0 {
            return Err(bad("archive ends in the middle of a file"));
        }
        self.left -= n as u64;
        self.position += n as u64;
        Ok(n)
    }
}

impl Extended {
    /// Reads pax records, `<length> <key>=<value>\n`; the length counts, since values may be binary.
    fn read(&mut self, mut records: &[u8]) -> io::Result<()> {
        let broken = || bad("extended header is malformed");
        while records.first().is_some_and(|b| *b != 0) {
            let space = records.iter().position(|b| *b == b' ').filter(|p| *p < 8).ok_or_else(broken)?;
            let (digits, _) = records.split_at(space);
            let length = decimal(digits).and_then(|n| usize::try_from(n).ok()).ok_or_else(broken)?;
            let record = records.get(space + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(broken)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
            let (key, value) = record.split_at(equals);
            self.record(key, value.get(1..).unwrap_or_default()).ok_or_else(broken)?;
            records = records.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => {
                let whole = value.split(|b| *b == b'.').next()?;
                self.mtime = std::str::from_utf8(whole).ok().and_then(|t| t.parse().ok());
            }
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse_size = Some(decimal(value)?),
            b"GNU.sparse.major" => self.sparse_in_data = value == b"1",
            b"GNU.sparse.map" => {
                let numbers = value.split(|b| *b == b',').map(decimal).collect::<Option<Vec<_>>>()?;
                let pairs = numbers.chunks_exact(2).filter_map(|p| p.first().copied().zip(p.get(1).copied()));
                self.sparse_map = Some(pairs.collect());
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.").filter(|n| !n.is_empty() && n.len() < 256) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// A field of a header; left empty it is zero, as other readers have it.
fn number(field: &[u8], parse: impl FnOnce() -> io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) { Ok(0) } else { parse() }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn text_until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// The pieces must be in order, inside the file, and together as long as what the archive holds.
fn check_sparse(map: Option<&[(u64, u64)]>, size: u64, stored: u64) -> io::Result<()> {
    let Some(map) = map else { return Ok(()) };
    let (mut end, mut total) = (0u64, 0u64);
    for (offset, length) in map {
        let next = offset.checked_add(*length).filter(|n| *offset >= end && *n <= size);
        end = next.ok_or_else(|| bad("sparse file has pieces out of order or outside of it"))?;
        total += length;
    }
    if total > stored { Err(bad("sparse file has more data than the archive holds")) } else { Ok(()) }
}
