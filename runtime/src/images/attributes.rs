//! Owners, modes, extended attributes and times of a layer's files; and removal that follows no link.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self as fs, AtFlags, Dir, Gid, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::tree::{CHUNK, Marks, Refused, Tree, open_dir};

/// Extended attributes that may be set from a layer. What belongs to the host's security modules or to overlayfs itself
/// (a layer could point into others with it) is left out.
const XATTRS: [&[u8]; 4] = [b"user.", b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];

impl Tree {
    /// Only root can give files away; in a user namespace everything stays ours.
    pub(super) fn own(&self, file: impl AsFd, uid: u32, gid: u32) -> Result<(), Refused> {
        if self.marks == Marks::Trusted {
            fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(())
    }

    pub(super) fn set_xattrs(&self, file: impl AsFd, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Refused> {
        for (name, value) in xattrs {
            let allowed = XATTRS.iter().any(|a| name == a || a.ends_with(b".") && name.starts_with(a));
            if !allowed || name.starts_with(b"user.overlay.") {
                continue;
            }
            match fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()) {
                // A file system without attributes, or a user namespace without the right: the file is still usable.
                Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                set => set?,
            }
        }
        Ok(())
    }

    pub(super) fn copy_xattrs(&self, from: impl AsFd, to: impl AsFd) -> Result<(), Refused> {
        let mut names = vec![0u8; CHUNK];
        let n = match fs::flistxattr(&from, &mut names) {
            Ok(n) => n,
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        names.truncate(n);
        let mut xattrs = Vec::new();
        for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
            let mut value = vec![0u8; CHUNK];
            let n = fs::fgetxattr(&from, name, &mut value)?;
            value.truncate(n);
            xattrs.push((name.to_vec(), value));
        }
        self.set_xattrs(to, &xattrs)
    }
}

pub(super) fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Removes a file, or a folder with all in it, without following links.
pub(super) fn remove_at(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return done,
    }
    let folder = open_dir(parent, name)?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove_at(&folder, name)?;
        }
    }
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}
