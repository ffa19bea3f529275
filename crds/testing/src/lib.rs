//! The record of the reasons and messages that tests provoke. `docs/reasons.md` is made of it
//! (`tests/lint/reasons.py`), so that it shows what users see.

use std::{env, fs::OpenOptions, io::Write as _, panic::Location};

use serde::Serialize;
use serde_json::json;

/// The variable that names the file to which a run of tests adds what it provokes. Unset, nothing is recorded.
const RECORD: &str = "SOCKEYE_REASONS";

/// Records a reason and the message that a user would see with it.
///
/// # Panics
///
/// If there is no message, or if the record can't be written.
#[track_caller]
pub fn provoked(reason: impl Serialize, message: &str) {
    let reason = json!(reason);
    assert!(reason.is_string() && !message.is_empty(), "{reason} without a message");
    let Some(record) = env::var_os(RECORD) else { return };
    let line = format!("{}\n", json!({"reason": reason, "file": Location::caller().file(), "message": message}));
    // One call, so that tests which run at the same time don't write into each other's lines.
    let written =
        OpenOptions::new().create(true).append(true).open(&record).and_then(|mut file| file.write_all(line.as_bytes()));
    assert!(written.is_ok(), "can't write to {}: {written:?}", record.display());
}
