//! The BpfPrograms that are run: the seed's program, under many names, spread over the cgroups of one node.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sockeye_agent::{kernel::bpf, model::assignment::Assignment};
use sockeye_crds::{BpfProgramSpec, BpfRevision, names::digest, revision::ProgramRef};
use sockeye_ebpf::{Object, check::check};

/// `BPF_CGROUP_SOCK_OPS`
const SOCK_OPS: u32 = 3;

/// A cgroup takes 64 programs of a kind: with so many, a thousand of the agent's fit beside a thousand of libbpf's.
pub const CGROUPS: usize = 32;

/// The bench's cgroups: directories below one of its own.
#[derive(Clone, Debug)]
pub struct Cgroups(PathBuf);

impl Cgroups {
    /// Makes them below `root`.
    pub fn make(root: &Path) -> Result<Self> {
        for i in 0..CGROUPS {
            fs::create_dir_all(root.join(name(i)))?;
        }
        Ok(Self(root.to_owned()))
    }

    /// The directory of the `i`th program's.
    pub fn directory(&self, i: usize) -> PathBuf {
        self.0.join(name(i))
    }
}

fn name(i: usize) -> String {
    format!("c{:02}", i % CGROUPS)
}

/// A BpfProgram's name.
pub fn program(i: usize) -> String {
    format!("program-{i:04}")
}

/// The target that is one cgroup.
pub fn at(path: &str) -> Value {
    json!({"type": "CgroupPath", "cgroupPath": path})
}

/// The `i`th program's.
fn target(i: usize) -> Value {
    at(&format!("/{}", name(i)))
}

/// A spec of an object's one program.
fn spec(object: &[u8], target: &Value) -> Value {
    let named = |object: Object<'_>| object.programs().map(|(name, _)| json!({"name": name})).collect::<Vec<_>>();
    json!({
        "bytecode": {"inline": STANDARD.encode(object)},
        "attach": [target],
        "programs": Object::read(object).map(named).unwrap_or_default(),
    })
}

/// The `i`th program's manifest, as a user would write it.
pub fn manifest(i: usize, object: &[u8]) -> String {
    manifest_of(&program(i), object, &target(i))
}

/// The manifest of one with any target.
pub fn manifest_of(name: &str, object: &[u8], target: &Value) -> String {
    json!({
        "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram",
        "metadata": {"name": name}, "spec": spec(object, target),
    })
    .to_string()
}

/// What the operator would dispatch of it.
pub fn revision(i: usize, object: &[u8]) -> Result<Arc<BpfRevision>> {
    let spec: BpfProgramSpec = serde_json::from_value(spec(object, &target(i)))?;
    let reference = ProgramRef { name: program(i), uid: "bench".to_owned() };
    let spec = check(&spec, object)?.into_revision_spec(reference, 1, 1);
    Ok(Arc::new(BpfRevision::of(spec)))
}

/// The assignment of these revisions, where nothing else is to be there and no object is at hand.
pub fn assignment(revisions: impl IntoIterator<Item = Arc<BpfRevision>>) -> Assignment {
    let revisions = revisions.into_iter().map(|revision| (revision.spec.program_ref.name.clone(), revision));
    Assignment { revisions: revisions.collect(), complete: true, ..Assignment::default() }
}

/// Returns an assignment with an object at hand.
pub fn with_object(assignment: &Assignment, object: &[u8]) -> Assignment {
    Assignment { objects: [(digest(object), object.into())].into(), ..assignment.clone() }
}

/// The IDs of the programs of this kind that are attached to a cgroup, by its own query.
pub fn attached(cgroup: &File) -> Result<Vec<u32>> {
    Ok(bpf::prog_query(cgroup.as_fd(), SOCK_OPS)?.programs)
}
