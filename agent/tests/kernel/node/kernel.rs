//! The kernel's own information about a node, by bpftool.

use std::{collections::BTreeSet, fs, os::fd::AsFd as _, path::Path, thread::sleep, time::Duration};

use serde_json::Value;
use sockeye_agent::kernel::bpf;
use sockeye_ebpf::kinds::section::{SECTIONS, Target};

use super::{Node, text};

impl Node {
    pub fn bpftool(&self, args: &[&str]) -> Value {
        let shown = self.inside("bpftool").arg("--json").args(args).output().unwrap();
        // bpftool 7.5 shows one link in full, and exits as if it had failed.
        let of_a_link = matches!(args, ["link", "show", _, _]).then(|| serde_json::from_slice::<Value>(&shown.stdout));
        if let Some(Ok(link)) = of_a_link
            && link["id"].is_u64()
        {
            return link;
        }
        assert!(shown.status.success(), "bpftool {args:?}: {}", text(&shown));
        serde_json::from_slice(&shown.stdout).unwrap()
    }

    /// Returns all objects of a kind on the machine. bpftool fails if one is created or freed meanwhile, and is run
    /// again.
    pub fn bpftool_of_all(&self, kind: &str) -> Value {
        for _ in 0..50 {
            let shown = self.inside("bpftool").args(["--json", kind, "show"]).output().unwrap();
            if shown.status.success() {
                return serde_json::from_slice(&shown.stdout).unwrap();
            }
            sleep(Duration::from_millis(20));
        }
        self.bpftool(&[kind, "show"])
    }

    /// Returns whether bpftool succeeds.
    pub fn bpftool_succeeds(&self, args: &[&str]) -> bool {
        self.inside("bpftool").args(args).output().unwrap().status.success()
    }

    /// Returns the IDs of the programs that are attached to the node's cgroup.
    pub fn attached(&self) -> Vec<Value> {
        self.attached_below(".")
    }

    /// Returns the IDs of the programs that are attached to a cgroup below the node's.
    pub fn attached_below(&self, path: &str) -> Vec<Value> {
        let cgroup = self.cgroup.join(path);
        let shown = self.inside("bpftool").args(["--json", "cgroup", "show"]).arg(&cgroup).output().unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        let shown: Vec<Value> = shown.as_array().into_iter().flatten().map(|program| program["id"].clone()).collect();
        // It shows nothing where it asks for what kernels before 6.0 do not know.
        if shown.is_empty() { queried(&cgroup) } else { shown }
    }

    /// Waits until everything that the agent made is gone but the note of the layout's version: pins, directories,
    /// links on the cgroup.
    pub fn nothing_left(&self) {
        self.until("an empty bpffs", |node| {
            let directory = node.outer_path(&format!("{}/sockeye", node.bpffs()));
            let below = fs::read_dir(directory).into_iter().flatten().flatten();
            below.filter(|entry| entry.file_name() != "_layout").count() == 0
        });
        assert_eq!(self.attached(), Vec::<Value>::new(), "still attached");
    }
}

/// Returns the IDs of the programs attached to a cgroup, by the kernel's own query.
fn queried(cgroup: &Path) -> Vec<Value> {
    let Ok(cgroup) = fs::File::open(cgroup) else { return Vec::new() };
    let attach_types = SECTIONS.iter().filter(|section| section.target == Target::Cgroup);
    let attach_types: BTreeSet<u32> = attach_types.map(|section| section.attach_type).collect();
    // The kernel does not know each of them.
    let attached = attach_types.into_iter().filter_map(|of| bpf::prog_query(cgroup.as_fd(), of).ok());
    attached.flat_map(|attached| attached.programs).map(Value::from).collect()
}
