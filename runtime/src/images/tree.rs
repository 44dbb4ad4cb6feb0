//! A layer's files as they are made on disk: the side of unpacking that touches the file system.
//!
//! A layer comes from strangers, so no path of it is ever given to the kernel whole. Folders are opened one name at a
//! time, never through a symbolic link; a link in the middle of a path is read and followed by us, with the layer's root
//! as `/`, as in a chroot. Nothing outside the root can be named that way, whatever the layer does to itself meanwhile.
//!
//! A layer may put a file into a folder it does not mention (jib and bazel do). What that folder is then comes from the
//! layers below: a folder there gives its owner, mode and attributes; a symbolic link there is followed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{self as fs, AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::attributes::{remove_at, times};
use super::tarball::{Entry, Kind};

/// How much is copied at a time.
pub(super) const CHUNK: usize = 64 << 10;
/// Which marks overlayfs wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// `trusted.overlay.`: for root.
    Trusted,
    /// `user.overlay.`: for mounts with `userxattr`, in a user namespace.
    User,
}

impl Marks {
    pub(super) fn opaque(self) -> &'static str {
        match self {
            Marks::Trusted => "trusted.overlay.opaque",
            Marks::User => "user.overlay.opaque",
        }
    }
}

/// Why an entry was refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// It breaks a rule.
    Rule(String),
    /// The disk said no.
    Disk(io::Error),
    /// The archive could not be read.
    Source(io::Error),
}

impl From<Errno> for Refused {
    fn from(e: Errno) -> Refused {
        Refused::Disk(e.into())
    }
}

pub(super) fn rule<T>(text: &str) -> Result<T, Refused> {
    Err(Refused::Rule(text.to_owned()))
}

/// The tree being made, on top of others.
pub(super) struct Tree {
    pub(super) root: OwnedFd,
    /// The layers below, topmost first.
    pub(super) lowers: Vec<OwnedFd>,
    pub(super) marks: Marks,
    /// The folder of the last entry: archives go folder by folder.
    pub(super) last: Option<(Vec<u8>, Rc<Folder>)>,
    /// Folders get their mode and time at the end: until then we must be able to write to them.
    pub(super) folders: BTreeMap<Vec<u8>, (Mode, i64)>,
}

/// An open folder and where it really is, links resolved.
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    pub(super) at: Vec<Vec<u8>>,
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn open_dir(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn stat(parent: impl AsFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) fn mode_of(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

impl Tree {
    /// A tree in an empty folder, on top of layers given bottom first.
    pub(super) fn new(root: OwnedFd, mut lowers: Vec<OwnedFd>, marks: Marks) -> Result<Tree, Refused> {
        lowers.reverse();
        let mut tree = Tree { root, lowers, marks, last: None, folders: BTreeMap::new() };
        // Without an entry of its own the root stays what it is in the layer below.
        let (mode, time) = match tree.lowers.first().map(fs::fstat).transpose()? {
            Some(below) => {
                let fd = tree.root.try_clone().map_err(Refused::Disk)?;
                tree.own(&fd, below.st_uid, below.st_gid)?;
                (mode_of(&below), below.st_mtime)
            }
            None => (Mode::from_raw_mode(0o755), 0),
        };
        tree.folders.insert(Vec::new(), (mode, time));
        Ok(tree)
    }

    /// Makes one entry; returns the bytes it takes on disk, about.
    pub(super) fn add(&mut self, entry: &Entry, data: &mut impl Read) -> Result<u64, Refused> {
        let path = entry.path.as_slice();
        if path.contains(&0) || entry.link.contains(&0) {
            return rule("has a NUL in its name");
        }
        if path.split(|b| *b == b'/').any(|part| part == b"..") {
            return rule("has '..' in its path");
        }
        let mut parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
        let Some(name) = parts.pop() else {
            if entry.kind == Kind::Directory {
                let root = self.root.try_clone().map_err(Refused::Disk)?;
                self.finish_folder(&root, Vec::new(), entry)?;
            }
            return Ok(0);
        };
        let folder = self.folder(&parts.join(&b'/'))?;
        if name.starts_with(b".wh.") {
            self.whiteout(&folder, name)?;
            return Ok(0);
        }
        let mut replaces_whiteout = false;
        if let Some(old) = stat(&folder.fd, name)? {
            let both_folders =
                entry.kind == Kind::Directory && FileType::from_raw_mode(old.st_mode) == FileType::Directory;
            if !both_folders {
                replaces_whiteout = is_whiteout(&old);
                self.remove(&folder.fd, name)?;
            }
        }
        self.make(&folder, name, entry, replaces_whiteout, data)
    }

    fn make(
        &mut self,
        folder: &Folder,
        name: &[u8],
        entry: &Entry,
        replaces_whiteout: bool,
        data: &mut impl Read,
    ) -> Result<u64, Refused> {
        match entry.kind {
            Kind::Directory => {
                match fs::mkdirat(&folder.fd, name, Mode::RWXU) {
                    Err(e) if e != Errno::EXIST => return Err(e.into()),
                    _ => {}
                }
                let fd = open_dir(&folder.fd, name)?;
                if replaces_whiteout {
                    self.make_opaque(&fd)?;
                }
                let mut at = folder.at.clone();
                at.push(name.to_vec());
                self.finish_folder(&fd, at.join(&b'/'), entry)?;
            }
            Kind::File => return self.file(folder, name, entry, data),
            Kind::Symlink => {
                fs::symlinkat(entry.link.as_slice(), &folder.fd, name)?;
                self.finish_node(folder, name, entry)?;
            }
            Kind::HardLink => self.hard_link(folder, name, entry)?,
            Kind::Char | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = fs::makedev(entry.device.0, entry.device.1);
                match fs::mknodat(&folder.fd, name, kind, Mode::from_raw_mode(0o600), device) {
                    // In a user namespace there are no device nodes; the engine brings those of a container itself.
                    Err(Errno::PERM) if self.marks == Marks::User => return Ok(0),
                    made => made?,
                }
                self.finish_node(folder, name, entry)?;
                fs::chmodat(&folder.fd, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
            }
        }
        Ok(4096)
    }

    fn file(&mut self, folder: &Folder, name: &[u8], entry: &Entry, data: &mut impl Read) -> Result<u64, Refused> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&folder.fd, name, flags, Mode::RUSR | Mode::WUSR)?);
        let whole = [(0, entry.size)];
        let mut written = 0;
        let mut buffer = vec![0; CHUNK];
        for (offset, length) in entry.sparse.as_deref().unwrap_or(&whole) {
            let (mut at, end) = (*offset, offset.saturating_add(*length));
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                let chunk = buffer.get_mut(..most).unwrap_or_default();
                let n = data.read(chunk).map_err(Refused::Source)?;
                if n == 0 {
                    return Err(Refused::Source(io::ErrorKind::UnexpectedEof.into()));
                }
                file.write_all_at(chunk.get(..n).unwrap_or_default(), at).map_err(Refused::Disk)?;
                at += n as u64;
                written += n as u64;
            }
        }
        if entry.sparse.is_some() {
            file.set_len(entry.size).map_err(Refused::Disk)?;
        }
        // In this order: changing the owner clears set-uid and capabilities.
        self.own(&file, entry.uid, entry.gid)?;
        fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
        self.set_xattrs(&file, &entry.xattrs)?;
        fs::futimens(&file, &times(entry.mtime))?;
        Ok(written + 4096)
    }

    fn hard_link(&mut self, folder: &Folder, name: &[u8], entry: &Entry) -> Result<(), Refused> {
        let mut parts: Vec<&[u8]> = entry.link.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
        if parts.contains(&b"..".as_slice()) {
            return rule("links to a path with '..'");
        }
        let Some(target) = parts.pop() else { return rule("links to nothing") };
        let from = self.folder(&parts.join(&b'/'))?;
        match stat(&from.fd, target)? {
            Some(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                rule("is a hard link to a folder")
            }
            Some(found) if is_whiteout(&found) => rule("links to a file that this layer deletes"),
            Some(_) => Ok(fs::linkat(&from.fd, target, &folder.fd, name, AtFlags::empty())?),
            // Into a layer below: overlayfs would copy the file up first, so that is what we do.
            None => {
                self.copy_up(&from, target)?;
                Ok(fs::linkat(&from.fd, target, &folder.fd, name, AtFlags::empty())?)
            }
        }
    }

    /// Brings a regular file from the layers below into this one.
    fn copy_up(&mut self, folder: &Folder, name: &[u8]) -> Result<(), Refused> {
        let Some((parent, found)) = self.below(&folder.at, name)? else {
            return rule("links to a file that is in no layer");
        };
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return rule("links to something else than a file in a layer below");
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut from = File::from(fs::openat(&parent, name, flags, Mode::empty())?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut to = File::from(fs::openat(&folder.fd, name, flags, Mode::RUSR | Mode::WUSR)?);
        io::copy(&mut from, &mut to).map_err(Refused::Disk)?;
        self.own(&to, found.st_uid, found.st_gid)?;
        fs::fchmod(&to, mode_of(&found))?;
        self.copy_xattrs(&from, &to)?;
        fs::futimens(&to, &times(found.st_mtime))?;
        Ok(())
    }

    /// `.wh.name` deletes what the layers below have; it does not touch what this layer itself brings.
    fn whiteout(&mut self, folder: &Folder, name: &[u8]) -> Result<(), Refused> {
        if name == b".wh..wh..opq" {
            return self.make_opaque(&folder.fd);
        }
        let name = name.strip_prefix(b".wh.").unwrap_or_default();
        match name {
            // Other `.wh..wh.` names are bookkeeping of AUFS.
            _ if name.starts_with(b".wh.") => return Ok(()),
            b"" | b"." | b".." => return rule("is a whiteout of nothing"),
            _ => {}
        }
        match stat(&folder.fd, name)? {
            Some(own) if FileType::from_raw_mode(own.st_mode) == FileType::Directory => {
                self.make_opaque(&open_dir(&folder.fd, name)?)
            }
            Some(_) => Ok(()),
            None => Ok(fs::mknodat(&folder.fd, name, FileType::CharacterDevice, Mode::empty(), 0)?),
        }
    }

    pub(super) fn make_opaque(&self, folder: &OwnedFd) -> Result<(), Refused> {
        Ok(fs::fsetxattr(folder, self.marks.opaque(), b"y", XattrFlags::empty())?)
    }

    /// Removes what an earlier entry of this layer made.
    fn remove(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Refused> {
        self.last = None;
        remove_at(parent, name)?;
        Ok(())
    }

    fn finish_folder(&mut self, fd: &OwnedFd, path: Vec<u8>, entry: &Entry) -> Result<(), Refused> {
        self.own(fd, entry.uid, entry.gid)?;
        self.set_xattrs(fd, &entry.xattrs)?;
        self.folders.insert(path, (Mode::from_raw_mode(entry.mode), entry.mtime));
        Ok(())
    }

    fn finish_node(&self, folder: &Folder, name: &[u8], entry: &Entry) -> Result<(), Refused> {
        if self.marks == Marks::Trusted {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            fs::chownat(&folder.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        fs::utimensat(&folder.fd, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Gives the folders their modes and times, the innermost first: a mode may lock us out of what is inside.
    pub(super) fn finish(self) -> Result<(), Refused> {
        'folders: for (path, (mode, mtime)) in self.folders.iter().rev() {
            let mut fd = self.root.try_clone().map_err(Refused::Disk)?;
            for part in path.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
                match open_dir(&fd, part) {
                    Ok(next) => fd = next,
                    // A later entry put something else in its place.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue 'folders,
                    Err(e) => return Err(e.into()),
                }
            }
            fs::fchmod(&fd, *mode)?;
            fs::futimens(&fd, &times(*mtime))?;
        }
        Ok(())
    }
}
