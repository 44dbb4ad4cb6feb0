//! The walk to a folder of a layer being made: through its own links, and by what the layers below show.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{self as fs, AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

use super::tree::{Folder, Refused, Tree, is_whiteout, mode_of, open_dir, rule, stat};

/// Symbolic links followed in one path before it is taken for a loop: the kernel's number.
const MAX_LINKS: usize = 40;
/// Folders in folders: each takes a file descriptor while the path is walked.
const MAX_DEPTH: usize = 256;

impl Tree {
    /// Opens a folder of this layer by its path, making what is missing.
    pub(super) fn folder(&mut self, path: &[u8]) -> Result<Rc<Folder>, Refused> {
        if let Some((last, folder)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(folder));
        }
        let mut todo: VecDeque<Vec<u8>> = path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
        let mut here: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    here.pop();
                    continue;
                }
                _ => {}
            }
            let parent = here.last().map_or(&self.root, |(_, fd)| fd);
            let own = stat(parent, &name)?;
            let at = || here.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
            let link = match own.as_ref().map(|s| FileType::from_raw_mode(s.st_mode)) {
                Some(FileType::Directory) => None,
                Some(FileType::Symlink) => Some(fs::readlinkat(parent, name.as_slice(), Vec::new())?.into_bytes()),
                Some(_) if own.as_ref().is_some_and(is_whiteout) => {
                    fs::unlinkat(parent, name.as_slice(), AtFlags::empty())?;
                    fs::mkdirat(parent, name.as_slice(), Mode::RWXU)?;
                    self.make_opaque(&open_dir(parent, &name)?)?;
                    let path = [at(), vec![name.clone()]].concat().join(&b'/');
                    self.folders.insert(path, (Mode::from_raw_mode(0o755), 0));
                    None
                }
                Some(_) => return rule("goes through something that is not a folder"),
                None => match self.below(&at(), &name)? {
                    Some((below, found)) if FileType::from_raw_mode(found.st_mode) == FileType::Symlink => {
                        Some(fs::readlinkat(below, name.as_slice(), Vec::new())?.into_bytes())
                    }
                    below => {
                        fs::mkdirat(parent, name.as_slice(), Mode::RWXU)?;
                        let path = [at(), vec![name.clone()]].concat().join(&b'/');
                        let like = below.filter(|(_, s)| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
                        let folder = match like {
                            Some((below, found)) => {
                                let made = open_dir(parent, &name)?;
                                self.own(&made, found.st_uid, found.st_gid)?;
                                self.copy_xattrs(&open_dir(below, &name)?, &made)?;
                                (mode_of(&found), found.st_mtime)
                            }
                            None => (Mode::from_raw_mode(0o755), 0),
                        };
                        self.folders.insert(path, folder);
                        None
                    }
                },
            };
            match link {
                None => {
                    let fd = open_dir(parent, &name)?;
                    here.push((name, fd));
                    if here.len() > MAX_DEPTH {
                        return rule("is nested too deep");
                    }
                }
                Some(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return rule("goes through too many symbolic links");
                    }
                    if target.starts_with(b"/") {
                        here.clear();
                    }
                    for part in target.split(|b| *b == b'/').rev() {
                        todo.push_front(part.to_vec());
                    }
                }
            }
        }
        let at = here.iter().map(|(n, _)| n.clone()).collect();
        let fd = match here.pop() {
            Some((_, fd)) => fd,
            None => self.root.try_clone().map_err(Refused::Disk)?,
        };
        let folder = Rc::new(Folder { fd, at });
        self.last = Some((path.to_vec(), Rc::clone(&folder)));
        Ok(folder)
    }

    /// What the layers below show under a name: the folder it is in, and what it is.
    pub(super) fn below(&self, at: &[Vec<u8>], name: &[u8]) -> Result<Option<(OwnedFd, Stat)>, Refused> {
        let mut hidden = self.hides_below(&self.root, at)?;
        for lower in &self.lowers {
            if hidden {
                break;
            }
            let mut folder = lower.try_clone().map_err(Refused::Disk)?;
            let mut missing = false;
            for part in at {
                match stat(&folder, part)? {
                    None => missing = true,
                    Some(s) if FileType::from_raw_mode(s.st_mode) == FileType::Directory => {}
                    Some(_) => (missing, hidden) = (true, true),
                }
                if missing {
                    break;
                }
                folder = open_dir(&folder, part)?;
                hidden |= self.is_opaque(&folder)?;
            }
            if missing {
                continue;
            }
            match stat(&folder, name)? {
                Some(found) if is_whiteout(&found) => return Ok(None),
                Some(found) => return Ok(Some((folder, found))),
                None => {}
            }
        }
        Ok(None)
    }

    /// Whether a layer hides what is below it at a path.
    fn hides_below(&self, root: &OwnedFd, at: &[Vec<u8>]) -> Result<bool, Refused> {
        let mut folder = root.try_clone().map_err(Refused::Disk)?;
        for part in at {
            folder = open_dir(&folder, part)?;
            if self.is_opaque(&folder)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_opaque(&self, folder: &OwnedFd) -> Result<bool, Refused> {
        let mut value = [0u8; 4];
        match fs::fgetxattr(folder, self.marks.opaque(), &mut value[..]) {
            Ok(n) => Ok(value.get(..n) == Some(b"y")),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}
