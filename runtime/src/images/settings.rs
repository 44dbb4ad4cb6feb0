//! What an operator can choose about images.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::Credentials;

/// Limits, time-outs and registries.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Most bytes one image may unpack to; 1 MiB and up.
    pub max_image_bytes: u64,
    /// Most layers one image may have; 1 to 500 (the kernel's limit), over 220 only on Linux 6.8 and later.
    pub max_layers: usize,
    /// Bytes always left free on the disk, for the queue and the store; 0 and up.
    pub reserve_bytes: u64,
    /// Keep layers as they came as well, so that images can be exported: costs their size in addition.
    pub keep_layer_blobs: bool,
    /// How long connecting to a registry may take; 1 s to 5 min.
    pub connect_timeout: Duration,
    /// How long a registry may be silent in the middle of an answer; 1 s to 10 min.
    pub read_timeout: Duration,
    /// How often a request without any progress is tried again; 0 to 100.
    pub retries: u32,
    /// The first pause before trying again; it doubles each time up to 30 s; 10 ms to 30 s.
    pub retry_pause: Duration,
    /// Layers downloaded at the same time, over all pulls; 1 to 8.
    pub parallel_downloads: usize,
    /// Days a broken download is kept for resuming; 0 and up.
    pub partial_days: u32,
    /// The disk is cleared of unused images from this use of it on, in percent; 1 to 100.
    pub gc_high_percent: u8,
    /// Until it is below this use, in percent; less than `gc_high_percent`.
    pub gc_low_percent: u8,
    /// Images that came or were used in this time are left alone: their pod may be on its way.
    pub gc_min_age: Duration,
    /// Registry → mirrors asked before it, in order, such as `docker.io` → `mirror.example:5000`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries (`host[:port]`) spoken to over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// PEM files with further certificate authorities to trust.
    pub ca_files: Vec<PathBuf>,
    /// Registry → user name and password.
    pub credentials: BTreeMap<String, Credentials>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_image_bytes: 4 << 30,
            max_layers: 200,
            reserve_bytes: 32 << 20,
            keep_layer_blobs: false,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            retries: 5,
            retry_pause: Duration::from_secs(1),
            parallel_downloads: 2,
            partial_days: 7,
            gc_high_percent: 85,
            gc_low_percent: 80,
            gc_min_age: Duration::from_secs(120),
            mirrors: BTreeMap::new(),
            insecure_registries: Vec::new(),
            ca_files: Vec::new(),
            credentials: BTreeMap::new(),
        }
    }
}
