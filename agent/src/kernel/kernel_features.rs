//! `KernelFeatures`: the BPF features that this kernel has, found by asking it. Its version would say less:
//! distributions backport features, and leave some out.
//!
//! The agent probes once, at start. The probe loads programs of two instructions and creates small maps, drops them at
//! once, and attaches nothing. A feature stays unknown if the kernel does not tell, for lack of a capability or of
//! memory; the agent then tries to use it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use sockeye_ebpf::kinds::{
    map_type::{
        self, ARRAY, BLOOM_FILTER, CGROUP_STORAGE, CGRP_STORAGE, F_NO_PREALLOC, PERCPU_CGROUP_STORAGE, RINGBUF,
        SK_STORAGE, SOCKHASH, SOCKMAP, USER_RINGBUF,
    },
    section::{SECTIONS, Section, Target},
};

pub(super) use super::verifier::{FeatureSupport, verifier_log_end};
use super::{
    bpf::{self, F_BEFORE, MapAttr, PROBE_NAME},
    info,
    verifier::{self, EXIT, GET_NETNS_COOKIE, MOV, SOCK_OPS, has_helper, prog_load},
};
use crate::model::kernel::{MissingFeatures, ProgramKind};

/// The features that were found and missed.
#[derive(Clone, Debug, Default)]
pub struct KernelFeatures {
    /// The features that the kernel has, by name.
    pub has: BTreeSet<String>,
    /// The features that it lacks, by name.
    pub lacks: BTreeSet<String>,
    /// What it denies to all programs and readers, by name: it depends on how the node was booted and set up.
    pub restrictions: BTreeSet<String>,
    /// The features that it lacks and a revision may ask for.
    pub missing_features: MissingFeatures,
}

/// A map type that not every kernel has, or that a kernel's configuration can leave out.
#[derive(Clone, Copy, Debug)]
struct MapProbe {
    /// `enum bpf_map_type`
    map_type: u32,
    /// The first kernel release that has it.
    least_kernel: (u16, u16),
    /// The map that the probe creates.
    sample: Sample,
}

/// A small map of some type.
#[derive(Clone, Copy, Debug)]
enum Sample {
    /// A map with these sizes of key and value and so many entries.
    Map(u32, u32, u32),
    /// A ring buffer of one page.
    Ring,
    /// A local storage with a value that is too large. A valid one needs BTF of its own; a kernel that knows the type
    /// refuses this one for its size (E2BIG).
    Storage,
}

/// The map types to found.
#[rustfmt::skip]
const MAPS: [MapProbe; 9] = {
    const fn row(map_type: u32, least_kernel: (u16, u16), sample: Sample) -> MapProbe {
        MapProbe { map_type, least_kernel, sample }
    }
    [
        row(SOCKMAP,               (4, 14), Sample::Map(4, 4, 1)),
        row(SOCKHASH,              (4, 18), Sample::Map(4, 4, 1)),
        row(CGROUP_STORAGE,        (4, 19), Sample::Map(8, 4, 0)),
        row(PERCPU_CGROUP_STORAGE, (4, 20), Sample::Map(8, 4, 0)),
        row(SK_STORAGE,            (5, 2),  Sample::Storage),
        row(RINGBUF,               (5, 8),  Sample::Ring),
        row(BLOOM_FILTER,          (5, 16), Sample::Map(0, 4, 1)),
        row(USER_RINGBUF,          (6, 1),  Sample::Ring),
        row(CGRP_STORAGE,          (6, 2),  Sample::Storage),
    ]
};

impl KernelFeatures {
    /// Asks the kernel for each feature.
    pub fn probe() -> Self {
        let mut found = Self::default();
        found.note("KernelBTF", FeatureSupport::from_bool(fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false)));
        let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
        found.note(
            "JIT",
            jit.map_or(FeatureSupport::Unknown, |enabled| FeatureSupport::from_bool(enabled.trim() != "0")),
        );
        found.note("LinkUpdate", FeatureSupport::by_bad_fd(&bpf::link_update_nothing()));
        found.note("MemoryCgroups", verifier::memory_cgroups());
        found.note("AtomicFetch", verifier::atomic_fetch());
        found.note("InstructionsV4", verifier::instructions_v4());
        found.note(
            "NetnsCookie",
            has_helper(SOCK_OPS, GET_NETNS_COOKIE).map_or(FeatureSupport::Unknown, FeatureSupport::from_bool),
        );
        found.note("VerifierLogEnd", verifier_log_end());
        found.note("MapMemory", map_memory());
        if verifier::is_locked_down() {
            found.restrictions.insert("LockdownConfidentiality".to_owned());
        }
        if perf_event_paranoid() == FeatureSupport::Has {
            found.restrictions.insert("PerfEventParanoid".to_owned());
        }
        for section in SECTIONS {
            found.section(section);
        }
        for row in &MAPS {
            let answer = map(row);
            if answer == FeatureSupport::Lacks {
                found.missing_features.maps.insert(row.map_type, row.least_kernel);
            }
            found.note(&map_type::feature(&map_type::name(row.map_type)), answer);
        }
        found
    }

    fn note(&mut self, name: &str, answer: FeatureSupport) {
        match answer {
            FeatureSupport::Has => drop(self.has.insert(name.to_owned())),
            FeatureSupport::Lacks => drop(self.lacks.insert(name.to_owned())),
            FeatureSupport::Unknown => {}
        }
    }

    /// Probes whether programs of a section load and, if they attach to a cgroup, whether the kernel has links of their
    /// type.
    fn section(&mut self, section: &Section) {
        let kind = ProgramKind { prog_type: section.prog_type, attach_type: section.attach_type };
        let answer = match load(kind) {
            Ok(program) => self.link(section, program.as_fd()),
            Err(refusal) => refusal,
        };
        if answer == FeatureSupport::Lacks {
            self.missing_features.programs.insert(kind);
        }
        self.note(&section.feature(), answer);
    }

    /// Probes whether the kernel has links for a section's program, and notes the features of links that some sections
    /// stand for.
    fn link(&mut self, section: &Section, program: BorrowedFd<'_>) -> FeatureSupport {
        let attach_type = section.attach_type;
        let link = |flags| FeatureSupport::by_bad_fd(&bpf::link_create_nowhere(program, attach_type, flags));
        match section.name {
            "sockops" => {
                self.note("CgroupLink", link(0));
                let order = link(F_BEFORE);
                self.missing_features.order = order == FeatureSupport::Lacks;
                self.note("CgroupLinkOrder", order);
            }
            "sk_msg" => {
                self.note("SockmapLink", link(0));
                self.note("SockmapQuery", FeatureSupport::by_bad_fd(&bpf::prog_query_nowhere(attach_type)));
            }
            _ => {}
        }
        match section.target {
            Target::Cgroup => link(0),
            // Kernels without links for maps load a program for an attach type that they do not know.
            Target::Map => FeatureSupport::by_bad_fd(&bpf::prog_attach_nowhere(program, attach_type)),
        }
    }
}

/// Loads a program that only returns.
fn load(kind: ProgramKind) -> Result<OwnedFd, FeatureSupport> {
    prog_load(kind, &[MOV, EXIT], &mut []).map_err(|error| FeatureSupport::refused(error.raw_os_error()))
}

/// Returns whether perf events, so the readers of perf event arrays, need CAP_SYS_ADMIN: `kernel.perf_event_paranoid`
/// above 2, which only distributions' patches know.
fn perf_event_paranoid() -> FeatureSupport {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    match level.ok().and_then(|level| level.trim().parse::<i32>().ok()) {
        Some(level) => FeatureSupport::from_bool(level > 2),
        None => FeatureSupport::Unknown,
    }
}

/// Probes whether the kernel reports the memory that a map uses. Older ones report whole pages, computed from its
/// sizes.
fn map_memory() -> FeatureSupport {
    let made = bpf::map_create(&attr(ARRAY, 4, 4, 1));
    let page = rustix::param::page_size() as u64;
    match made.and_then(|fd| info::map(fd.as_fd())) {
        Ok(map) => FeatureSupport::from_bool(map.memlock_bytes % page != 0),
        Err(_) => FeatureSupport::Unknown,
    }
}

/// Probes whether the kernel creates maps of a type.
fn map(row: &MapProbe) -> FeatureSupport {
    let no_btf = io::stdin();
    let page = u32::try_from(rustix::param::page_size()).unwrap_or_default();
    let attr = match row.sample {
        Sample::Map(key, value, entries) => attr(row.map_type, key, value, entries),
        Sample::Ring => attr(row.map_type, 0, 0, page),
        Sample::Storage => MapAttr {
            flags: F_NO_PREALLOC,
            // The kernel asks for type IDs before it looks for their BTF.
            btf: Some((no_btf.as_fd(), 1, 1)),
            ..attr(row.map_type, 4, u32::MAX, 0)
        },
    };
    let made = verifier::retry_on_eperm(|| bpf::map_create(&attr).map_err(|error| error.source));
    match made.map_err(|error| error.raw_os_error()) {
        Ok(_) | Err(Some(libc::E2BIG)) => FeatureSupport::Has,
        Err(errno) => FeatureSupport::refused(errno),
    }
}

fn attr<'a>(map_type: u32, key_size: u32, value_size: u32, max_entries: u32) -> MapAttr<'a> {
    MapAttr { name: PROBE_NAME, map_type, key_size, value_size, max_entries, ..MapAttr::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sockeye inspect` says of these types that a node lacks them if its features do not name them.
    #[test]
    fn the_optional_map_types_are_those_that_are_probed() {
        assert_eq!(MAPS.map(|row| row.map_type), map_type::OPTIONAL);
    }
}
