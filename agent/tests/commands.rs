//! The agent's commands where there is nothing for them: what they answer, and how they log it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// The commands that take `--bpffs` and end by themselves where it is wrong.
const COMMANDS: [&[&str]; 4] = [&["audit", "web"], &["detach", "--all"], &["attach", "--all"], &["remove-older-pins"]];

fn run(command: &[&str], bpffs: &Path, format: &str) -> Output {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_sockeye-agent"));
    agent.env_remove("RUST_LOG").env("SOCKEYE_LOG_FORMAT", format);
    agent.args(command).arg("--bpffs").arg(bpffs).output().unwrap()
}

#[test]
fn a_path_that_is_no_bpffs_is_an_error_that_names_it_and_changes_nothing() {
    let made = tempfile::tempdir().unwrap();
    for path in [made.path().to_owned(), made.path().join("missing")] {
        for command in COMMANDS {
            let done = run(command, &path, "text");
            let log = String::from_utf8(done.stderr).unwrap();
            assert!(!done.status.success() && done.stdout.is_empty(), "{command:?}: {log}");
            for part in [&*format!("there is no bpffs at {}:", path.display()), "set --bpffs"] {
                assert!(log.contains(part), "{command:?}: {log}");
            }
        }
    }
    assert_eq!(fs::read_dir(made.path()).unwrap().count(), 0, "a command made something there");
    let file = made.path().join("file");
    fs::write(&file, "").unwrap();
    for command in COMMANDS {
        let log = String::from_utf8(run(command, &file, "text").stderr).unwrap();
        assert!(log.contains(&format!("the path of --bpffs, {}, can't be used", file.display())), "{command:?}: {log}");
    }
}

#[test]
fn errors_are_logged_in_the_format_that_is_set() {
    let made = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let log = String::from_utf8(run(command, made.path(), "json").stderr).unwrap();
        let messages: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = messages.last().unwrap();
        assert_eq!(last["level"], "ERROR", "{log}");
        assert!(last["fields"]["message"].as_str().unwrap().contains("set --bpffs"), "{log}");
    }
}
