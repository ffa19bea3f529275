//! Resolution of a BpfRevision on this node: selectors become cgroup paths, and names become the kernel's numbers.
//! Pure.
//!
//! The operator has validated the revision. A refusal here names what this agent, which may be older than the operator,
//! or this node's kernel does not support.
//!
//! | file | resolves |
//! |---|---|
//! | this one | the revision as a whole |
//! | `inputs` | nothing: the inputs of the others |
//! | `programs` | functions |
//! | `targets` | attach targets |
//! | `maps` | maps |
//! | `regressions` | nothing: refuses what would trigger a regression of this kernel |
//! | `kept_pods` | pods that keepers select or go on selecting |

mod inputs;
mod kept_pods;
mod maps;
mod programs;
mod regressions;
mod targets;

use sockeye_crds::{
    BpfRevision, BpfRevisionSpec, Reason, RevisionTemplate,
    names::{is_dns_label, list, printable},
    program::DEFAULT_PRIORITY,
    provenance::Origin,
};

use self::inputs::Inputs;
use super::{
    architecture::ARCHITECTURE, desired::Desired, node_context::NodeContext, observed::Observed, refusal::Refusal,
};

impl Desired {
    /// Resolves a revision on this node. `observed` says which pods its targets have selected before.
    pub fn new(revision: &BpfRevision, node_context: &NodeContext, observed: &Observed) -> Result<Self, Refusal> {
        check_required_features(revision, node_context)?;
        let spec = &revision.spec;
        check_name(spec)?;
        let template = &spec.template;
        check_architecture(template)?;
        let inputs = Inputs { spec, node_context, observed };
        let (functions, maps) = (programs::resolve(&inputs)?, maps::resolve(spec, node_context)?);
        regressions::check(template, &functions, &maps, node_context)?;
        Ok(Self {
            program: spec.program_ref.clone(),
            revision: revision.metadata.name.clone().unwrap_or_default(),
            load_key: template.load_key(),
            digest: template.digest.clone(),
            origin: Origin { image: template.image.clone(), proof: template.proof.clone(), ..Origin::default() },
            functions,
            maps,
            kept_pods: kept_pods::resolve(&inputs),
            attaches_to_maps: template.targets().any(|target| target.map().is_some()),
            globals: template.globals.clone(),
            settings: template.maps.clone(),
            priority: template.priority.unwrap_or(DEFAULT_PRIORITY),
            unordered: template.priority.is_some() && node_context.missing_features.order,
            suspended: template.suspend,
            force_detach: template.force_detach,
        })
    }
}

/// Refuses a revision that requires a feature which this agent does not support.
fn check_required_features(revision: &BpfRevision, node_context: &NodeContext) -> Result<(), Refusal> {
    let unsupported = revision.spec.template.lacking(&node_context.features);
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

/// Refuses a revision that has objects for other architectures only.
fn check_architecture(template: &RevisionTemplate) -> Result<(), Refusal> {
    if template.variants.is_empty() {
        return Ok(());
    }
    let others: Vec<&str> = template.variants.iter().map(|variant| variant.architecture.as_str()).collect();
    let message = format!(
        "the image has no object for {ARCHITECTURE}, which this node is; it has some for {}: push one for \
         {ARCHITECTURE}, or select other nodes by spec.nodeSelector",
        list(&others, 8)
    );
    Err(Refusal { reason: Reason::ArchitectureMissing, message })
}

/// Refuses a revision of a BpfProgram whose name must not become part of a path.
fn check_name(BpfRevisionSpec { program_ref, .. }: &BpfRevisionSpec) -> Result<(), Refusal> {
    if is_dns_label(&program_ref.name) {
        return Ok(());
    }
    let message = format!(
        "programRef.name {} is no DNS label, and it names a directory: use letters, digits and -",
        printable(&program_ref.name)
    );
    Err(Refusal { reason: Reason::InvalidSpec, message })
}

#[cfg(test)]
mod tests;
