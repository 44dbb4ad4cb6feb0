//! Artefacts that are right, and every way in which one can be wrong.

use proptest::prelude::*;

use super::*;
use crate::update::keys;
use crate::update::manifest::{Facts, own_target};

/// Bytes that begin as an executable of this machine does.
fn executable() -> Vec<u8> {
    let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    bytes.extend([machine, 0]);
    bytes.extend((0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()));
    bytes
}

fn key() -> (PrivateKey, PublicKey) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let (private, public) = keys::generate().unwrap();
    std::fs::write(&path, private).unwrap();
    (PrivateKey::read(&path).unwrap(), public)
}

fn packed(executable: &[u8], key: &PrivateKey) -> Vec<u8> {
    let (sha256, size) = digest(executable).unwrap();
    let manifest = Manifest::new(Facts {
        version: "1.0.0".parse().unwrap(),
        target: own_target().to_owned(),
        size,
        sha256,
        store_schema: 2,
        minimum_version: None,
    });
    let mut bytes = Vec::new();
    pack(&manifest, executable, key, &mut bytes).unwrap();
    bytes
}

fn unpacked(bytes: &[u8], keys: &[PublicKey]) -> Result<Vec<u8>, ArtefactError> {
    let mut to = Vec::new();
    Artefact::open(bytes, keys)?.unpack(&mut to, |_| {})?;
    Ok(to)
}

#[test]
fn what_is_packed_is_unpacked_by_those_who_trust_the_key() {
    let ((private, public), other) = (key(), key().1);
    let bytes = packed(&executable(), &private);
    assert_eq!(unpacked(&bytes, &[other.clone(), public.clone()]).unwrap(), executable());
    assert!(matches!(unpacked(&bytes, &[other]), Err(ArtefactError::Signature(1))));
    assert!(matches!(unpacked(&bytes, &[]), Err(ArtefactError::NoKeys)));
    let script = packed(b"#!/bin/sh\n", &private);
    assert!(matches!(unpacked(&script, &[public]), Err(ArtefactError::Processor(_))));
}

/// The members can be looked at with tar, and the signature checked without us.
#[test]
fn it_is_a_tar_file_for_others() {
    let bytes = packed(&executable(), &key().0);
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names: Vec<String> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names, MEMBERS);
}

#[test]
fn an_executable_that_is_not_the_signed_one_is_refused() {
    let (private, public) = key();
    let mut other = executable();
    other[5000] ^= 1;
    let (signed, forged) = (packed(&executable(), &private), packed(&other, &private));
    let head = Artefact::open(signed.as_slice(), std::slice::from_ref(&public)).unwrap().reader;
    let length = signed.len() - head.len() - BLOCK;
    // The signed manifest before another executable.
    let mixed = [&signed[..length], &forged[length..]].concat();
    assert!(matches!(unpacked(&mixed, &[public]), Err(ArtefactError::Digest)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn cut_anywhere_it_is_refused(share in 0.0..1.0_f64) {
        let (private, public) = key();
        let bytes = packed(&executable(), &private);
        // The padding and the two blocks at the end carry nothing.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let end = ((bytes.len() - 3 * BLOCK) as f64 * share) as usize;
        prop_assert!(unpacked(&bytes[..end], &[public]).is_err());
    }

    #[test]
    fn a_flipped_bit_changes_nothing_or_is_refused(share in 0.0..1.0_f64, bit in 0..8_u32) {
        let (private, public) = key();
        let mut bytes = packed(&executable(), &private);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (bytes.len() as f64 * share) as usize;
        bytes[at] ^= 1 << bit;
        if let Ok(out) = unpacked(&bytes, &[public]) {
            prop_assert_eq!(out, executable());
        }
    }

    #[test]
    fn garbage_is_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), named in any::<bool>()) {
        if named && bytes.len() >= BLOCK {
            let header = make_header(MEMBERS[0], bytes.len() % 2000);
            bytes[..BLOCK].copy_from_slice(&header);
        }
        prop_assert!(unpacked(&bytes, &[key().1]).is_err());
    }
}
