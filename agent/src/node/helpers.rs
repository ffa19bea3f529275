//! The helpers that programs may call from some Linux on: the verifier refuses the call on older kernels, by a message
//! that does not tell a kernel that is too old from a program of the wrong type.

use crate::model::kernel::ProgramKind;

/// The helpers that read the kernel's memory, which no program may call under `lockdown=confidentiality`: probe_read,
/// probe_read_str, probe_read_kernel, probe_read_kernel_str.
pub const READ_KERNEL: [u32; 4] = [4, 45, 113, 115];

/// A kernel release.
pub type Release = (u16, u16);

/// Some helpers, and the first of the tested kernels that lets programs of some kinds call them.
#[derive(Debug)]
pub struct Row {
    /// The first of the tested kernels that has them.
    pub seen: Release,
    /// The kinds of programs.
    pub kinds: &'static [Kinds],
    /// Their numbers (`enum bpf_func_id`) and names, without `bpf_`.
    pub helpers: &'static [(u32, &'static str)],
}

/// Some kinds of programs.
#[derive(Clone, Copy, Debug)]
pub enum Kinds {
    /// All that sockeye runs.
    All,
    /// Those of one program type (`enum bpf_prog_type`).
    Of(u32),
    /// Those of one program type and some attach types (`enum bpf_attach_type`).
    At(u32, &'static [u32]),
}

impl Kinds {
    /// Returns whether a kind is among them.
    pub fn contain(self, kind: ProgramKind) -> bool {
        match self {
            Self::All => true,
            Self::Of(prog_type) => kind.prog_type == prog_type,
            Self::At(prog_type, attach_types) => {
                kind.prog_type == prog_type && attach_types.contains(&kind.attach_type)
            }
        }
    }
}

const SKB: Kinds = Kinds::Of(8);
const SOCK: Kinds = Kinds::Of(9);
const SOCK_OPS: Kinds = Kinds::Of(13);
const SK_SKB: Kinds = Kinds::Of(14);
const DEVICE: Kinds = Kinds::Of(15);
const SK_MSG: Kinds = Kinds::Of(16);
const SOCK_ADDR: Kinds = Kinds::Of(18);
const SYSCTL: Kinds = Kinds::Of(23);
const SOCKOPT: Kinds = Kinds::Of(25);
/// Bind, connect and sendmsg
const REFUSING: Kinds = Kinds::At(18, &[8, 9, 10, 11, 14, 15]);
/// All but connect
const NOT_CONNECT: Kinds = Kinds::At(18, &[8, 9, 14, 15, 19, 20, 29, 30, 31, 32]);
const SETSOCKOPT: Kinds = Kinds::At(25, &[22]);
const SOCK_CREATE: Kinds = Kinds::At(9, &[2]);

/// What the kernels of docs/kernels.md answered. Programs for Unix sockets are left out: a kernel that lacks them has
/// refused them before.
#[rustfmt::skip]
pub const ROWS: &[Row] = {
    const fn row(seen: Release, kinds: &'static [Kinds], helpers: &'static [(u32, &'static str)]) -> Row {
        Row { seen, kinds, helpers }
    }
    &[
        row((6, 1), &[Kinds::All], &[
            (158, "get_current_task_btf"), (164, "for_each_map_elem"), (165, "snprintf"), (169, "timer_init"),
            (170, "timer_set_callback"), (171, "timer_start"), (172, "timer_cancel"), (175, "task_pt_regs"),
            (177, "trace_vprintk"), (181, "loop"), (182, "strncmp"), (194, "kptr_xchg"),
            (195, "map_lookup_percpu_elem"), (197, "dynptr_from_mem"), (198, "ringbuf_reserve_dynptr"),
            (199, "ringbuf_submit_dynptr"), (200, "ringbuf_discard_dynptr"), (201, "dynptr_read"),
            (202, "dynptr_write"), (203, "dynptr_data"), (208, "ktime_get_tai_ns"), (209, "user_ringbuf_drain"),
        ]),
        row((6, 1), &[SOCK_OPS, SOCKOPT, SK_MSG], &[(122, "get_netns_cookie")]),
        row((6, 1), &[SOCK_OPS, SKB, SOCK_ADDR, SK_MSG, SK_SKB], &[
            (178, "skc_to_unix_sock"), (196, "skc_to_mptcp_sock"),
        ]),
        row((6, 1), &[SOCK_OPS, SKB, SOCK, SOCK_ADDR, SYSCTL, SK_MSG, SK_SKB], &[(160, "ktime_get_coarse_ns")]),
        row((6, 1), &[SOCK_OPS, SKB, SOCK, SOCK_ADDR, SOCKOPT, DEVICE, SK_MSG, SK_SKB], &[
            (105, "strtol"), (106, "strtoul"),
        ]),
        row((6, 1), &[NOT_CONNECT, SETSOCKOPT], &[(49, "setsockopt"), (57, "getsockopt")]),
        row((6, 1), &[SOCKOPT, SYSCTL, DEVICE], &[
            (14, "get_current_pid_tgid"), (16, "get_current_comm"), (17, "get_cgroup_classid"),
            (123, "get_current_ancestor_cgroup_id"),
        ]),
        row((6, 1), &[SOCK, REFUSING, SOCKOPT, SYSCTL, DEVICE], &[(186, "get_retval"), (187, "set_retval")]),
        row((6, 12), &[Kinds::All], &[
            (120, "get_ns_current_pid_tgid"), (210, "cgrp_storage_get"), (211, "cgrp_storage_delete"),
        ]),
        row((6, 12), &[SOCK_OPS, SKB, SK_SKB], &[
            (14, "get_current_pid_tgid"), (80, "get_current_cgroup_id"), (123, "get_current_ancestor_cgroup_id"),
        ]),
        row((6, 12), &[SOCK, SOCK_ADDR, SOCKOPT, SYSCTL, DEVICE], &[(37, "current_task_under_cgroup")]),
        row((6, 18), &[Kinds::All], &[
            (22, "perf_event_read"), (55, "perf_event_read_value"), (109, "send_signal"), (117, "send_signal_thread"),
            (141, "get_task_stack"), (148, "copy_from_user"), (156, "task_storage_get"), (157, "task_storage_delete"),
            (176, "get_branch_snapshot"), (180, "find_vma"), (191, "copy_from_user_task"),
        ]),
        row((6, 18), &[SOCK_OPS, SKB, SK_SKB], &[(15, "get_current_uid_gid"), (17, "get_cgroup_classid")]),
        row((6, 18), &[SOCK_OPS, SKB, SK_MSG, SK_SKB], &[(16, "get_current_comm"), (37, "current_task_under_cgroup")]),
        row((6, 18), &[SKB], &[(122, "get_netns_cookie")]),
        row((7, 2), &[SOCK_CREATE], &[(49, "setsockopt"), (57, "getsockopt")]),
    ]
};

/// Returns the name of a helper that programs of a kind may not call on each of the tested kernels, and the first that
/// lets them. `None` means that each of them does, or none.
pub fn first_seen(kind: ProgramKind, helper: u32) -> Option<(&'static str, Release)> {
    let rows = ROWS.iter().filter(|row| row.kinds.iter().any(|kinds| kinds.contain(kind)));
    let mut calls = rows.flat_map(|row| row.helpers.iter().map(|(number, name)| (*number, *name, row.seen)));
    calls.find(|(number, ..)| *number == helper).map(|(_, name, seen)| (name, seen))
}

/// Returns the number of the helper whose call the verifier refused.
///
/// The message is `unknown func bpf_strtol#105`, or since 6.10 `program of this type cannot use helper bpf_strtol#105`;
/// a kernel that does not know the number says `invalid func unknown#209`.
pub fn refused_call(words: &str) -> Option<u32> {
    let begins = ["unknown func ", "program of this type cannot use helper ", "invalid func "];
    let call = begins.into_iter().find_map(|begin| words.strip_prefix(begin))?;
    call.split_once('#')?.1.parse().ok()
}

/// Returns whether the verifier's words say that the kernel has no helper of a number (`enum bpf_func_id`). The numbers
/// that stand for what a relocation did not find are far above.
pub fn is_unknown(words: &str) -> bool {
    const NUMBERS: std::ops::Range<u32> = 1..100_000;
    words.starts_with("invalid func ") && refused_call(words).is_some_and(|number| NUMBERS.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKOPS: ProgramKind = ProgramKind { prog_type: 13, attach_type: 3 };

    #[test]
    fn a_refused_call_is_read_from_the_words_of_each_verifier() {
        for (words, call) in [
            ("unknown func bpf_get_netns_cookie#122", Some(122)),
            ("program of this type cannot use helper bpf_redirect#23", Some(23)),
            ("invalid func unknown#195", Some(195)),
            ("R1 type=scalar expected=fp", None),
            ("unknown func bpf_get_netns_cookie", None),
        ] {
            assert_eq!(refused_call(words), call);
        }
    }

    #[test]
    fn a_helper_that_no_kernel_lets_a_type_call_is_not_found() {
        assert_eq!(first_seen(SOCKOPS, 122), Some(("get_netns_cookie", (6, 1))));
        assert_eq!(first_seen(SOCKOPS, 23), None, "bpf_redirect");
        assert_eq!(first_seen(ProgramKind { prog_type: 25, attach_type: 21 }, 49), None, "setsockopt in getsockopt");
    }

    #[test]
    fn no_two_rows_speak_of_the_same_call() {
        for row in ROWS {
            for (helper, _) in row.helpers {
                for section in sockeye_ebpf::kinds::section::SECTIONS {
                    let kind = ProgramKind { prog_type: section.prog_type, attach_type: section.attach_type };
                    let rows = ROWS.iter().filter(|row| {
                        row.helpers.iter().any(|(number, _)| number == helper)
                            && row.kinds.iter().any(|kinds| kinds.contain(kind))
                    });
                    assert!(rows.count() < 2, "{helper} in {}", section.name);
                }
            }
        }
    }
}
