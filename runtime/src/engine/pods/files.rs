//! The files every pod has: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`. The texts are pure.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use edge_model::pod::{HostAlias, PodSpec};

/// Where systemd-resolved keeps the real resolvers; `/etc/resolv.conf` then names only its stub on the node's loopback.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Writes the files of a pod into a directory, in place, so that running containers see a change. Blocks.
///
/// # Errors
/// The system's.
pub fn write(dir: &Path, spec: &PodSpec, hostname: &str, ip: Option<Ipv4Addr>, gateway: Ipv4Addr) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let node_hosts = spec.host_network.then(|| fs::read_to_string("/etc/hosts").unwrap_or_default());
    let node = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolvers = if spec.host_network {
        node
    } else {
        let beyond = fs::read_to_string(RESOLVED).unwrap_or_default();
        resolvers(&node, &beyond)
    };
    put(&dir.join("hosts"), &hosts(node_hosts.as_deref(), hostname, ip, gateway, &spec.host_aliases))?;
    put(&dir.join("hostname"), &format!("{hostname}\n"))?;
    put(&dir.join("resolv.conf"), &resolvers)
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text)
}

/// The host name of a pod: what it says, or its name, cut to what the kernel takes.
pub fn hostname(spec: &PodSpec, pod: &str) -> String {
    match &spec.hostname {
        Some(name) => name.clone(),
        None => pod.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned(),
    }
}

/// `/etc/hosts`: the node's for a pod on the node's network, else loopback and the pod itself; then the pod's own lines.
fn hosts(node: Option<&str>, hostname: &str, ip: Option<Ipv4Addr>, gateway: Ipv4Addr, aliases: &[HostAlias]) -> String {
    let own = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    let mut text = node.unwrap_or(own).to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    if node.is_none() {
        let ip = ip.unwrap_or(Ipv4Addr::LOCALHOST);
        text.push_str(&format!("{ip}\t{hostname}\n{gateway}\thost.edge.internal\n"));
    }
    for alias in aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join(" ")));
    }
    text
}

/// The node's resolvers without those on its loopback, which a pod with a network of its own cannot reach; `beyond` is what
/// stands behind a local stub.
fn resolvers(node: &str, beyond: &str) -> String {
    let server = |line: &str| line.strip_prefix("nameserver").and_then(|r| r.trim().parse::<IpAddr>().ok());
    let reachable = |text: &str| text.lines().filter_map(server).any(|ip| !ip.is_loopback());
    let chosen = if reachable(node) { node } else { beyond };
    let keep = |line: &&str| server(line).is_none_or(|ip| !ip.is_loopback());
    chosen.lines().filter(keep).map(|l| format!("{l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_the_pod() {
        let alias = HostAlias { ip: "10.0.0.9".parse().unwrap(), hostnames: vec!["a".into(), "b.c".into()] };
        let gateway = Ipv4Addr::new(10, 88, 0, 1);
        let text = hosts(None, "web", Some(Ipv4Addr::new(10, 88, 0, 2)), gateway, std::slice::from_ref(&alias));
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.ends_with("10.88.0.2\tweb\n10.88.0.1\thost.edge.internal\n10.0.0.9\ta b.c\n"), "{text}");
        assert_eq!(hosts(Some("1.2.3.4 gw"), "web", None, gateway, &[alias]), "1.2.3.4 gw\n10.0.0.9\ta b.c\n");
    }

    #[test]
    fn a_stub_on_loopback_is_replaced_by_what_is_behind_it() {
        let stub = "# stub\nnameserver 127.0.0.53\noptions edns0\n";
        let real = "nameserver 192.168.1.1\nsearch lan\n";
        assert_eq!(resolvers(stub, real), real);
        assert_eq!(resolvers(real, ""), real);
        assert_eq!(resolvers("nameserver 127.0.0.1\nnameserver 9.9.9.9\n", real), "nameserver 9.9.9.9\n");
        assert_eq!(resolvers(stub, ""), "");
    }

    #[test]
    fn host_names_fit_the_kernel() {
        let spec = PodSpec::default();
        assert_eq!(hostname(&spec, "web"), "web");
        assert_eq!(hostname(&spec, &format!("{}-b", "a".repeat(62))), "a".repeat(62));
        assert_eq!(hostname(&PodSpec { hostname: Some("h".into()), ..spec }, "web"), "h");
    }
}
