//! `Trial`: a revision that may cut this node's agent or kubelet off from the API server, and what its trial has shown
//! so far. Values.

/// The connectivity trial of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The revision.
    pub revision: String,
    /// The state of its trial.
    pub state: TrialState,
}

/// The state of a trial. The table in `control/connectivity` gives the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialState {
    /// The revision was attached recently: not decided yet.
    Open,
    /// The API server became unreachable and the revision was reverted; not known yet whether that restored the
    /// connection.
    Suspected,
    /// The kubelet no longer renewed the node's Lease and the revision was reverted; not known yet whether that let the
    /// kubelet renew it.
    SuspectedByLease,
    /// The connection, or the kubelet, came back too long after the revert to blame the revision: the agent is to
    /// attach it again.
    Reprieved,
    /// The revision was attached again after a reprieve: not decided yet.
    Reopened,
    /// The API server was reached with the revision attached, and the kubelet renewed the Lease.
    Passed,
    /// The API server was reached with the revision attached. No Lease said anything about the kubelet.
    PassedWithoutLease,
    /// The revision cut the node off and was reverted. It is not attached again.
    Reverted,
    /// The revision kept the kubelet from renewing the Lease and was reverted. It is not attached again.
    RevertedByLease,
}

impl TrialState {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Open,
        Self::Suspected,
        Self::SuspectedByLease,
        Self::Reprieved,
        Self::Reopened,
        Self::Passed,
        Self::PassedWithoutLease,
        Self::Reverted,
        Self::RevertedByLease,
    ];

    /// Returns whether the revision is attached and on trial.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Reopened)
    }

    /// Returns whether the revision was reverted, and it is not known yet whether it is to blame.
    pub const fn is_suspected(self) -> bool {
        matches!(self, Self::Suspected | Self::SuspectedByLease)
    }

    /// Returns whether the trial waits for the next probes of the API server.
    pub const fn is_undecided(self) -> bool {
        self.is_open() || self.is_suspected()
    }

    /// Returns whether the trial is over and the revision stays attached.
    pub const fn has_passed(self) -> bool {
        matches!(self, Self::Passed | Self::PassedWithoutLease)
    }

    /// Returns whether the revision was reverted and is not attached now.
    pub const fn is_reverted(self) -> bool {
        self.is_suspected() || matches!(self, Self::Reprieved | Self::Reverted | Self::RevertedByLease)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Suspected => "suspected",
            Self::SuspectedByLease => "suspected-by-lease",
            Self::Reprieved => "reprieved",
            Self::Reopened => "reopened",
            Self::Passed => "passed",
            Self::PassedWithoutLease => "passed-without-lease",
            Self::Reverted => "reverted",
            Self::RevertedByLease => "reverted-by-lease",
        }
    }
}

impl Trial {
    /// Formats the trial as the note on bpffs, `STATE.REVISION`: the name of a revision holds no dot.
    pub fn note(&self) -> String {
        format!("{}.{}", self.state.word(), self.revision)
    }

    /// Parses a note; `None` if its state is unknown, as one from a newer agent may be.
    pub fn parse(note: &str) -> Option<Self> {
        let (word, revision) = note.split_once('.')?;
        let state = TrialState::ALL.into_iter().find(|state| state.word() == word)?;
        Some(Self { revision: revision.to_owned(), state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_parses_to_the_trial_it_was_formatted_from() {
        for state in TrialState::ALL {
            let trial = Trial { revision: "guard-7c9f2".to_owned(), state };
            assert_eq!(Trial::parse(&trial.note()), Some(trial));
        }
        assert_eq!(Trial::parse("pardoned.guard-7c9f2"), None, "a newer agent's word");
    }
}
