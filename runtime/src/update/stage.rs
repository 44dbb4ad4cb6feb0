//! Putting a new version into the free slot, and going back by hand. The slot in use is never touched, and the state changes
//! last: a power cut anywhere before leaves what was there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::artefact::{self, Artefact, ArtefactError};
use super::gate;
use super::keys::PublicKey;
use super::launch::supersede;
use super::manifest::{Manifest, Policy, own_target};
use super::slots::{Folder, Installed, Phase, Slot, State, StateError};
use super::version::Version;
use crate::disk::{sync_parent, write_atomically};

/// Why a version is not taken into use.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The artefact.
    #[error(transparent)]
    Artefact(#[from] ArtefactError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file.
    #[error("cannot write {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing can be started from there.
    #[error("{0} is mounted noexec: nothing can be started from there; mount it with exec, or move paths.state-dir")]
    NoExec(PathBuf),
    /// One after the other.
    #[error("{0} is on trial: wait until it is committed, or go back first with `edge-runtime update rollback`")]
    OnTrial(Version),
    /// Nothing to go back to.
    #[error("there is no other version to go back to")]
    NoOther,
    /// The version before could not read the objects.
    #[error(
        "{to} reads object stores up to schema {knows}, and this node's has {schema} since {from}: it would start without its \
         objects"
    )]
    Schema {
        /// The version to go back to.
        to: Version,
        /// What it reads.
        knows: u32,
        /// The version in use.
        from: Version,
        /// What that writes.
        schema: u32,
    },
    /// The version before is not what it was.
    #[error("the executable of {0} is damaged or gone: apply its artefact again")]
    Damaged(Version),
}

/// Checks an artefact and puts its executable into the free slot, on trial from the next start on. `step` hears of every piece's
/// bytes, after `begin` has heard the manifest.
///
/// # Errors
/// Why not; what was in use stays in use.
pub fn apply(
    folder: &Folder,
    reader: impl Read,
    keys: &[PublicKey],
    allow_downgrade: bool,
    settings: gate::Settings,
    begin: impl FnOnce(&Manifest),
    step: impl FnMut(u64),
) -> Result<State, StageError> {
    let artefact = Artefact::open(reader, keys)?;
    folder.create()?;
    let _only = folder.lock("apply.lock", false)?;
    // A state that makes no sense is replaced: the image's own version is what runs then.
    let state = match folder.read() {
        Ok(state) => state,
        Err(StateError::Damaged { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let mut state = state.unwrap_or_else(|| State::new(Version::own()));
    supersede(&mut state, &Version::own(), crate::clock::now_ms());
    if state.phase == Phase::Trial {
        return Err(StageError::OnTrial(state.version(state.current)));
    }
    let policy = Policy {
        current: state.version(state.current),
        target: own_target().to_owned(),
        allow_downgrade,
        store_schema: state.schema(state.current, crate::store::SCHEMA),
    };
    artefact.manifest.check(&policy).map_err(ArtefactError::Refused)?;
    if rustix::fs::statvfs(folder.path()).is_ok_and(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC)) {
        return Err(StageError::NoExec(folder.path().to_owned()));
    }
    begin(&artefact.manifest);

    let slot = state.free();
    if state.installed(slot).is_some() {
        // From here on the slot holds nothing that one could go back to.
        if state.previous == slot {
            state.previous = Slot::Factory;
        }
        state.put(slot, None);
        put(folder, &state)?;
    }
    let manifest = artefact.manifest.clone();
    let installed = Installed {
        version: manifest.version,
        sha256: manifest.sha256,
        size: manifest.size,
        store_schema: manifest.store_schema,
        installed_ms: crate::clock::now_ms(),
    };
    write_executable(folder, slot, artefact, step)?;
    state.factory = Version::own();
    let seconds = u32::try_from(settings.deadline.as_secs()).unwrap_or(u32::MAX);
    state.try_out(slot, installed, settings.tries, seconds);
    put(folder, &state)?;
    Ok(state)
}

fn put(folder: &Folder, state: &State) -> Result<(), StateError> {
    let _lock = folder.lock("state.lock", true)?;
    folder.write(state)
}

fn write_executable(
    folder: &Folder,
    slot: Slot,
    artefact: Artefact<impl Read>,
    step: impl FnMut(u64),
) -> Result<(), StageError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let Some(path) = folder.executable(slot) else { return Err(StageError::NoOther) };
    let new = crate::disk::beside(&path, "new");
    let failed = |path: &PathBuf| {
        let path = path.clone();
        |source| StageError::File { path, source }
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed(&path))?;
    }
    // Never the old file: a daemon or a shim may still run from it.
    let opened = File::options().create(true).truncate(true).write(true).mode(0o755).open(&new);
    let mut file = opened.map_err(failed(&new))?;
    let written = artefact.unpack(&mut file, step).map_err(StageError::Artefact);
    let done = written.and_then(|()| {
        file.sync_all().map_err(failed(&new))?;
        drop(file);
        fs::rename(&new, &path).map_err(failed(&path))?;
        sync_parent(&path).and_then(|()| sync_parent(path.parent().unwrap_or(&path))).map_err(failed(&path))
    });
    if done.is_err() {
        // Half a file would only take space; the error that matters is the first one.
        let _ = fs::remove_file(&new);
    }
    done
}

/// Goes back to the version before.
///
/// # Errors
/// Why not; what is in use then stays in use.
pub fn roll_back(folder: &Folder) -> Result<State, StageError> {
    if !folder.path().exists() {
        return Err(StageError::NoOther);
    }
    let _only = folder.lock("apply.lock", false)?;
    let _lock = folder.lock("state.lock", true)?;
    let Some(mut state) = folder.read()? else { return Err(StageError::NoOther) };
    let (from, to) = (state.current, state.previous);
    if from == to {
        return Err(StageError::NoOther);
    }
    let (knows, schema) = (state.schema(to, crate::store::SCHEMA), state.schema(from, crate::store::SCHEMA));
    if knows < schema && state.phase == Phase::Committed {
        return Err(StageError::Schema { to: state.version(to), knows, from: state.version(from), schema });
    }
    if let (Some(path), Some(installed)) = (folder.executable(to), state.installed(to)) {
        let right = File::open(path).and_then(artefact::digest).is_ok_and(|(digest, _)| digest == installed.sha256);
        if !right {
            return Err(StageError::Damaged(installed.version.clone()));
        }
    }
    state.roll_back("asked for by hand", crate::clock::now_ms());
    folder.write(&state)?;
    Ok(state)
}

/// Packs an executable into an artefact file, whole or not at all.
///
/// # Errors
/// [`StageError::File`].
pub fn pack(
    manifest: &Manifest,
    executable: &[u8],
    key: &super::keys::PrivateKey,
    path: &Path,
) -> Result<(), StageError> {
    let mut bytes = Vec::new();
    let packed = artefact::pack(manifest, executable, key, &mut bytes).and_then(|()| write_atomically(path, &bytes));
    packed.map_err(|source| StageError::File { path: path.to_owned(), source })
}
