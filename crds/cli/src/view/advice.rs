//! The remedy for a reason, in one line that names this command line's own verbs. docs/reasons.md has it at length.

use sockeye_crds::Reason;

/// Returns what to do about a reason, or None where there is nothing to do.
pub const fn advice(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Dispatched | Reason::InEffect => return None,
        Reason::Pending => "wait; if it stays, see whether the operator runs: kubectl -n sockeye-system get pods",
        Reason::InvalidObject => "correct the source, or build the object anew; sockeye inspect FILE checks it",
        Reason::ProgramNotFound | Reason::MapNotFound => {
            "name one that the object holds: sockeye inspect FILE lists them"
        }
        Reason::TypeMismatch => "remove spec.programs[].type, or correct SEC(...) in the source",
        Reason::Unsupported | Reason::InvalidSpec => "correct the field that the message names",
        Reason::MapNotShared => "set sharing: Shared on that map, in the BpfProgram that owns it",
        Reason::DigestMismatch => {
            "set the digest that sockeye digest FILE prints, or put those bytes into the ConfigMap"
        }
        Reason::BytecodeUnavailable => "create the ConfigMap and key that the message names; the operator notices",
        Reason::ImagePulling => "wait",
        Reason::ImagePullFailed => {
            "see that the registry has the image and takes the pull secret; any edit tries again"
        }
        Reason::InvalidImage => "push the image anew: sockeye push FILE IMAGE",
        Reason::SignatureRequired => "sign the image or the bytes, or have the policy's rule changed",
        Reason::SourceDenied => "use another source, or have the policy's rule changed",
        Reason::DispatchFailed => "see the message: the API server refused to store the bytes or the revision",
        Reason::NotDispatched => "wait, or see the condition Accepted",
        Reason::NoNodeSelected => "label a node, or change spec.nodeSelector",
        Reason::NoPodSelected => "nothing, if the pods are still to come; or correct the selectors in attach[].pods",
        Reason::NoReadyNodes => "look at the nodes and at the agents' pods: kubectl get nodes",
        Reason::Progressing => "wait; sockeye describe shows which nodes have not reported yet",
        Reason::VerifierRejected => "correct the program by the verifier's log, which is above",
        Reason::MapCreateFailed | Reason::LoadFailed => "see the message, which has the kernel's answer",
        Reason::MapBytesExceeded => "lower maps[].maxEntries, or have the chart's policy raised",
        Reason::MapIncompatible => "rename the map, or set onIncompatible: Recreate, which loses its content",
        Reason::EntriesNotInStep => "see the message: make room in the map, or stop whoever else writes it",
        Reason::SharedMapNotFound => "have the other BpfProgram run on that node; the agent notices",
        Reason::AttachFailed => "remove the attachment that the message names, or free a place in the cgroup",
        Reason::CgroupNotFound => "create the cgroup, or correct cgroupPath",
        Reason::PodCgroupNotFound => "see docs/pods.md: the container runtime puts the pod's processes elsewhere",
        Reason::BpffsUnusable => "mount bpffs on the node: mount -t bpf bpf /sys/fs/bpf; the agent notices",
        Reason::OlderLayout => "run the command that the message names on the node",
        Reason::PermissionDenied => "install the chart as it is: the agent lacks a capability",
        Reason::InputsUnavailable => {
            "see the message; for pods set the chart's agent.podTargets, or pass --pods to an agent without a cluster"
        }
        Reason::KernelUnsupported => {
            "leave such nodes out by spec.nodeSelector; sockeye inspect FILE shows which could run it"
        }
        Reason::AgentTooOld => "upgrade the agents",
        Reason::NotInEffect => "the agent tries again; drift shows who changed something",
        Reason::VerificationFailed => "see the message: this node's own policy accepts no signature of the object",
        Reason::ArchitectureMissing => {
            "push an image for that architecture, or leave such nodes out by spec.nodeSelector"
        }
        Reason::NodeNotReady => "look at the node and at its agent's pod",
        Reason::AgentMissing => "look at the DaemonSet sockeye-agent: why has it no pod on that node?",
        Reason::Suspended => {
            "set spec.suspend: false, delete the ConfigMap sockeye-suspend, or run attach --all on the node"
        }
        Reason::ConnectivityLost => "correct the program, which cut the node off; the next revision is tried anew",
        Reason::NRINotConnected => "enable NRI in the node's container runtime, or use startPolicy: Immediate",
        Reason::Deleting => "wait, or look at the nodes that still hold it",
        Reason::InUse => "delete the BpfPrograms that use its maps, or remove their mapRef",
        Reason::Other => "see the message; this sockeye is older than what reports it: upgrade it",
    })
}
