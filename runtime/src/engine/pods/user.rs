//! Who a container's process is: from numbers and names to ids, with the image's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// The most read of a user database, in bytes.
const DATABASE_MAX: u64 = 1 << 20;

/// The ids of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Further groups, those of the image's `/etc/group`.
    pub groups: Vec<u32>,
    /// The home directory, when the image knows the user.
    pub home: Option<String>,
}

/// A name that the image does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A user.
    #[error("the image has no user {0:?}")]
    User(String),
    /// A group.
    #[error("the image has no group {0:?}")]
    Group(String),
}

/// The user and group databases of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
}

impl Database {
    /// Reads the databases below a root file system, following its links inside it only; what is missing is empty. Blocks.
    pub fn read(root: &Path) -> Database {
        Database { passwd: read(root, "etc/passwd"), group: read(root, "etc/group") }
    }

    /// The ids of the image's user (`user`, `uid`, `user:group`, `uid:gid`, or empty for root), or of what the pod says.
    ///
    /// # Errors
    /// Names the user or group that is not known.
    pub fn resolve(&self, image: &str, uid: Option<u32>, gid: Option<u32>) -> Result<User, UserError> {
        let (user, group) = image.split_once(':').unwrap_or((image, ""));
        let text = uid.map(|n| n.to_string());
        let user = text.as_deref().unwrap_or(if user.is_empty() { "0" } else { user });
        let entry = self.passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|fields| {
            let by_name = fields.first() == Some(&user);
            by_name || (fields.get(2) == Some(&user) && user.parse::<u32>().is_ok())
        });
        let field = |i: usize| entry.as_ref().and_then(|e| e.get(i)).copied();
        let id = match user.parse() {
            Ok(number) => number,
            Err(_) => field(2).and_then(|n| n.parse().ok()).ok_or_else(|| UserError::User(user.to_owned()))?,
        };
        // A user that the pod chose does not get the group that the image chose for its own.
        let group = if uid.is_some() { "" } else { group };
        let primary = match (gid, group) {
            (Some(gid), _) => gid,
            (None, "") => field(3).and_then(|n| n.parse().ok()).unwrap_or(0),
            (None, group) => self.group_id(group).ok_or_else(|| UserError::Group(group.to_owned()))?,
        };
        let home = field(5).filter(|h| h.starts_with('/')).map(str::to_owned);
        let groups = field(0).map(|name| self.groups_of(name, primary)).unwrap_or_default();
        Ok(User { uid: id, gid: primary, groups, home })
    }

    fn group_id(&self, group: &str) -> Option<u32> {
        let named = |l: &str| {
            let mut fields = l.split(':');
            if fields.next() == Some(group) { fields.nth(1)?.parse().ok() } else { None }
        };
        group.parse().ok().or_else(|| self.group.lines().find_map(named))
    }

    fn groups_of(&self, user: &str, primary: u32) -> Vec<u32> {
        let member = |l: &str| {
            let fields: Vec<&str> = l.split(':').collect();
            let gid = fields.get(2)?.parse().ok()?;
            (fields.get(3)?.split(',').any(|m| m == user) && gid != primary).then_some(gid)
        };
        self.group.lines().filter_map(member).collect()
    }
}

fn read(root: &Path, path: &str) -> String {
    let open = || {
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)
    };
    let Ok(file) = open() else { return String::new() };
    let mut text = Vec::new();
    let file = File::from(file);
    // A fifo or device in its place is nothing to read.
    if !file.metadata().is_ok_and(|m| m.is_file()) || file.take(DATABASE_MAX).read_to_end(&mut text).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_become_ids() {
        let db = Database {
            passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken\n".into(),
            group: "root:x:0:\napp:x:1001:\ndialout:x:20:app,other\n".into(),
        };
        let user = |uid, gid, groups: &[u32], home: &str| {
            let home = (!home.is_empty()).then(|| home.to_owned());
            Ok(User { uid, gid, groups: groups.to_vec(), home })
        };
        let cases = [
            ("", None, None, user(0, 0, &[], "/root")),
            ("app", None, None, user(1000, 1001, &[20], "/home/app")),
            ("1000", None, None, user(1000, 1001, &[20], "/home/app")),
            ("app:dialout", None, None, user(1000, 20, &[], "/home/app")),
            ("app:7", None, None, user(1000, 7, &[20], "/home/app")),
            ("4242", None, None, user(4242, 0, &[], "")),
            ("4242:4243", None, None, user(4242, 4243, &[], "")),
            ("app:7", Some(5), None, user(5, 0, &[], "")),
            ("app:7", Some(1000), Some(9), user(1000, 9, &[20], "/home/app")),
            ("app:7", None, Some(9), user(1000, 9, &[20], "/home/app")),
            ("nobody", None, None, Err(UserError::User("nobody".into()))),
            ("app:none", None, None, Err(UserError::Group("none".into()))),
        ];
        for (image, uid, gid, expected) in cases {
            assert_eq!(db.resolve(image, uid, gid), expected, "{image:?} {uid:?} {gid:?}");
        }
    }

    #[test]
    fn links_of_the_image_stay_inside_it() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("root/etc")).unwrap();
        std::fs::write(temp.path().join("root/real"), "inside").unwrap();
        std::os::unix::fs::symlink("/real", temp.path().join("root/etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", temp.path().join("root/etc/group")).unwrap();
        let db = Database::read(&temp.path().join("root"));
        assert_eq!(db, Database { passwd: "inside".into(), group: String::new() });
    }
}
