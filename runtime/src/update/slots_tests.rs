//! Transitions as tables, and the file that keeps them.

use proptest::prelude::*;

use super::*;

fn installed(version: &str) -> Installed {
    let sha256 = "0".repeat(64);
    Installed { version: version.parse().unwrap(), sha256, size: 1, store_schema: 2, installed_ms: 0 }
}

fn state() -> State {
    State::new("1.0.0".parse().unwrap())
}

#[test]
fn slots_alternate_and_what_proved_itself_is_come_back_to() {
    let mut s = state();
    s.try_out(s.free(), installed("1.1.0"), 3, 60);
    assert_eq!((s.current, s.previous, s.phase, s.free()), (Slot::A, Slot::Factory, Phase::Trial, Slot::B));
    s.commit("", 1);
    s.try_out(s.free(), installed("1.2.0"), 3, 60);
    assert_eq!((s.current, s.previous), (Slot::B, Slot::A));
}

#[test]
fn a_failed_trial_is_left_for_good_and_a_change_by_hand_is_not() {
    let mut s = state();
    s.try_out(Slot::A, installed("1.1.0"), 3, 60);
    s.store_kept = true;
    s.roll_back("unwell", 5);
    let last = s.last.clone().unwrap();
    assert_eq!((s.current, s.previous, s.phase), (Slot::Factory, Slot::Factory, Phase::Committed));
    assert_eq!((last.ending, last.from.to_string(), last.to.to_string()), {
        (Ending::RolledBack, "1.1.0".into(), "1.0.0".into())
    });
    assert!(s.store_restore && !s.store_kept && !last.told);

    let mut s = state();
    s.try_out(Slot::A, installed("1.1.0"), 3, 60);
    s.commit("", 1);
    s.roll_back("by hand", 2);
    assert_eq!((s.current, s.previous), (Slot::Factory, Slot::A));
}

#[test]
fn the_file_is_there_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::below(dir.path());
    assert_eq!(folder.read().unwrap(), None);
    folder.create().unwrap();
    let mut s = state();
    s.try_out(Slot::A, installed("1.1.0"), 3, 60);
    folder.write(&s).unwrap();
    assert_eq!(folder.read().unwrap(), Some(s.clone()));
    let tries = folder.change(|s| {
        s.tries_left -= 1;
        Some(s.tries_left)
    });
    assert_eq!(tries.unwrap(), Some(2));
    let held = folder.lock("state.lock", false).unwrap();
    assert!(matches!(folder.lock("state.lock", false), Err(StateError::Busy(_))));
    drop(held);
    for text in ["", "{", "[]", "{\"format\": 1}"] {
        std::fs::write(folder.path().join("state.json"), text).unwrap();
        assert!(matches!(folder.read(), Err(StateError::Damaged { .. })), "{text}");
    }
    s.a = None;
    folder.write(&s).unwrap();
    assert!(folder.read().unwrap_err().to_string().contains("empty"));
}

proptest! {
    #[test]
    fn garbage_is_damage_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
    }
}
