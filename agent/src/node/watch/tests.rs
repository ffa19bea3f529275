//! Tests of `Watch`, on real inotify.

use std::{cell::Cell, fs, io, path::Path, sync::Once};

use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};

use super::*;

fn of_home(directory: &Path) -> [(PathBuf, String); 1] {
    [(directory.to_owned(), "home".to_owned())]
}

fn error() -> SysError {
    SysError { call: "read of inotify".into(), source: io::ErrorKind::Other.into() }
}

fn homes(names: &[&str]) -> Change {
    Change::Homes(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test]
async fn a_removed_pin_changes_its_home() {
    let made = tempfile::tempdir().unwrap();
    let pin = made.path().join("pin");
    fs::write(&pin, "").unwrap();
    let (mut watch, mut happenings) = Watch::new();
    assert!(watch.cover(of_home(made.path())) && !watch.is_blind());
    assert!(!watch.cover(of_home(made.path())), "it is watched already");
    fs::remove_file(&pin).unwrap();
    let happened = happenings.next().await.unwrap();
    assert_eq!(watch.changed(happened), homes(&["home"]));
}

#[tokio::test]
async fn a_directory_that_was_replaced_is_covered_again() {
    let made = tempfile::tempdir().unwrap();
    let directory = made.path().join("links");
    fs::create_dir(&directory).unwrap();
    let (mut watch, mut happenings) = Watch::new();
    watch.cover(of_home(&directory));
    fs::remove_dir(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    let happened = happenings.next().await.unwrap();
    assert_eq!(watch.changed(happened), homes(&["home"]));
    assert!(watch.cover(of_home(&directory)));
    fs::write(directory.join("pin"), "").unwrap();
    let happened = happenings.next().await.unwrap();
    assert_eq!(watch.changed(happened), homes(&["home"]));
}

#[test]
fn after_lost_events_all_directories_are_covered_again() {
    let made = tempfile::tempdir().unwrap();
    let (mut watch, _happenings) = Watch::new();
    watch.cover(of_home(made.path()));
    assert_eq!(watch.changed([Happened::Lost]), Change::Anything);
    assert!(watch.cover(of_home(made.path())));
    assert_eq!(watch.changed([Happened::Within(1)]), homes(&["home"]), "inotify numbers directories from 1 on");
    assert_eq!(watch.changed([Happened::Within(99)]), homes(&[]));
}

#[test]
fn a_refused_directory_makes_the_watch_blind_until_it_is_covered() {
    let made = tempfile::tempdir().unwrap();
    let directory = made.path().join("links");
    let (mut watch, _happenings) = Watch::new();
    assert!(!watch.cover(of_home(&directory)) && !watch.is_blind(), "nothing happens in what does not exist");
    // inotify is asked to watch directories only.
    fs::write(&directory, "").unwrap();
    assert!(!watch.cover(of_home(&directory)) && watch.is_blind());
    fs::remove_file(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    assert!(watch.cover(of_home(&directory)) && !watch.is_blind());
}

#[test]
fn a_refused_directory_that_is_no_longer_needed_blinds_nobody() {
    let (file, directory) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
    let (mut watch, _happenings) = Watch::new();
    watch.cover(of_home(file.path()));
    assert!(watch.is_blind());
    watch.cover([(directory.path().to_owned(), "another".to_owned())]);
    assert!(watch.is_blind(), "its home still needs it");
    watch.cover(of_home(directory.path()));
    assert!(!watch.is_blind());
}

#[test]
fn a_failed_watch_is_blind_until_it_is_renewed_and_covers() {
    let made = tempfile::tempdir().unwrap();
    let (mut watch, _happenings) = Watch::new();
    watch.cover(of_home(made.path()));
    watch.fail(&error());
    assert!(watch.is_broken() && watch.is_blind());
    assert!(!watch.cover(of_home(made.path())) && watch.is_blind());
    let _happenings = watch.renew();
    assert!(!watch.is_broken() && watch.is_blind(), "nothing is watched yet");
    assert!(watch.cover(of_home(made.path())) && !watch.is_blind());
}

#[test]
fn a_watch_without_inotify_is_blind() {
    let (mut watch, _happenings) = Watch::with(|| Err(error()));
    assert!(watch.is_broken() && watch.is_blind());
    let _happenings = watch.renew();
    assert!(watch.is_broken() && watch.is_blind());
}

thread_local! {
    /// The warnings that this thread logged.
    static WARNINGS: Cell<usize> = const { Cell::new(0) };
}

/// Counts warnings by the threads that log them. It is the whole process's: whether anybody wants what a line logs is
/// decided once for all threads, and a thread's own subscriber may come too late for that.
struct WarningCounter;

impl Subscriber for WarningCounter {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if *event.metadata().level() == Level::WARN {
            WARNINGS.set(WARNINGS.get() + 1);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Returns the number of warnings while `work` runs.
fn warnings(work: impl FnOnce()) -> usize {
    static COUNTER: Once = Once::new();
    COUNTER.call_once(|| tracing::subscriber::set_global_default(WarningCounter).unwrap());
    let before = WARNINGS.get();
    work();
    WARNINGS.get() - before
}

#[test]
fn a_refused_directory_is_logged_once_until_it_is_covered() {
    let made = tempfile::tempdir().unwrap();
    let directory = made.path().join("links");
    let logged = warnings(|| {
        let (mut watch, _happenings) = Watch::new();
        for _ in 0..2 {
            fs::write(&directory, "").unwrap();
            for _ in 0..3 {
                watch.cover(of_home(&directory));
            }
            fs::remove_file(&directory).unwrap();
            fs::create_dir(&directory).unwrap();
            watch.cover(of_home(&directory));
            fs::remove_dir(&directory).unwrap();
            watch.changed([Happened::Gone(1), Happened::Gone(2)]);
        }
    });
    assert_eq!(logged, 2);
}

#[test]
fn a_missing_inotify_is_logged_once() {
    let logged = warnings(|| {
        let (mut watch, _happenings) = Watch::with(|| Err(error()));
        watch.renew();
        watch.renew();
    });
    assert_eq!(logged, 1);
}
