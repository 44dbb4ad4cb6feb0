//! The checks of probes that types cannot express.

use super::check::{Checked, error, only_text, within};
use super::container::Container;
use super::probe::{HttpGetAction, PortRef, Probe};

/// A day, in seconds.
const DAY: u32 = 86_400;

/// Checks the probes of one container.
pub(super) fn probes(path: &str, c: &Container, init: bool) -> Checked {
    let all = [
        ("startupProbe", &c.startup_probe, true),
        ("livenessProbe", &c.liveness_probe, true),
        ("readinessProbe", &c.readiness_probe, false),
    ];
    for (field, probe, ends) in all {
        let Some(probe) = probe else { continue };
        let path = format!("{path}.{field}");
        if init {
            return Err(error(path, "init containers have no probes: they run to their end"));
        }
        check(&path, probe, c, ends)?;
    }
    Ok(())
}

/// `ends`: whether a failure ends the container.
fn check(path: &str, probe: &Probe, c: &Container, ends: bool) -> Checked {
    within(&format!("{path}.initialDelaySeconds"), probe.initial_delay_seconds, 0, DAY)?;
    within(&format!("{path}.timeoutSeconds"), probe.timeout_seconds, 1, 3600)?;
    within(&format!("{path}.periodSeconds"), probe.period_seconds, 1, DAY)?;
    // Kubernetes: must be 1 for liveness and startup.
    within(&format!("{path}.successThreshold"), probe.success_threshold, 1, if ends { 1 } else { 1000 })?;
    within(&format!("{path}.failureThreshold"), probe.failure_threshold, 1, 1000)?;
    let grace = format!("{path}.terminationGracePeriodSeconds");
    if !ends && probe.termination_grace_period_seconds.is_some() {
        return Err(error(grace, "a readiness probe ends nothing; it is for livenessProbe and startupProbe"));
    }
    within(&grace, probe.termination_grace_period_seconds, 1, 3600)?;
    let actions = [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some()];
    if actions.iter().filter(|given| **given).count() != 1 {
        return Err(error(path, "needs exactly one of exec, httpGet, tcpSocket"));
    }
    if let Some(exec) = &probe.exec
        && (exec.command.is_empty() || exec.command.iter().any(|t| t.contains('\0')))
    {
        return Err(error(format!("{path}.exec.command"), "needs at least a program, and no zero bytes"));
    }
    if let Some(tcp) = &probe.tcp_socket {
        let path = format!("{path}.tcpSocket");
        port(&path, &tcp.port, c)?;
        host(&path, tcp.host.as_deref())?;
    }
    probe.http_get.as_ref().map_or(Ok(()), |http| http_get(&format!("{path}.httpGet"), http, c))
}

fn http_get(path: &str, http: &HttpGetAction, c: &Container) -> Checked {
    port(path, &http.port, c)?;
    host(path, http.host.as_deref())?;
    let instead = "use exec with a client of your own for HTTPS";
    only_text(&format!("{path}.scheme"), http.scheme.as_ref(), &["HTTP"], instead)?;
    if let Some(given) = &http.path
        && !given.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(error(format!("{path}.path"), format!("{given:?} is not a path: printable ASCII without blanks")));
    }
    for (i, header) in http.http_headers.iter().enumerate() {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let path = format!("{path}.httpHeaders[{i}]");
        if header.name.is_empty() || !header.name.bytes().all(token) {
            return Err(error(format!("{path}.name"), format!("{:?} is not the name of a header", header.name)));
        }
        if header.value.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err(error(format!("{path}.value"), "contains a control character"));
        }
    }
    Ok(())
}

fn host(path: &str, given: Option<&str>) -> Checked {
    let good = |h: &str| {
        let name = |b: u8| b.is_ascii_alphanumeric() || b"-.:_".contains(&b);
        !h.is_empty() && h.len() <= 253 && h.bytes().all(name)
    };
    match given {
        Some(h) if !good(h) => Err(error(format!("{path}.host"), format!("{h:?} is not a host name or address"))),
        _ => Ok(()),
    }
}

fn port(path: &str, port: &PortRef, c: &Container) -> Checked {
    let path = format!("{path}.port");
    match port {
        PortRef::Number(0) => Err(error(path, "0 is not a port: 1 to 65535, or a name of the container's ports")),
        PortRef::Name(name) if c.port(port).is_none() => {
            let known: Vec<&str> = c.ports.iter().filter_map(|p| p.name.as_deref()).collect();
            Err(error(path, format!("{name:?} is not a port of this container; it has: {}", known.join(", "))))
        }
        _ => Ok(()),
    }
}
