//! Layers, archives and documents made by chance.

use proptest::prelude::*;

use super::*;

fn hostile_name() -> impl Strategy<Value = String> {
    let part =
        prop::sample::select(vec!["a", "b", "c", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh.", "witness"]);
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    /// Whatever files, folders, links and whiteouts a layer is made of, in whatever order, nothing outside changes.
    #[test]
    fn no_sequence_of_entries_gets_out(entries in prop::collection::vec((0..5u8, hostile_name(), hostile_name(), any::<bool>()), 1..25)) {
        let place = Place::new();
        let mut number = 0;
        let mut lowers: Vec<String> = Vec::new();
        let mut tar = Tar::default();
        for (kind, path, link, split) in &entries {
            tar = match kind {
                0 => tar.file(path, "x"),
                1 => tar.dir(path, 0o755),
                2 | 3 => tar.symlink(path, link),
                _ => tar.hard_link(path, link),
            };
            if *split {
                // What is refused leaves a layer that is thrown away; what is not is a layer under the next.
                let name = format!("layer{number}");
                let below: Vec<&str> = lowers.iter().map(String::as_str).collect();
                if place.unpack(std::mem::take(&mut tar), &name, &below).is_ok() {
                    lowers.push(name);
                }
                number += 1;
                place.check_outside();
            }
        }
        let below: Vec<&str> = lowers.iter().map(String::as_str).collect();
        let _ = place.unpack(tar, "layer-last", &below);
        place.check_outside();
    }

    /// Garbage is an error, never a panic, and never more memory than the limits.
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..3000), magic in 0..4usize) {
        let magic: &[u8] = [&[][..], &[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd], &[0x50, 0x2a, 0x4d, 0x18]][magic];
        let bytes = [magic, &bytes].concat();
        if let Ok(decoder) = Decoder::new(Cursor::new(&bytes)) {
            let mut archive = Reader::new(decoder.take(1 << 20));
            while let Ok(Some(_)) = archive.next() {}
        }
        let _ = Document::parse(&bytes, "garbage");
        let _ = manifest::ConfigFile::parse(&bytes, "garbage");
        let _ = String::from_utf8_lossy(&bytes).parse::<Reference>();
    }

    /// A flipped bit anywhere in an archive is refused, or it is still the archive it says it is.
    #[test]
    fn a_flipped_bit_is_found(at in 0..4096usize, bit in 0..8u8, kind in 0..3usize) {
        let place = Place::new();
        let tar = Tar::default().dir("d", 0o755).file("d/a", "text").symlink("d/l", "a").pax(&[("SCHILY.xattr.user.a", b"b")]).file("z", "");
        let bytes = tar.end();
        let mut stored = [bytes.clone(), gzip(&bytes), zstd(&bytes)][kind].clone();
        let at = at % stored.len();
        let job = Job { digest: Some(Digest::of(&stored)), ..place.job(&bytes, &stored, &[]) };
        stored[at] ^= 1 << bit;
        fs::write(place.dir.path().join("blob"), &stored).unwrap();
        prop_assert!(unpack(&job, &place.layer("layer")).is_err());
    }
}
