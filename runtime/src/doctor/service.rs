//! The runtime itself: its configuration, its unit in systemd, whether it runs and is ready, and its updates.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Check, Findings, Verdict};
use crate::config::{Config, ConfigError};
use crate::update::artefact::digest;
use crate::update::slots::{Ending, Phase, Slot};
use crate::update::{Folder, State, keys};

/// How long the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer read, in bytes.
const LONGEST: u64 = 64 << 10;
/// The name of the unit.
const UNIT: &str = "edge-runtime.service";

/// The node that runs, as it is seen over its socket.
#[derive(Debug, Clone, Default)]
pub struct Running {
    /// The socket.
    pub socket: PathBuf,
    /// Its process.
    pub pid: Option<i32>,
    /// Whether it is ready, and why not; nothing when nobody answers.
    pub ready: Option<Result<(), String>>,
    /// Which of its parts is not well, when it is ready all the same.
    pub unwell: Option<String>,
    /// Why it cannot be asked, when it is not that nobody listens.
    pub trouble: Option<String>,
}

impl Running {
    /// Asks the node behind the socket whether it is ready, and whether all its parts are well.
    pub fn look(socket: &Path) -> Running {
        let mut running = Running { socket: socket.to_owned(), ..Running::default() };
        match ask(socket, "/readyz") {
            Ok((text, pid)) => {
                running.pid = pid;
                running.ready = Some(match text.split_once("\r\n\r\n") {
                    Some((head, _)) if head.starts_with("HTTP/1.1 200") => Ok(()),
                    Some((_, body)) => Err(body.trim().to_owned()),
                    None => Err("no answer".to_owned()),
                });
            }
            Err(error) => match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {}
                _ => running.trouble = Some(error.to_string()),
            },
        }
        if running.ready == Some(Ok(())) {
            let document = ask(socket, "/update").ok().and_then(|(text, _)| {
                let (_, body) = text.split_once("\r\n\r\n")?;
                serde_json::from_str::<serde_json::Value>(body).ok()
            });
            let why = document.as_ref().and_then(|d| d.pointer("/running/why")?.as_str());
            running.unwell = why.map(str::to_owned);
        }
        running
    }
}

/// The answer to a request, and the process that gave it.
fn ask(socket: &Path, path: &str) -> std::io::Result<(String, Option<i32>)> {
    let mut stream = UnixStream::connect(socket)?;
    let pid = rustix::net::sockopt::socket_peercred(&stream).ok().map(|c| c.pid.as_raw_nonzero().get());
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.take(LONGEST).read_to_string(&mut text)?;
    Ok((text, pid))
}

/// The check of the running node.
pub fn daemon(running: &Running) -> Check {
    let socket = running.socket.display();
    if let Some(why) = &running.unwell {
        let advice = "ask `edge-runtime status` which part is not well, and why";
        return Check::new("daemon", Verdict::Warn, format!("ready, but {why}"), advice);
    }
    match (&running.ready, &running.trouble) {
        (Some(Ok(())), _) => Check::new("daemon", Verdict::Ok, "ready", "ask `edge-runtime status` for its parts"),
        (Some(Err(why)), _) => Check::new(
            "daemon",
            Verdict::Fail,
            why.clone(),
            "ask `edge-runtime status` which part is not well, and why",
        ),
        (None, Some(why)) => {
            let advice = "join the group of the socket (api.group), or run as root";
            Check::new("daemon", Verdict::Skip, format!("{socket}: {why}"), advice)
        }
        (None, None) => {
            let advice = "start it with `systemctl start edge-runtime`; its log tells why it ended (`journalctl -u edge-runtime`)";
            Check::new("daemon", Verdict::Warn, format!("nobody answers at {socket}"), advice)
        }
    }
}

/// The check of the configuration.
pub fn configuration(wrong: Option<&ConfigError>) -> Check {
    match wrong {
        None => {
            Check::new("configuration", Verdict::Ok, "right", "`edge-runtime config show` tells every value in force")
        }
        Some(error) => {
            let found = error.to_string().replace('\n', "; ");
            Check::new(
                "configuration",
                Verdict::Fail,
                found,
                "correct these keys: the runtime does not start otherwise",
            )
        }
    }
}

/// The unit in systemd.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unit {
    /// Whether systemd is what runs this machine.
    pub systemd: bool,
    /// Whether the unit is there.
    pub there: bool,
    /// Whether it is started with the machine.
    pub enabled: bool,
}

impl Unit {
    /// Looks at this machine.
    pub fn look() -> Unit {
        let places = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
        let any = |below: &str| places.iter().any(|p| std::fs::symlink_metadata(Path::new(p).join(below)).is_ok());
        Unit {
            systemd: Path::new("/run/systemd/system").exists(),
            there: any(UNIT),
            enabled: any(&format!("multi-user.target.wants/{UNIT}")),
        }
    }
}

/// The check of the unit.
pub fn unit(unit: &Unit) -> Check {
    let purpose = "it is started with the machine, and again when it ends";
    match (unit.systemd, unit.there, unit.enabled) {
        (false, ..) => Check::new(
            "service",
            Verdict::Skip,
            "systemd does not run here",
            "let your init start it, and again when it ends",
        ),
        (true, false, _) => {
            let advice = "install edge-runtime.service (yocto/ has one), so that it is started with the machine";
            Check::new("service", Verdict::Warn, format!("{UNIT} is not there"), advice)
        }
        (true, true, false) => {
            let advice = "enable it with `systemctl enable edge-runtime`, so that it is started with the machine";
            Check::new("service", Verdict::Warn, format!("{UNIT} is not enabled"), advice)
        }
        (true, true, true) => Check::new("service", Verdict::Ok, format!("{UNIT} is enabled"), purpose),
    }
}

/// Updates: trusted keys, and what is installed.
#[derive(Debug, Clone, Default)]
pub struct Updates {
    /// How many keys are trusted, or what is wrong with them.
    pub keys: Option<Result<usize, String>>,
    /// The state, or why it cannot be read.
    pub state: Option<Result<State, String>>,
    /// Whether the executable in use is the one that was installed.
    pub intact: bool,
}

impl Updates {
    /// Looks at the state directory.
    pub fn look(config: &Config) -> Updates {
        let trusted = keys::trusted(&config.update.public_keys, Path::new(keys::FOLDER));
        let folder = Folder::below(&config.paths.state);
        let state = folder.read().map_err(|e| crate::supervisor::chain(&e)).transpose();
        let used = state
            .as_ref()
            .and_then(|s| s.as_ref().ok())
            .and_then(|s| Some((folder.executable(s.current)?, s.installed(s.current)?.sha256.clone())));
        let same = |path: &Path| std::fs::File::open(path).and_then(digest).map(|(digest, _)| digest);
        Updates {
            keys: Some(trusted.map(|k| k.len()).map_err(|e| crate::supervisor::chain(&e))),
            intact: used.is_none_or(|(path, wanted)| same(&path).is_ok_and(|digest| digest == wanted)),
            state,
        }
    }
}

/// The check of updates.
pub fn updates(updates: &Updates) -> Check {
    let mut all = Findings::default();
    match &updates.keys {
        Some(Err(why)) => {
            all.bad(Verdict::Fail, why.clone(), "correct or remove that key: no update is taken until then")
        }
        Some(Ok(count)) => all.good(format!("{count} keys trusted")),
        None => {}
    }
    match &updates.state {
        None => all.good("the image's own version"),
        Some(Err(why)) => all.bad(Verdict::Warn, why.clone(), "run as root to look at it, or apply the update again"),
        Some(Ok(state)) => {
            let version = state.version(state.current);
            if !updates.intact {
                let advice = "apply the update again, and look at the disk: the version before is started otherwise";
                all.bad(Verdict::Fail, format!("the executable of {version} is damaged"), advice);
            }
            let rolled = state.last.as_ref().filter(|l| l.ending == Ending::RolledBack && l.from > l.to);
            if let Some(last) = rolled {
                let found = format!("{} was given up: {}", last.from, last.why);
                all.bad(Verdict::Warn, found, "ask its maker for a version that is healthy here");
            }
            let how = if state.phase == Phase::Trial { "on trial" } else { "in use" };
            let place = if state.current == Slot::Factory { "the image" } else { "a slot" };
            all.good(format!("{version} from {place} {how}"));
        }
    }
    all.check("updates", "new versions come with `edge-runtime update apply`", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_judged() {
        let running = |ready, trouble: Option<&str>| {
            daemon(&Running { ready, trouble: trouble.map(str::to_owned), ..Running::default() }).verdict
        };
        assert_eq!(running(Some(Ok(())), None), Verdict::Ok);
        assert_eq!(running(Some(Err("bus".into())), None), Verdict::Fail);
        assert_eq!(running(None, Some("denied")), Verdict::Skip);
        assert_eq!(running(None, None), Verdict::Warn);
        for (systemd, there, enabled, expected) in [
            (false, true, true, Verdict::Skip),
            (true, false, false, Verdict::Warn),
            (true, true, false, Verdict::Warn),
            (true, true, true, Verdict::Ok),
        ] {
            assert_eq!(unit(&Unit { systemd, there, enabled }).verdict, expected);
        }
    }

    #[test]
    fn updates_are_judged() {
        let own = Updates { keys: Some(Ok(0)), state: None, intact: true };
        assert_eq!(updates(&own).verdict, Verdict::Ok);
        assert_eq!(updates(&Updates { keys: Some(Err("bad".into())), ..own.clone() }).verdict, Verdict::Fail);
        assert_eq!(updates(&Updates { state: Some(Err("bad".into())), ..own.clone() }).verdict, Verdict::Warn);
        let state = Some(Ok(State::new("1.0.0".parse().unwrap())));
        assert_eq!(updates(&Updates { state: state.clone(), ..own.clone() }).verdict, Verdict::Ok);
        assert_eq!(updates(&Updates { state, intact: false, ..own }).verdict, Verdict::Fail);
    }
}
