//! Instances on a real disk, with real locks held by this process and by others.

use std::process::{Command, Stdio};

use jiff::Timestamp;

use super::record::FORMAT;
use super::testing::record;
use super::{Ended, InstanceErrorKind, InstanceId, Instances, RECORDS, Started, State};
use crate::paths::Paths;

fn ended(exit_code: u8) -> Ended {
    Ended {
        format: FORMAT,
        exit_code,
        oom_killed: false,
        error: String::new(),
        finished_at: Timestamp::now(),
    }
}

fn instances() -> (tempfile::TempDir, Instances) {
    let dir = tempfile::tempdir().unwrap();
    let instances = Instances::prepare(&Paths::under(&dir.path().join("home"))).unwrap();
    (dir, instances)
}

#[test]
fn the_state_follows_from_what_is_there() {
    let (_dir, instances) = instances();
    let owned = instances.create(Some("db"), record()).unwrap();
    let seen = instances.find("db").unwrap();
    assert_eq!(seen.state().unwrap(), State::Created);

    let started = Started {
        format: FORMAT,
        started_at: Timestamp::now(),
        boot_ms: 5,
    };
    owned.write(RECORDS.started, &started).unwrap();
    assert!(matches!(seen.state().unwrap(), State::Running { .. }));
    assert!(seen.try_own().unwrap().is_none(), "it has an owner");

    owned.write(RECORDS.exit, &ended(3)).unwrap();
    assert!(matches!(seen.state().unwrap(), State::Exited(e) if e.exit_code == 3));
    drop(owned);

    seen.try_own().unwrap().unwrap().remove().unwrap();
    assert_eq!(
        instances.find("db").unwrap_err().kind(),
        InstanceErrorKind::NotFound
    );
    assert!(instances.leftovers().unwrap().is_empty());
}

#[test]
fn an_owner_that_dies_without_a_word_leaves_a_dead_instance() {
    let (_dir, instances) = instances();
    let (seen, lock) = instances.create(None, record()).unwrap().into_lock();
    // The lock lives in another process, as that of a monitor does, and ends with it.
    let mut child = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::from(lock))
        .spawn()
        .unwrap();
    assert_eq!(seen.state().unwrap(), State::Created);
    let waiting = seen.clone();
    let waiter = std::thread::spawn(move || waiting.wait_for_owner().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    waiter.join().unwrap();
    assert_eq!(seen.state().unwrap(), State::Dead);
}

#[test]
fn names_and_beginnings_of_ids_find() {
    let (_dir, instances) = instances();
    let mut keep = Vec::new();
    for (id, name) in [("aa1", "one"), ("aa2", "two"), ("b", "aa1")] {
        let mut record = record();
        record.id = InstanceId::parse(&format!("{id:0<64}")).unwrap();
        keep.push(instances.create(Some(name), record).unwrap());
    }
    let found = |wanted: &str| instances.find(wanted).map(|i| i.record().name.clone());
    assert_eq!(found("one").unwrap(), "one");
    assert_eq!(found("aa1").unwrap(), "aa1", "a name goes before an id");
    assert_eq!(found("aa10").unwrap(), "one");
    assert_eq!(found("b").unwrap(), "aa1");
    for (wanted, kind) in [
        ("aa", InstanceErrorKind::Ambiguous),
        ("c", InstanceErrorKind::NotFound),
        ("", InstanceErrorKind::NotFound),
        ("../one", InstanceErrorKind::NotFound),
    ] {
        assert_eq!(instances.find(wanted).unwrap_err().kind(), kind, "{wanted}");
    }
    assert_eq!(instances.list().unwrap().0.len(), 3);
}

#[test]
fn a_name_is_given_once_even_when_many_ask() {
    let (_dir, instances) = instances();
    let won: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| instances.create(Some("only"), record())))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = won.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for error in lost {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), InstanceErrorKind::NameTaken);
        assert!(error.to_string().contains("firebuild rm only"), "{error}");
    }
}

#[test]
fn what_is_half_made_is_left_over_only_when_nobody_holds_it() {
    let (_dir, instances) = instances();
    let aside = instances.dir().join(".tmp-123");
    fs_err::create_dir(&aside).unwrap();
    assert_eq!(instances.leftovers().unwrap(), [aside]);
}

#[test]
fn a_damaged_record_hides_no_other() {
    let (_dir, instances) = instances();
    let _owned = instances.create(Some("good"), record()).unwrap();
    let bad = instances.dir().join("e".repeat(64));
    fs_err::create_dir(&bad).unwrap();
    fs_err::write(bad.join("record.json"), "{").unwrap();
    let (good, broken) = instances.list().unwrap();
    assert_eq!((good.len(), broken.len()), (1, 1));
    assert_eq!(broken[0].kind(), InstanceErrorKind::Corrupt);
}
