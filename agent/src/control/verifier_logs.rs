//! `VerifierLogs`: the whole logs of the verifier that rejected programs last. Statuses have the ends of them. No IO.

use std::{collections::VecDeque, sync::Arc};

/// Logs that are kept. Each has at most a mebibyte.
const MAX_LOGS: usize = 8;

/// One log of each of the BpfPrograms that were rejected last.
#[derive(Debug, Default)]
pub struct VerifierLogs(VecDeque<(String, Arc<str>)>);

impl VerifierLogs {
    /// Records the log of a BpfProgram, in the place of the one before.
    pub fn put(&mut self, program: &str, log: Arc<str>) {
        self.remove(program);
        if self.0.len() == MAX_LOGS {
            self.0.pop_front();
        }
        self.0.push_back((program.to_owned(), log));
    }

    /// Forgets the log of a BpfProgram.
    pub fn remove(&mut self, program: &str) {
        self.0.retain(|(name, _)| name != program);
    }

    /// Returns the log of a BpfProgram.
    pub fn get(&self, program: &str) -> Option<&Arc<str>> {
        self.0.iter().find(|(name, _)| name == program).map(|(_, log)| log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_log_of_the_last_programs_is_kept() {
        let mut logs = VerifierLogs::default();
        logs.put("a", "first".into());
        logs.put("a", "second".into());
        assert_eq!(logs.get("a").map(AsRef::as_ref), Some("second"));
        (0..MAX_LOGS).for_each(|n| logs.put(&n.to_string(), "log".into()));
        assert_eq!(logs.get("a"), None);
        assert!((0..MAX_LOGS).all(|n| logs.get(&n.to_string()).is_some()));
        logs.remove("0");
        assert_eq!(logs.get("0"), None);
    }
}
