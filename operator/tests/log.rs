//! The log of the operator's process.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use serde_json::Value;

/// Runs the operator where there is no API server, and returns what it logs.
fn failing(arguments: &str) -> String {
    let mut operator = Command::new(env!("CARGO_BIN_EXE_sockeye-operator"));
    operator.args(arguments.split(' ')).env_clear().env("KUBECONFIG", "/nonexistent");
    let done = operator.output().unwrap();
    assert!(!done.status.success() && done.stdout.is_empty(), "{arguments}: {done:?}");
    String::from_utf8(done.stderr).unwrap()
}

#[test]
fn errors_are_logged_in_the_format_that_is_set() {
    for arguments in ["--namespace sockeye-system", "crds", "uninstall"] {
        let text = failing(arguments);
        assert!(text.contains(" ERROR sockeye_operator: finding out how to reach the API server"), "{text}");
        let json = failing(&format!("{arguments} --log-format json"));
        let messages: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = messages.last().unwrap();
        assert_eq!(last["level"], "ERROR", "{json}");
        assert!(last["fields"]["message"].as_str().unwrap().contains("how to reach the API server"), "{json}");
    }
}
