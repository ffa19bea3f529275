//! Resolution of a BpfRevision on this node: selectors become cgroup paths, and names become the kernel's numbers.
//! Pure.
//!
//! The operator has validated the revision. A refusal here names what this agent, which may be older than the operator,
//! or this node's kernel does not support.
//!
//! | file | resolves |
//! |---|---|
//! | this one | the revision as a whole |
//! | `programs` | functions |
//! | `targets` | attach targets |
//! | `maps` | maps |

mod maps;
mod programs;
mod targets;

use sockeye_crds::{BpfRevision, Reason, program::DEFAULT_PRIORITY};

use super::{desired::Desired, node_context::NodeContext, refusal::Refusal};

impl Desired {
    /// Resolves a revision on this node.
    pub fn new(revision: &BpfRevision, node_context: &NodeContext) -> Result<Self, Refusal> {
        check_required_features(revision, node_context)?;
        let spec = &revision.spec;
        Ok(Self {
            program: spec.program.clone(),
            revision: revision.metadata.name.clone().unwrap_or_default(),
            load_key: spec.load_key(),
            digest: spec.digest.clone(),
            functions: programs::resolve(spec, node_context)?,
            maps: maps::resolve(spec, node_context)?,
            attaches_to_maps: spec.programs.iter().flat_map(|program| &program.attach).any(|at| at.map.is_some()),
            globals: spec.globals.clone(),
            settings: spec.maps.clone(),
            priority: spec.priority.unwrap_or(DEFAULT_PRIORITY),
            unordered: spec.priority.is_some() && node_context.missing_features.order,
            suspended: spec.suspend,
        })
    }
}

/// Refuses a revision that requires a feature which this agent does not support.
fn check_required_features(revision: &BpfRevision, node_context: &NodeContext) -> Result<(), Refusal> {
    let unsupported = revision.spec.lacking(&node_context.features);
    if unsupported.is_empty() {
        return Ok(());
    }
    let message = format!(
        "revision {} requires {}, which this node's agent does not support: upgrade the agent",
        revision.metadata.name.as_deref().unwrap_or_default(),
        unsupported.join(", ")
    );
    Err(Refusal { reason: Reason::AgentTooOld, message })
}

#[cfg(test)]
mod tests;
