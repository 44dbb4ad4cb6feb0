//! Rights of files and folders: secrets are their owner's alone, and nobody else may change what is believed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Check, Findings, Verdict};
use crate::config::Config;

/// A file or folder, and whose it is.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// Mode and owner, or why they cannot be told; nothing when it is not there.
    pub found: Option<Result<(u32, u32), String>>,
}

/// What was looked at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The files and folders.
    pub entries: Vec<Entry>,
    /// Who looks.
    pub user: u32,
}

impl Facts {
    /// Looks at these paths.
    pub fn look(paths: &[PathBuf]) -> Facts {
        let entry = |path: &PathBuf| {
            let found = match std::fs::metadata(path) {
                Ok(meta) => Some(Ok((meta.mode() & 0o7777, meta.uid()))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => Some(Err(error.to_string())),
            };
            Entry { path: path.clone(), found }
        };
        Facts { entries: paths.iter().map(entry).collect(), user: rustix::process::geteuid().as_raw() }
    }
}

/// The files that hold secrets.
pub fn private(config: &Config) -> Vec<PathBuf> {
    [&config.cloud.key_file, &config.cloud.password_file].into_iter().flatten().cloned().collect()
}

/// The files and folders that are believed, or that secrets lie in.
pub fn open(config: &Config, files: &[PathBuf]) -> Vec<PathBuf> {
    let folders = [&config.paths.state, &config.paths.run, &config.paths.manifests].into_iter().cloned();
    let keys = [PathBuf::from(crate::update::keys::FOLDER)];
    let mut all: Vec<PathBuf> = folders.chain(keys).chain(files.iter().cloned()).collect();
    all.extend(files.iter().filter_map(|f| f.parent().map(Path::to_owned)).filter(|p| p.starts_with("/etc")));
    all.dedup();
    all
}

/// The check of secrets.
pub fn keys(facts: &Facts) -> Check {
    let mut all = Findings::default();
    for Entry { path, found } in &facts.entries {
        let shown = path.display();
        match found {
            None => {
                all.bad(Verdict::Fail, format!("{shown} is not there"), "put it there, or correct the configuration")
            }
            Some(Err(why)) => {
                all.bad(Verdict::Fail, format!("{shown}: {why}"), "correct its rights or those of its folders")
            }
            Some(Ok((mode, _))) if mode & 0o004 != 0 => {
                let advice =
                    format!("take the right from others: chmod o= {shown}; and renew what was open to everybody");
                all.bad(Verdict::Fail, format!("{shown} can be read by everybody (mode {mode:04o})"), advice);
            }
            Some(Ok((mode, _))) if mode & 0o022 != 0 => {
                let advice = format!("take the right from others: chmod go-w {shown}");
                all.bad(Verdict::Fail, format!("{shown} can be changed by others (mode {mode:04o})"), advice);
            }
            Some(Ok((mode, _))) => all.good(format!("{shown} {mode:04o}")),
        }
    }
    all.check("private keys", "who can read them can be the node", "the configuration names none")
}

/// The check of what is believed.
pub fn folders(facts: &Facts) -> Check {
    let mut all = Findings::default();
    for Entry { path, found } in &facts.entries {
        let shown = path.display();
        match found {
            // Made when it is needed.
            None => {}
            Some(Err(why)) => {
                all.bad(
                    Verdict::Warn,
                    format!("{shown}: {why}"),
                    "run as root to look at everything, or correct its rights",
                );
            }
            // The sticky bit keeps others' names safe in a folder.
            Some(Ok((mode, _))) if mode & 0o002 != 0 && mode & 0o1000 == 0 => {
                let advice = format!("take the right from others: chmod o-w {shown}");
                all.bad(Verdict::Fail, format!("{shown} can be changed by everybody (mode {mode:04o})"), advice);
            }
            Some(Ok((_, owner))) if *owner != 0 && *owner != facts.user => {
                let advice = format!("give it to root, or to whom the runtime runs as: chown root {shown}");
                all.bad(Verdict::Warn, format!("{shown} belongs to user {owner}"), advice);
            }
            Some(Ok(_)) => all.good(shown.to_string()),
        }
    }
    all.check("permissions", "what lies there is believed", "nothing is there yet")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(found: Option<Result<(u32, u32), String>>) -> (Verdict, Verdict) {
        let facts = Facts { entries: vec![Entry { path: "/f".into(), found }], user: 0 };
        (keys(&facts).verdict, folders(&facts).verdict)
    }

    #[test]
    fn rights_are_judged() {
        use Verdict::{Fail, Ok as Fine, Skip, Warn};
        for (found, expected) in [
            (Some(Ok((0o600, 0))), (Fine, Fine)),
            (Some(Ok((0o640, 0))), (Fine, Fine)),
            (Some(Ok((0o644, 0))), (Fail, Fine)),
            (Some(Ok((0o660, 0))), (Fail, Fine)),
            (Some(Ok((0o666, 0))), (Fail, Fail)),
            (Some(Ok((0o1777, 0))), (Fail, Fine)),
            (Some(Ok((0o700, 1000))), (Fine, Warn)),
            (Some(Err("denied".to_owned())), (Fail, Warn)),
            (None, (Fail, Skip)),
        ] {
            assert_eq!(verdicts(found.clone()), expected, "{found:?}");
        }
    }
}
