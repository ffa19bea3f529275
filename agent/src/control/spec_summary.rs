//! `SpecSummary`: the parts of a revision that every pass reads. Values.

use sockeye_crds::{BpfRevision, program::DEFAULT_PRIORITY, target::PodsTarget};

use crate::model::pods::RequiredInputs;

/// The parts of a revision that every pass reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SpecSummary {
    /// What must be known of pods.
    pub required: RequiredInputs,
    /// The priority.
    pub priority: Option<i64>,
    /// A map is to be another BpfProgram's.
    pub shares: bool,
    /// Container starts wait for it.
    pub strict: bool,
}

impl SpecSummary {
    /// Returns the summary of a revision.
    pub fn of(revision: &BpfRevision) -> Self {
        let template = &revision.spec.template;
        // Where it is suspended, it has no targets.
        let targets = || template.targets().filter(|_| !template.suspend);
        Self {
            required: RequiredInputs::of(targets()),
            priority: Some(template.priority.unwrap_or(DEFAULT_PRIORITY)),
            shares: template.map_refs().next().is_some(),
            strict: template.pods_targets().any(PodsTarget::is_strict),
        }
    }
}
