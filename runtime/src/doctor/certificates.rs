//! Certificates named in the configuration: there, readable, in PEM, valid now and for a while, and fitting their keys.

use std::path::PathBuf;

use super::der::{self, Validity};
use super::{Check, Findings, Verdict};
use crate::config::Config;
use crate::supervisor::chain;

/// A certificate that ends sooner is told, in milliseconds: 30 days.
const SOON_MS: i64 = 30 * 86_400_000;
/// No file of certificates is longer.
const LONGEST: u64 = 4 << 20;

/// A file, and what is in it.
#[derive(Debug, Clone)]
pub struct File {
    /// The key of the configuration that names it.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// When its certificates are valid (`None` for one that is not understood), or why it cannot be read.
    pub found: Result<Vec<Option<Validity>>, String>,
}

/// What was looked at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The time, UTC milliseconds.
    pub now_ms: i64,
    /// The files.
    pub files: Vec<File>,
    /// Why a connection to the cloud cannot be made with them.
    pub unusable: Option<String>,
}

impl Facts {
    /// Reads the files that the configuration names.
    pub fn look(config: &Config) -> Facts {
        let cloud =
            [("cloud.certificate-file", &config.cloud.certificate_file), ("cloud.ca-file", &config.cloud.ca_file)];
        let cloud = cloud.into_iter().filter_map(|(key, path)| Some((key, path.clone()?)));
        let images = config.images.ca_files.iter().map(|path| ("images.ca-files", path.clone()));
        let files = cloud.chain(images).map(|(key, path)| File { key, found: read(&path), path });
        let unusable = crate::cloud::check_files(&config.cloud).err().map(|e| chain(&e));
        Facts { now_ms: crate::clock::now_ms(), files: files.collect(), unusable }
    }
}

fn read(path: &PathBuf) -> Result<Vec<Option<Validity>>, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let opened = std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    opened.map_err(|e| e.to_string())?;
    const LABEL: &str = "CERTIFICATE";
    let blocks =
        text.split_inclusive("-----END CERTIFICATE-----").filter(|block| block.contains("-----BEGIN CERTIFICATE-----"));
    Ok(blocks.map(|block| der::validity(&crate::update::keys::unarmour(block, LABEL)?)).collect())
}

/// The check.
pub fn check(facts: &Facts) -> Check {
    let mut all = Findings::default();
    for File { key, path, found } in &facts.files {
        let path = path.display();
        match found {
            Err(why) => {
                all.bad(Verdict::Fail, format!("{path}: {why}"), format!("correct {key}, or put the file there"))
            }
            Ok(list) if list.is_empty() || list.contains(&None) => {
                let advice = format!("put a certificate in PEM form into the file that {key} names");
                all.bad(Verdict::Fail, format!("{path} is no certificate"), advice);
            }
            // An authority of several that has ended does no harm as long as another has not.
            Ok(list) => {
                let first = list.first().copied().flatten();
                let latest = list.iter().flatten().max_by_key(|v| v.until_ms).copied();
                let own = *key == "cloud.certificate-file";
                if let Some(validity) = if own { first } else { latest } {
                    judge(&mut all, &path.to_string(), validity, facts.now_ms);
                }
            }
        }
    }
    if let Some(why) = &facts.unusable {
        all.bad(
            Verdict::Fail,
            why.clone(),
            "correct the files that [cloud] names: certificate and key must go together",
        );
    }
    all.check("certificates", "the cloud and registries are reached with these", "the configuration names none")
}

fn judge(all: &mut Findings, path: &str, validity: Validity, now_ms: i64) {
    let day = |ms| edge_model::time::rfc3339(ms).chars().take(10).collect::<String>();
    let (from, until) = (day(validity.from_ms), day(validity.until_ms));
    if now_ms < validity.from_ms {
        let advice = "check the clock first: it may be behind; otherwise wait, or get another certificate";
        all.bad(Verdict::Fail, format!("{path} is not valid before {from}"), advice);
    } else if now_ms > validity.until_ms {
        all.bad(Verdict::Fail, format!("{path} expired on {until}"), "renew it: the other side refuses it");
    } else if now_ms > validity.until_ms - SOON_MS {
        all.bad(
            Verdict::Warn,
            format!("{path} expires on {until}"),
            "renew it before that day; the file is read again by itself",
        );
    } else {
        all.good(format!("{path} until {until}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_end() {
        const DAY: i64 = 86_400_000;
        let (from_ms, until_ms) = (100 * DAY, 200 * DAY);
        let valid = Some(Validity { from_ms, until_ms });
        let old = Some(Validity { from_ms: 0, until_ms: DAY });
        let verdict = |now: i64, key, found: Result<Vec<Option<Validity>>, String>| {
            check(&Facts { now_ms: now * DAY, files: vec![File { key, path: "/c".into(), found }], unusable: None })
                .verdict
        };
        let own = "cloud.certificate-file";
        for (now, expected) in [(50, Verdict::Fail), (120, Verdict::Ok), (180, Verdict::Warn), (201, Verdict::Fail)] {
            assert_eq!(verdict(now, own, Ok(vec![valid])), expected, "{now}");
        }
        assert_eq!(verdict(120, own, Ok(vec![old, valid])), Verdict::Fail, "the first is the node's own");
        assert_eq!(verdict(120, "cloud.ca-file", Ok(vec![old, valid])), Verdict::Ok);
        for bad in [Ok(vec![]), Ok(vec![None]), Err("not there".to_owned())] {
            assert_eq!(verdict(120, own, bad), Verdict::Fail);
        }
        assert_eq!(check(&Facts::default()).verdict, Verdict::Skip);
        assert_eq!(check(&Facts { unusable: Some("x".into()), ..Facts::default() }).verdict, Verdict::Fail);
    }
}
