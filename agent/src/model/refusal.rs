//! `Refusal`: the reason why a revision can't run on this node. Values.

use sockeye_crds::Reason;
pub use sockeye_crds::Refusal;

/// Refuses something that this agent does not support.
pub fn unsupported(message: String) -> Refusal {
    Refusal { reason: Reason::Unsupported, message }
}

/// Refuses something that this node's kernel lacks. The kernel's own answer would be EINVAL, which names nothing.
pub fn kernel_unsupported(subject: &str, feature: &str, (major, minor): (u16, u16)) -> Refusal {
    let message = format!(
        "{subject}: this node's kernel lacks {feature}, which Linux has from {major}.{minor} on, if configured: set \
         spec.nodeSelector to select nodes that have it (status.node.features of their BpfNodes)"
    );
    Refusal { reason: Reason::KernelUnsupported, message }
}
