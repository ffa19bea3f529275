//! The table of program types: for each ELF section name the program type, the attach type and the target.
//!
//! The section names are libbpf's (`section_defs` in libbpf.c). The numbers are those of `enum bpf_prog_type` and `enum
//! bpf_attach_type`, and the attach types' names are bpftool's (`libbpf_bpf_attach_type_str`). docs/program-types.md
//! describes the table for users.

use std::borrow::Cow;

use sockeye_crds::{ProgramType, names::printable};

use super::foreign::{self, ForeignType};

/// A row of the table: a section name and what it determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// The name of the section. Anything may follow it after another `/`.
    pub name: &'static str,
    /// The program type.
    pub program_type: ProgramType,
    /// `enum bpf_prog_type`
    pub prog_type: u32,
    /// `enum bpf_attach_type`
    pub attach_type: u32,
    /// The attach type as bpftool prints it.
    pub attach_name: &'static str,
    /// The kind of target that the programs attach to.
    pub target: Target,
    /// The first kernel version that has the attach type.
    pub least_kernel: (u16, u16),
    /// The capabilities that the kernel requires to load and attach the programs. With CAP_PERFMON it also omits
    /// barriers against speculation and allows programs to compare pointers.
    pub capabilities: &'static [&'static str],
}

impl Section {
    /// Returns the name of the feature that a kernel with the attach type has (`status.node.features` of a BpfNode):
    /// bpftool's name in the API's style, `CgroupInet4Bind` for `cgroup_inet4_bind`.
    pub fn feature(&self) -> String {
        let word = |word: &str| word.get(..1).unwrap_or_default().to_uppercase() + word.get(1..).unwrap_or_default();
        self.attach_name.split('_').map(word).collect()
    }

    /// Returns whether a mistake in the programs can cut the node's agent or kubelet off, or keep them from working:
    /// such programs are attached on trial.
    pub const fn can_deny(&self) -> bool {
        match self.program_type {
            // They drop packets.
            ProgramType::CgroupSkb => true,
            // They refuse sockets and local addresses. A socket that is released is closed whatever they return.
            ProgramType::CgroupSock => self.attach_type != SOCK_RELEASE,
            // They refuse local addresses, connections and datagrams, or send them elsewhere. For recvmsg, getpeername
            // and getsockname they can't refuse, but give a wrong address: a resolver drops an answer from one.
            ProgramType::CgroupSockAddr => true,
            // A process gives a connection up if it can't set an option, or can't ask whether it is connected.
            ProgramType::CgroupSockopt => true,
            // A kubelet does not start if it can't read or write the sysctls that it checks.
            ProgramType::CgroupSysctl => true,
            // A kubelet runs no command without /dev/null, and does not start without /dev/kmsg.
            ProgramType::CgroupDevice => true,
            // They drop data, or hold it back.
            ProgramType::SkMsg | ProgramType::SkSkb => true,
            // They refuse nothing. They can slow a connection down, and put its socket into a map whose programs drop
            // data: those are on trial themselves.
            ProgramType::SockOps => false,
        }
    }
}

/// The kind of target that a program attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A cgroup, attached by link.
    Cgroup,
    /// A sockmap or sockhash.
    Map,
}

/// `BPF_CGROUP_INET_SOCK_RELEASE`
const SOCK_RELEASE: u32 = 34;
/// `BPF_SK_SKB_STREAM_PARSER`
pub const STREAM_PARSER: u32 = 4;
/// `BPF_SK_SKB_STREAM_VERDICT`
pub const STREAM_VERDICT: u32 = 5;
/// `BPF_SK_SKB_VERDICT`
pub const VERDICT: u32 = 38;

/// Returns whether one map cannot have programs of both attach types. The kernel keeps one program of each attach type
/// per map, and only one verdict on received data.
pub fn exclude_each_other(one: u32, other: u32) -> bool {
    exclusion(one) == exclusion(other)
}

/// Returns a number that those attach types share of which one map can have programs of one only.
pub fn exclusion(attach_type: u32) -> u32 {
    if is_verdict(attach_type) { STREAM_VERDICT } else { attach_type }
}

/// Returns whether a program of an attach type decides on what the sockets in a map receive.
pub fn is_verdict(attach_type: u32) -> bool {
    matches!(attach_type, STREAM_VERDICT | VERDICT)
}

/// The columns of a row, in order.
type Columns = (&'static str, ProgramType, u32, u32, &'static str, Target, (u16, u16), &'static [&'static str]);

const fn row(columns: Columns) -> Section {
    let (name, program_type, prog_type, attach_type, attach_name, target, least_kernel, capabilities) = columns;
    Section { name, program_type, prog_type, attach_type, attach_name, target, least_kernel, capabilities }
}

/// All rows.
#[rustfmt::skip]
pub static SECTIONS: &[Section] = {
    use ProgramType::*;
    use Target::*;
    // CAP_BPF is for loading, CAP_NET_ADMIN for attaching and querying.
    const NET: &[&str] = &["CAP_BPF", "CAP_NET_ADMIN"];
    &[
        row(("sockops",                SockOps,        13, 3,  "cgroup_sock_ops",            Cgroup, (4, 13),  NET)),
        row(("cgroup_skb/ingress",     CgroupSkb,      8,  0,  "cgroup_inet_ingress",        Cgroup, (4, 10),  NET)),
        row(("cgroup_skb/egress",      CgroupSkb,      8,  1,  "cgroup_inet_egress",         Cgroup, (4, 10),  NET)),
        row(("cgroup/sock_create",     CgroupSock,     9,  2,  "cgroup_inet_sock_create",    Cgroup, (4, 10),  NET)),
        row(("cgroup/sock",            CgroupSock,     9,  2,  "cgroup_inet_sock_create",    Cgroup, (4, 10),  NET)),
        row(("cgroup/sock_release",    CgroupSock,     9,  34, "cgroup_inet_sock_release",   Cgroup, (5, 9),   NET)),
        row(("cgroup/post_bind4",      CgroupSock,     9,  12, "cgroup_inet4_post_bind",     Cgroup, (4, 17),  NET)),
        row(("cgroup/post_bind6",      CgroupSock,     9,  13, "cgroup_inet6_post_bind",     Cgroup, (4, 17),  NET)),
        row(("cgroup/bind4",           CgroupSockAddr, 18, 8,  "cgroup_inet4_bind",          Cgroup, (4, 17),  NET)),
        row(("cgroup/bind6",           CgroupSockAddr, 18, 9,  "cgroup_inet6_bind",          Cgroup, (4, 17),  NET)),
        row(("cgroup/connect4",        CgroupSockAddr, 18, 10, "cgroup_inet4_connect",       Cgroup, (4, 17),  NET)),
        row(("cgroup/connect6",        CgroupSockAddr, 18, 11, "cgroup_inet6_connect",       Cgroup, (4, 17),  NET)),
        row(("cgroup/connect_unix",    CgroupSockAddr, 18, 49, "cgroup_unix_connect",        Cgroup, (6, 7),   NET)),
        row(("cgroup/sendmsg4",        CgroupSockAddr, 18, 14, "cgroup_udp4_sendmsg",        Cgroup, (4, 18),  NET)),
        row(("cgroup/sendmsg6",        CgroupSockAddr, 18, 15, "cgroup_udp6_sendmsg",        Cgroup, (4, 18),  NET)),
        row(("cgroup/sendmsg_unix",    CgroupSockAddr, 18, 50, "cgroup_unix_sendmsg",        Cgroup, (6, 7),   NET)),
        row(("cgroup/recvmsg4",        CgroupSockAddr, 18, 19, "cgroup_udp4_recvmsg",        Cgroup, (5, 2),   NET)),
        row(("cgroup/recvmsg6",        CgroupSockAddr, 18, 20, "cgroup_udp6_recvmsg",        Cgroup, (5, 2),   NET)),
        row(("cgroup/recvmsg_unix",    CgroupSockAddr, 18, 51, "cgroup_unix_recvmsg",        Cgroup, (6, 7),   NET)),
        row(("cgroup/getpeername4",    CgroupSockAddr, 18, 29, "cgroup_inet4_getpeername",   Cgroup, (5, 8),   NET)),
        row(("cgroup/getpeername6",    CgroupSockAddr, 18, 30, "cgroup_inet6_getpeername",   Cgroup, (5, 8),   NET)),
        row(("cgroup/getpeername_unix",CgroupSockAddr, 18, 52, "cgroup_unix_getpeername",    Cgroup, (6, 7),   NET)),
        row(("cgroup/getsockname4",    CgroupSockAddr, 18, 31, "cgroup_inet4_getsockname",   Cgroup, (5, 8),   NET)),
        row(("cgroup/getsockname6",    CgroupSockAddr, 18, 32, "cgroup_inet6_getsockname",   Cgroup, (5, 8),   NET)),
        row(("cgroup/getsockname_unix",CgroupSockAddr, 18, 53, "cgroup_unix_getsockname",    Cgroup, (6, 7),   NET)),
        row(("cgroup/getsockopt",      CgroupSockopt,  25, 21, "cgroup_getsockopt",          Cgroup, (5, 3),   NET)),
        row(("cgroup/setsockopt",      CgroupSockopt,  25, 22, "cgroup_setsockopt",          Cgroup, (5, 3),   NET)),
        row(("cgroup/sysctl",          CgroupSysctl,   23, 18, "cgroup_sysctl",              Cgroup, (5, 2),   NET)),
        row(("cgroup/dev",             CgroupDevice,   15, 6,  "cgroup_device",              Cgroup, (4, 15),  NET)),
        row(("sk_msg",                 SkMsg,          16, 7,  "sk_msg_verdict",             Map,    (4, 17),  NET)),
        row(("sk_skb/stream_parser",   SkSkb,          14, 4,  "sk_skb_stream_parser",       Map,    (4, 14),  NET)),
        row(("sk_skb/stream_verdict",  SkSkb,          14, 5,  "sk_skb_stream_verdict",      Map,    (4, 14),  NET)),
        row(("sk_skb/verdict",         SkSkb,          14, 38, "sk_skb_verdict",             Map,    (5, 13),  NET)),
    ]
};

/// Finds the row of a section. `None` means that sockeye does not run its programs.
pub fn find(section: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|row| begins(section, row.name))
}

/// The sections whose names do not say what for: each with the program type. libbpf knows `cgroup/skb` and `sk_skb`.
const UNDIRECTED: [(&str, ProgramType); 3] =
    [("cgroup/skb", ProgramType::CgroupSkb), ("cgroup_skb", ProgramType::CgroupSkb), ("sk_skb", ProgramType::SkSkb)];

/// The reason why a section and an attach type determine no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The section.
    #[error("{0}")]
    Section(String),
    /// The attach type.
    #[error("{0}")]
    AttachType(String),
}

/// Returns the row of a section and of the attach type that a spec gives, which sections without direction need, and
/// sections with names of the user's own.
pub fn of(section: &str, attach_type: Option<&str>) -> Result<&'static Section, Unknown> {
    if let Some(row) = find(section) {
        return match attach_type.filter(|given| *given != row.attach_name) {
            None => Ok(row),
            Some(given) => Err(Unknown::AttachType(format!(
                "its name says {}, and {} another attach type: correct it, or leave it out",
                row.attach_name,
                printable(given)
            ))),
        };
    }
    let undirected = undirected(section);
    let Some(given) = attach_type.filter(|_| undirected.is_some() || foreign::find(section).is_none()) else {
        return Err(Unknown::Section(why_not(section)));
    };
    let rows = || SECTIONS.iter().filter(|row| undirected.is_none_or(|of| row.program_type == of));
    rows()
        .find(|row| row.attach_name == given)
        .ok_or_else(|| Unknown::AttachType(format!("{} is none of {}", printable(given), names(rows()))))
}

/// Returns the type of a section's programs, if its name says one that sockeye runs.
pub fn type_of(section: &str) -> Option<ProgramType> {
    find(section).map(|row| row.program_type).or_else(|| undirected(section))
}

fn undirected(section: &str) -> Option<ProgramType> {
    UNDIRECTED.iter().find(|(name, _)| begins(section, name)).map(|(_, of)| *of)
}

fn begins(section: &str, name: &str) -> bool {
    section.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn names(rows: impl Iterator<Item = &'static Section>) -> String {
    let mut names: Vec<&str> = rows.map(|row| row.attach_name).collect();
    names.dedup();
    names.join(", ")
}

/// Returns why sockeye does not run the programs of a section outside the table.
fn why_not(section: &str) -> String {
    if let Some(of) = undirected(section) {
        let names = names(SECTIONS.iter().filter(|row| row.program_type == of));
        return format!("it does not say what for: set the program's attachType to one of {names}");
    }
    if let Some((foreign, _)) = foreign::find(section) {
        let ForeignType { name, does, .. } = foreign;
        return format!("{name} programs {does}, which is out of scope: sockeye runs socket and cgroup programs");
    }
    let unknown = if section.starts_with("cgroup") { "no section that there is" } else { "a name that says no type" };
    format!(
        "{unknown}: docs/program-types.md lists those that sockeye runs, as cgroup/connect4 or cgroup_skb/ingress; for \
         a name of your own, set the program's attachType"
    )
}

/// Returns the program type of a number of `enum bpf_prog_type`.
pub fn program_type(prog_type: u32) -> Option<ProgramType> {
    SECTIONS.iter().find(|row| row.prog_type == prog_type).map(|row| row.program_type)
}

/// Returns the name of an attach type as bpftool prints it, or its number if it is not in the table.
pub fn attach_type_name(attach_type: u32) -> Cow<'static, str> {
    let row = SECTIONS.iter().find(|row| row.attach_type == attach_type);
    row.map_or_else(|| Cow::Owned(attach_type.to_string()), |row| Cow::Borrowed(row.attach_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::generated::{bpf_attach_type as attach, bpf_prog_type as prog};

    #[test]
    fn all_programs_are_on_trial_but_those_whose_result_refuses_nothing() {
        let not_on_trial = SECTIONS.iter().filter(|row| !row.can_deny()).map(|row| row.name);
        assert_eq!(not_on_trial.collect::<Vec<_>>(), ["sockops", "cgroup/sock_release"]);
    }

    #[test]
    fn sections_outside_the_table_are_explained() {
        for (section, word) in [
            ("cgroup/skb", "cgroup_inet_ingress, cgroup_inet_egress"),
            ("cgroup_skb", "attachType"),
            ("sk_skb", "sk_skb_stream_parser, sk_skb_stream_verdict, sk_skb_verdict"),
            ("sk_lookup", "SkLookup"),
            ("sk_lookup/mine", "attachType"),
            ("sk_reuseport/migrate", "SkReuseport"),
            ("lsm_cgroup/socket_bind", "Lsm"),
            ("xdp", "network devices, which is out of scope"),
            ("cgroup/conect4", "cgroup/connect4"),
            ("my/own", "attachType"),
        ] {
            let why = of(section, None).unwrap_err().to_string();
            assert!(find(section).is_none() && why.contains(word), "{section}: {why}");
        }
    }

    #[test]
    fn an_attach_type_directs_sections_without_direction_and_those_of_own_names() {
        let attach = |section, given| of(section, Some(given)).map(|row| (row.prog_type, row.attach_type));
        assert_eq!(attach("cgroup/skb", "cgroup_inet_egress"), Ok((8, 1)));
        assert_eq!(attach("cgroup_skb/mine", "cgroup_inet_ingress"), Ok((8, 0)));
        assert_eq!(attach("sk_skb", "sk_skb_verdict"), Ok((14, 38)));
        assert_eq!(attach("own", "cgroup_inet4_connect"), Ok((18, 10)));
        assert_eq!(attach("sockops", "cgroup_sock_ops"), Ok((13, 3)));
        for (section, given) in
            [("sk_skb", "cgroup_inet_egress"), ("sockops", "sk_skb_verdict"), ("own", "xdp"), ("cgroup/skb", "")]
        {
            assert!(matches!(attach(section, given), Err(Unknown::AttachType(_))), "{section} {given}");
        }
        assert!(matches!(attach("xdp", "cgroup_sock_ops"), Err(Unknown::Section(_))));
    }

    #[test]
    fn numbers_are_the_kernels_own() {
        for (section, prog_type, attach_type) in [
            ("sockops", prog::BPF_PROG_TYPE_SOCK_OPS, attach::BPF_CGROUP_SOCK_OPS),
            ("cgroup_skb/egress", prog::BPF_PROG_TYPE_CGROUP_SKB, attach::BPF_CGROUP_INET_EGRESS),
            ("cgroup/sock_create", prog::BPF_PROG_TYPE_CGROUP_SOCK, attach::BPF_CGROUP_INET_SOCK_CREATE),
            ("cgroup/sock_release", prog::BPF_PROG_TYPE_CGROUP_SOCK, attach::BPF_CGROUP_INET_SOCK_RELEASE),
            ("cgroup/post_bind6", prog::BPF_PROG_TYPE_CGROUP_SOCK, attach::BPF_CGROUP_INET6_POST_BIND),
            ("cgroup/bind6", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_INET6_BIND),
            ("cgroup/connect4", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_INET4_CONNECT),
            ("cgroup/sendmsg6", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UDP6_SENDMSG),
            ("cgroup/recvmsg4", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UDP4_RECVMSG),
            ("cgroup/getpeername6", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_INET6_GETPEERNAME),
            ("cgroup/getsockname4", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_INET4_GETSOCKNAME),
            ("cgroup/setsockopt", prog::BPF_PROG_TYPE_CGROUP_SOCKOPT, attach::BPF_CGROUP_SETSOCKOPT),
            ("cgroup/sysctl", prog::BPF_PROG_TYPE_CGROUP_SYSCTL, attach::BPF_CGROUP_SYSCTL),
            ("cgroup/dev", prog::BPF_PROG_TYPE_CGROUP_DEVICE, attach::BPF_CGROUP_DEVICE),
            ("sk_msg", prog::BPF_PROG_TYPE_SK_MSG, attach::BPF_SK_MSG_VERDICT),
            ("sk_skb/stream_parser", prog::BPF_PROG_TYPE_SK_SKB, attach::BPF_SK_SKB_STREAM_PARSER),
            ("sk_skb/stream_verdict", prog::BPF_PROG_TYPE_SK_SKB, attach::BPF_SK_SKB_STREAM_VERDICT),
            ("sk_skb/verdict", prog::BPF_PROG_TYPE_SK_SKB, attach::BPF_SK_SKB_VERDICT),
            ("cgroup/connect_unix", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UNIX_CONNECT),
            ("cgroup/sendmsg_unix", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UNIX_SENDMSG),
            ("cgroup/recvmsg_unix", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UNIX_RECVMSG),
            ("cgroup/getpeername_unix", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UNIX_GETPEERNAME),
            ("cgroup/getsockname_unix", prog::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_UNIX_GETSOCKNAME),
        ] {
            let row = find(section).unwrap();
            assert_eq!((row.prog_type, row.attach_type), (prog_type as u32, attach_type as u32), "{section}");
        }
    }

    #[test]
    fn sections_are_found_by_whole_path_components() {
        assert_eq!(find("sockops").unwrap().program_type, ProgramType::SockOps);
        assert_eq!(find("cgroup/connect4/mine").unwrap().attach_type, 10);
        assert_eq!(find("cgroup/sock").unwrap().name, "cgroup/sock");
        for other in ["", "sockopsx", "xdp", "cgroup/connect", "maps", ".text"] {
            assert!(find(other).is_none(), "{other}");
        }
        assert_eq!(attach_type_name(3), "cgroup_sock_ops");
    }
}
