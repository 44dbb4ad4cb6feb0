//! Pods to test with: a busybox image by umoci, and pods of it; and the processes of their containers.

use std::path::Path;

use crate::cleanup;
use crate::image;

/// An OCI layout with busybox, made by umoci; returns its path.
///
/// # Panics
/// When umoci or busybox-static is missing, or when not run by root.
pub fn busybox_archive(dir: &Path) -> String {
    let layout = image::umoci(dir, &[&|root: &Path| image::busybox(root)]);
    image::text(&layout).to_owned()
}

/// A pod that sleeps.
pub fn sleeper(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n  containers:\n    \
         - {{name: main, image: 'localhost/busybox:1', command: [/bin/busybox, sleep, '3600']}}\n"
    )
}

/// Process id and start time (`/proc/PID/stat`, field 22, in ticks since the start of the machine) of every process of the
/// node's containers, in order: not of the daemon and not of shims.
pub fn start_ticks(folder: &Path) -> Vec<(i32, u64)> {
    let mut found: Vec<(i32, u64)> = cleanup::containers(folder)
        .into_iter()
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name may contain spaces, so fields are counted after its closing parenthesis.
            let after = stat.rsplit_once(')')?.1;
            Some((pid, after.split_whitespace().nth(19)?.parse().ok()?))
        })
        .collect();
    found.sort_unstable();
    found
}
