//! The way to the cloud: the interface, a default route, and the cloud's name. All of it may be missing: offline is normal.

use std::net::ToSocketAddrs as _;

use super::{Check, Findings, Verdict};
use crate::config::Config;

/// What was looked at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The interface that is named, and its state; nothing when it is not there.
    pub interface: Option<(String, Option<String>)>,
    /// Whether there is a default route.
    pub route: bool,
    /// The cloud's host, when a cloud is configured.
    pub host: Option<String>,
    /// How many addresses its name has, or why none; nothing when nobody asked.
    pub resolved: Option<Result<usize, String>>,
}

impl Facts {
    /// Looks at this machine; asks for the cloud's name unless `offline`.
    pub fn look(config: &Config, offline: bool) -> Facts {
        let state = |name: &String| {
            let state = std::fs::read_to_string(format!("/sys/class/net/{name}/operstate")).ok();
            (name.clone(), state.map(|s| s.trim().to_owned()))
        };
        let cloud = config.cloud.check().ok().flatten();
        let asked = cloud.as_ref().filter(|_| !offline);
        let resolved = asked.map(|cloud| {
            let found = (cloud.host.as_str(), cloud.port).to_socket_addrs();
            found.map(Iterator::count).map_err(|e| e.to_string())
        });
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Facts {
            interface: config.board.interface.as_ref().map(state),
            route: has_default(&read("/proc/net/route"), &read("/proc/net/ipv6_route")),
            host: cloud.map(|cloud| cloud.host),
            resolved,
        }
    }
}

/// Whether one of the tables has a default route that is not the unreachable one of loopback (proc_pid_net(5)).
fn has_default(v4: &str, v6: &str) -> bool {
    let v4 = v4.lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")
    });
    let zero = "0".repeat(32);
    let v6 = v6.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.first() == Some(&zero.as_str()) && words.get(1) == Some(&"00") && words.last() != Some(&"lo")
    });
    v4 || v6
}

/// All checks of the network.
pub fn checks(facts: &Facts) -> Vec<Check> {
    vec![network(facts), name(facts)]
}

fn network(facts: &Facts) -> Check {
    let mut all = Findings::default();
    match &facts.interface {
        None => {}
        Some((name, None)) => {
            let advice = "load its driver, or set network.interface to the name it has (`ip link`)";
            all.bad(Verdict::Warn, format!("{name} is not there"), advice);
        }
        // Drivers that do not know say so.
        Some((name, Some(state))) if state == "up" || state == "unknown" => all.good(format!("{name} {state}")),
        Some((name, Some(state))) => {
            all.bad(Verdict::Warn, format!("{name} is {state}"), "plug in the cable, or set the interface up");
        }
    }
    match facts.route {
        true => all.good("default route"),
        false => all.bad(
            Verdict::Warn,
            "no default route",
            "set a gateway (DHCP or by hand): the cloud and registries cannot be reached; all else works",
        ),
    }
    all.check("network", "the cloud is reached over it; all else works without", "")
}

fn name(facts: &Facts) -> Check {
    let purpose = "what waits for the cloud is kept until it can be reached";
    match (&facts.host, &facts.resolved) {
        (None, _) => Check::new("cloud name", Verdict::Skip, "no cloud is configured", purpose),
        (Some(host), None) => {
            Check::new("cloud name", Verdict::Skip, format!("{host}: not asked (--offline)"), purpose)
        }
        (Some(host), Some(Ok(count))) if *count > 0 => {
            Check::new("cloud name", Verdict::Ok, format!("{host}: {count} addresses"), purpose)
        }
        (Some(host), Some(other)) => {
            let why = other.as_ref().err().map_or("no address", String::as_str);
            let advice = "check cloud.address, and the name servers in /etc/resolv.conf";
            Check::new("cloud name", Verdict::Fail, format!("{host}: {why}"), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_judged() {
        let verdicts = |facts: Facts| checks(&facts).iter().map(|c| c.verdict).collect::<Vec<_>>();
        let good = Facts {
            interface: Some(("eth0".into(), Some("up".into()))),
            route: true,
            host: Some("c".into()),
            resolved: Some(Ok(1)),
        };
        assert_eq!(verdicts(good.clone()), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(verdicts(Facts { route: false, ..good.clone() }), [Verdict::Warn, Verdict::Ok]);
        assert_eq!(verdicts(Facts { interface: Some(("e".into(), None)), ..good.clone() })[0], Verdict::Warn);
        assert_eq!(verdicts(Facts { resolved: Some(Err("no".into())), ..good.clone() })[1], Verdict::Fail);
        assert_eq!(verdicts(Facts { resolved: None, ..good.clone() })[1], Verdict::Skip);
        assert_eq!(verdicts(Facts { host: None, ..good })[1], Verdict::Skip);
    }

    #[test]
    fn default_routes_are_found() {
        let v4 = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU\n\
                  eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n";
        assert!(has_default(v4, ""));
        assert!(!has_default("Iface\neth0 0001A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0\n", ""));
        let zero = "0".repeat(32);
        let v6 = |to: &str| format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 {to}\n");
        assert!(has_default("", &v6("eth0")) && !has_default("", &v6("lo")));
    }
}
