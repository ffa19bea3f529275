//! Instructions that the verifier refuses because this node's kernel does not know them.

use sockeye_crds::Reason;

/// Instructions that only newer verifiers know.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnknownInstructions {
    /// Atomic operations other than an addition without a result.
    pub atomic_fetch: bool,
    /// Those of the fourth version of the instruction set.
    pub v4: bool,
}

/// What the verifier says of instructions that are newer than it: `resolve_pseudo_ldimm64`, `check_atomic` since 5.12,
/// and `do_check` of a call whose source register says that it is one of a kernel function.
const NEWER: [(&str, &str); 4] = [
    ("BPF_CALL uses reserved fields", "calls of kernel functions (kfuncs), which Linux has from 5.13 on"),
    ("unknown opcode e5", "may_goto, an instruction that Linux has from 6.9 on"),
    ("BPF_ATOMIC uses invalid atomic opcode 100", "load-acquire instructions, which Linux has from 6.15 on"),
    ("BPF_ATOMIC uses invalid atomic opcode 110", "store-release instructions, which Linux has from 6.15 on"),
];
/// A call of the function that a register points to.
const CALL_BY_POINTER: &str = "unknown opcode 8d";

/// Returns the reason for the verifier's words on an instruction, and a hint. `is_v4` tells whether it may be one of
/// the fourth version of the instruction set.
pub fn refused(words: &str, is_v4: bool, unknown: UnknownInstructions) -> (Reason, String) {
    if words == CALL_BY_POINTER {
        let hint = ": it calls a function through a pointer, as those in a table, which the kernel does not allow: \
                    call each by its name";
        return (Reason::VerifierRejected, hint.to_owned());
    }
    let is_atomic = ["BPF_STX uses reserved fields", "BPF_XADD uses reserved fields"].contains(&words);
    let newer = NEWER.iter().find(|(of, _)| *of == words).map(|(_, what)| *what);
    let hint = match newer {
        Some(what) => format!(": this node's kernel lacks {what}"),
        None if unknown.atomic_fetch && is_atomic => ": this node's kernel lacks atomic operations other than an \
                                                      addition whose result is not used, which Linux has from 5.12 on"
            .to_owned(),
        None if unknown.v4 && is_v4 => ": this node's kernel lacks an instruction that Linux has from 6.6 on: compile \
                                        with -mcpu=v3"
            .to_owned(),
        None => return (Reason::VerifierRejected, String::new()),
    };
    (Reason::KernelUnsupported, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_that_the_verifier_does_not_know_is_the_kernels_lack() {
        use Reason::{KernelUnsupported, VerifierRejected};
        for (words, older, newer, hint) in [
            ("BPF_STX uses reserved fields", KernelUnsupported, VerifierRejected, "from 5.12 on"),
            ("unknown opcode d7", KernelUnsupported, VerifierRejected, "from 6.6 on: compile with -mcpu=v3"),
            ("BPF_CALL uses reserved fields", KernelUnsupported, KernelUnsupported, "from 5.13 on"),
            ("unknown opcode e5", KernelUnsupported, KernelUnsupported, "may_goto"),
            ("BPF_ATOMIC uses invalid atomic opcode 110", KernelUnsupported, KernelUnsupported, "from 6.15 on"),
            ("unknown opcode 8d", VerifierRejected, VerifierRejected, "through a pointer"),
            ("R1 invalid mem access 'scalar'", VerifierRejected, VerifierRejected, ""),
        ] {
            let is_v4 = words == "unknown opcode d7";
            let (reason, said) = refused(words, is_v4, UnknownInstructions { atomic_fetch: true, v4: true });
            assert!(reason == older && said.contains(hint), "{words}: {said}");
            let (reason, _) = refused(words, is_v4, UnknownInstructions::default());
            assert_eq!(reason, newer, "a kernel that knows the others: {words}");
        }
    }
}
