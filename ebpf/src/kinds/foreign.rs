//! The sections that libbpf knows and sockeye does not run: libbpf's `section_defs` without the rows of
//! [`section`](super::section).

/// A program type that sockeye does not run, with its sections.
#[derive(Clone, Copy, Debug)]
pub struct ForeignType {
    /// The name of the type.
    pub name: &'static str,
    /// `enum bpf_prog_type`
    pub prog_type: u32,
    /// The purpose of such programs, as "attach to network devices".
    pub does: &'static str,
    /// The sections' names, each with its `enum bpf_attach_type`. A name that ends with `+` may be followed by `/` and
    /// more.
    sections: &'static [(&'static str, u32)],
}

/// Finds the type of a section's programs, and their attach type.
pub fn find(section: &str) -> Option<(&'static ForeignType, u32)> {
    let is = |name: &str| match name.strip_suffix('+') {
        Some(name) => section.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        None => section == name,
    };
    FOREIGN.iter().find_map(|one| one.sections.iter().find(|(name, _)| is(name)).map(|(_, attach)| (one, *attach)))
}

/// All such types.
#[rustfmt::skip]
static FOREIGN: &[ForeignType] = &[
    ForeignType {
        name: "SocketFilter", prog_type: 1, does: "attach to one socket, by the process that owns it",
        sections: &[
            ("socket", 0),
        ],
    },
    ForeignType {
        name: "SkReuseport", prog_type: 21, does: "attach to one socket, by the process that owns it",
        sections: &[
            ("sk_reuseport/migrate", 40), ("sk_reuseport", 39),
        ],
    },
    ForeignType {
        name: "Kprobe", prog_type: 2, does: "attach to functions of the kernel or of processes",
        sections: &[
            ("kprobe+", 0), ("uprobe+", 0), ("uprobe.s+", 0), ("kretprobe+", 0), ("uretprobe+", 0),
            ("uretprobe.s+", 0), ("kprobe.multi+", 42), ("kretprobe.multi+", 42), ("kprobe.session+", 56),
            ("uprobe.multi+", 48), ("uretprobe.multi+", 48), ("uprobe.session+", 57),
            ("uprobe.multi.s+", 48), ("uretprobe.multi.s+", 48), ("uprobe.session.s+", 57), ("ksyscall+", 0),
            ("kretsyscall+", 0), ("usdt+", 0), ("usdt.s+", 0),
        ],
    },
    ForeignType {
        name: "SchedCls", prog_type: 3, does: "attach to network devices",
        sections: &[
            ("tc/ingress", 46), ("tc/egress", 47), ("tcx/ingress", 46), ("tcx/egress", 47), ("tc", 0),
            ("classifier", 0), ("netkit/primary", 54), ("netkit/peer", 55),
        ],
    },
    ForeignType {
        name: "SchedAct", prog_type: 4, does: "attach to network devices",
        sections: &[
            ("action", 0),
        ],
    },
    ForeignType {
        name: "Tracepoint", prog_type: 5, does: "attach to the kernel's tracepoints",
        sections: &[
            ("tracepoint+", 0), ("tp+", 0), ("tracepoint.s+", 0), ("tp.s+", 0),
        ],
    },
    ForeignType {
        name: "RawTracepoint", prog_type: 17, does: "attach to the kernel's tracepoints",
        sections: &[
            ("raw_tracepoint+", 0), ("raw_tp+", 0), ("raw_tracepoint.s+", 0), ("raw_tp.s+", 0),
        ],
    },
    ForeignType {
        name: "RawTracepointWritable", prog_type: 24, does: "attach to the kernel's tracepoints",
        sections: &[
            ("raw_tracepoint.w+", 0), ("raw_tp.w+", 0),
        ],
    },
    ForeignType {
        name: "Tracing", prog_type: 26, does: "attach to functions of the kernel",
        sections: &[
            ("tp_btf+", 23), ("tp_btf.s+", 23), ("fentry+", 24), ("fmod_ret+", 26), ("fexit+", 25),
            ("fentry.s+", 24), ("fmod_ret.s+", 26), ("fexit.s+", 25), ("fsession+", 58), ("fsession.s+", 58),
            ("fsession.multi+", 61), ("fsession.multi.s+", 61), ("fentry.multi+", 59), ("fexit.multi+", 60),
            ("fentry.multi.s+", 59), ("fexit.multi.s+", 60), ("iter+", 28), ("iter.s+", 28),
        ],
    },
    ForeignType {
        name: "Ext", prog_type: 28, does: "replace functions of other programs",
        sections: &[
            ("freplace+", 0),
        ],
    },
    ForeignType {
        name: "Lsm", prog_type: 29, does: "attach to the kernel's security hooks",
        sections: &[
            ("lsm+", 27), ("lsm.s+", 27), ("lsm_cgroup+", 43),
        ],
    },
    ForeignType {
        name: "Syscall", prog_type: 31, does: "attach to nothing, but are run by a process",
        sections: &[
            ("syscall", 0),
        ],
    },
    ForeignType {
        name: "Xdp", prog_type: 6, does: "attach to network devices",
        sections: &[
            ("xdp.frags/devmap", 33), ("xdp/devmap", 33), ("xdp.frags/cpumap", 35), ("xdp/cpumap", 35),
            ("xdp.frags", 37), ("xdp", 37),
        ],
    },
    ForeignType {
        name: "PerfEvent", prog_type: 7, does: "attach to performance events",
        sections: &[
            ("perf_event", 0),
        ],
    },
    ForeignType {
        name: "LwtIn", prog_type: 10, does: "attach to routes",
        sections: &[
            ("lwt_in", 0),
        ],
    },
    ForeignType {
        name: "LwtOut", prog_type: 11, does: "attach to routes",
        sections: &[
            ("lwt_out", 0),
        ],
    },
    ForeignType {
        name: "LwtXmit", prog_type: 12, does: "attach to routes",
        sections: &[
            ("lwt_xmit", 0),
        ],
    },
    ForeignType {
        name: "LwtSeg6local", prog_type: 19, does: "attach to routes",
        sections: &[
            ("lwt_seg6local", 0),
        ],
    },
    ForeignType {
        name: "LircMode2", prog_type: 20, does: "attach to infrared receivers",
        sections: &[
            ("lirc_mode2", 16),
        ],
    },
    ForeignType {
        name: "FlowDissector", prog_type: 22, does: "attach to network namespaces",
        sections: &[
            ("flow_dissector", 17),
        ],
    },
    ForeignType {
        name: "StructOps", prog_type: 27, does: "implement one of the kernel's interfaces",
        sections: &[
            ("struct_ops+", 0), ("struct_ops.s+", 0),
        ],
    },
    ForeignType {
        name: "SkLookup", prog_type: 30, does: "attach to network namespaces",
        sections: &[
            ("sk_lookup", 36),
        ],
    },
    ForeignType {
        name: "Netfilter", prog_type: 32, does: "attach to network namespaces",
        sections: &[
            ("netfilter", 45),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::section;

    #[test]
    fn all_of_libbpfs_116_sections_are_known() {
        let foreign: usize = FOREIGN.iter().map(|one| one.sections.len()).sum();
        // Its rows `cgroup/skb` and `sk_skb` say no direction.
        assert_eq!(foreign + section::SECTIONS.len() + 2, 116);
    }

    #[test]
    fn sections_are_found_as_libbpf_finds_them() {
        let name = |section| find(section).map(|(one, attach)| (one.name, attach));
        assert_eq!(name("xdp"), Some(("Xdp", 37)));
        assert_eq!(name("xdp/mine"), None);
        assert_eq!(name("fentry/tcp_connect"), Some(("Tracing", 24)));
        assert_eq!(name("tp_btf/task_newtask"), Some(("Tracing", 23)));
        assert_eq!(name("fentryx"), None);
        assert_eq!(name("lsm_cgroup/socket_bind"), Some(("Lsm", 43)));
        assert_eq!(name("tc"), Some(("SchedCls", 0)));
        assert_eq!(name("my/own"), None);
    }
}
