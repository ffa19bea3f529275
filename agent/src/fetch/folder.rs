//! Manifests in a folder, as the kubelet reads static pods: `X.yaml` holds one BpfProgram, and `X.status.yaml` beside it is
//! the same object with the status that the operator would fold. The validation is the operator's own.
//!
//! A manifest that can't be read or is refused leaves what runs; one that is gone ends it.

use std::{
    collections::BTreeMap,
    fs, io, iter,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;
use serde::Serialize;
use serde_json::Value;
use sockeye_crds::{
    BpfNode, BpfNodeStatus, BpfProgram, BpfProgramStatus, BpfRevision, ConditionType, Reason, Refusal, condition,
    names,
    node::BpfNodeSpec,
    revision::ProgramRef,
    summary::{self, Acceptance, Liveness, NodeView, Subject},
};
use sockeye_ebpf::check;

use crate::{
    agent::{Bytes, Missing, Wants},
    fetch::listed::Listed,
    table::{self, Row},
};

/// All BpfPrograms of a folder have this UID: their names tell them apart, and a manifest put back is the same object.
const UID: &str = "standalone";

/// The node's own status.
const NODE_STATUS: &str = "node.status.yaml";

/// A folder of manifests.
#[derive(Debug)]
pub struct Folder {
    directory: PathBuf,
    node_name: String,
    /// What tells of the node's pods.
    listed: Option<Listed>,
    manifests: BTreeMap<PathBuf, Manifest>,
    objects: Shared,
    printed: String,
}

/// Objects' bytes by their digests: those that several manifests hold are kept once.
#[derive(Debug, Default)]
struct Shared(BTreeMap<String, Weak<[u8]>>);

impl Shared {
    /// Has a manifest share its bytes with those that have the same.
    fn share(&mut self, Dispatched { revision, bytes }: &mut Dispatched) {
        let digest = &revision.spec.digest;
        match self.0.get(digest).and_then(Weak::upgrade) {
            Some(same) => *bytes = same,
            None => drop(self.0.insert(digest.clone(), Arc::downgrade(bytes))),
        }
    }

    /// Forgets what no manifest holds any more.
    fn forget(&mut self) {
        self.0.retain(|_, bytes| bytes.strong_count() > 0);
    }
}

/// One manifest, as it was last read.
#[derive(Debug)]
struct Manifest {
    stamp: (SystemTime, u64),
    /// Without `inline` where it was accepted: `dispatched` has the bytes, and they are most of what is kept.
    program: Result<Box<BpfProgram>, String>,
    acceptance: Acceptance,
    dispatched: Option<Dispatched>,
    status: BpfProgramStatus,
    /// Whether the status stands beside this very manifest, not beside the one before it.
    told: bool,
}

/// What of a manifest was last accepted.
#[derive(Clone, Debug)]
struct Dispatched {
    revision: Arc<BpfRevision>,
    bytes: Arc<[u8]>,
}

impl Folder {
    /// A folder that has not been read yet. Statuses that no longer say what is so are taken away first: all of another
    /// boot's, and those beside manifests that are gone.
    pub fn open(directory: &Path, node_name: &str, boot_id: &str) -> io::Result<Self> {
        let of_node = directory.join(NODE_STATUS);
        let of_this_boot = fs::read_to_string(&of_node)
            .ok()
            .and_then(|text| serde_saphyr::from_str::<BpfNode>(&text).ok()?.status)
            .is_some_and(|status| status.node.boot_id == boot_id);
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let Some(stem) = path.to_str().and_then(|path| path.strip_suffix(".status.yaml")) else { continue };
            let of_manifest = ["yaml", "yml"].iter().any(|kind| Path::new(&format!("{stem}.{kind}")).exists());
            if !(of_this_boot && (of_manifest || path == of_node)) {
                tracing::info!(status = %path.display(), "taken away: it is of another boot, or of no manifest");
                remove_if_there(&path)?;
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            node_name: node_name.to_owned(),
            listed: None,
            manifests: BTreeMap::new(),
            objects: Shared::default(),
            printed: String::new(),
        })
    }

    /// With a file that tells of the node's pods.
    pub fn with_pods(self, listed: Option<Listed>) -> Self {
        Self { listed, ..self }
    }

    /// Where there is something to read.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        iter::once(self.directory.as_path()).chain(self.listed.as_ref().map(Listed::directory))
    }

    /// The manifests that are not in effect, by file name.
    pub fn unready(&self) -> Vec<String> {
        let ready = |manifest: &Manifest| match &manifest.acceptance {
            Acceptance::Accepted { .. } => condition::find(&manifest.status.conditions, ConditionType::Ready)
                .is_some_and(|ready| ready.status == condition::Status::True || ready.reason == Reason::Suspended),
            Acceptance::Refused { .. } => false,
        };
        let unready = self.manifests.iter().filter(|(_, manifest)| !ready(manifest));
        unready.map(|(path, _)| path.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect()
    }

    /// Reads what changed; tells whether anything did.
    pub fn scan(&mut self) -> io::Result<bool> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            match fs::metadata(&path) {
                Ok(meta) if is_manifest(&path) && meta.is_file() => {
                    found.insert(path, (meta.modified()?, meta.len()));
                }
                // Gone since the folder was listed: a rename's other half.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut changed = self.listed.as_mut().is_some_and(Listed::scan);
        let gone: Vec<PathBuf> = self.manifests.keys().filter(|path| !found.contains_key(*path)).cloned().collect();
        for path in gone {
            self.manifests.remove(&path);
            remove_if_there(&status_path(&path))?;
            changed = true;
        }
        for (path, stamp) in found {
            if self.manifests.get(&path).is_none_or(|manifest| manifest.stamp != stamp) {
                let previous = self.manifests.remove(&path);
                let mut manifest = Manifest::read(&path, stamp, previous);
                manifest.dispatched.iter_mut().for_each(|dispatched| self.objects.share(dispatched));
                if let Acceptance::Refused { reason, message } = &manifest.acceptance {
                    tracing::warn!(manifest = %path.display(), reason = reason.as_str(), "{message}");
                }
                self.manifests.insert(path, manifest);
                changed = true;
            }
        }
        self.objects.forget();
        Ok(changed)
    }

    /// What the node is to run.
    pub fn wants(&self) -> Wants {
        let (pods, namespaces) =
            self.listed.as_ref().map(|l| (l.pods.clone(), l.namespaces.clone())).unwrap_or_default();
        let mut wants = Wants { complete: true, pods, namespaces, ..Wants::default() };
        for manifest in self.manifests.values() {
            match (&manifest.dispatched, &manifest.program) {
                (Some(dispatched), _) => {
                    let name = dispatched.revision.spec.program.name.clone();
                    wants.run.insert(name, Arc::clone(&dispatched.revision));
                }
                (None, Ok(program)) => {
                    let Acceptance::Refused { message, .. } = &manifest.acceptance else { continue };
                    wants.keep.insert(program.metadata.name.clone().unwrap_or_default(), message.clone());
                }
                // Nobody knows which BpfProgram it was to be.
                (None, Err(_)) => wants.complete = false,
            }
        }
        wants
    }

    /// Writes every status that changed beside its manifest, and gives the table where it differs from the one before.
    pub fn write(&mut self, node: &BpfNodeStatus, now: Timestamp) -> io::Result<Option<String>> {
        // First what the others are folded from.
        let object = BpfNode {
            metadata: kube::core::ObjectMeta { name: Some(self.node_name.clone()), ..Default::default() },
            spec: BpfNodeSpec {},
            status: Some(node.clone()),
        };
        replace(&self.directory.join(NODE_STATUS), &object)?;
        let labels = BTreeMap::new();
        let view = NodeView { name: &self.node_name, labels: &labels, liveness: Liveness::Live, report: Some(node) };
        for (path, manifest) in &mut self.manifests {
            let Ok(program) = &manifest.program else { continue };
            let reference = reference(program);
            let subject = Subject {
                program: &reference,
                generation: 1,
                acceptance: &manifest.acceptance,
                dispatched: manifest.dispatched.as_ref().map(|d| d.revision.as_ref()),
                users: &[],
            };
            let status = summary::fold(&subject, &[view], &manifest.status, now);
            let file = status_path(path);
            if status != manifest.status || !manifest.told || !file.exists() {
                let mut shown = BpfProgram { status: Some(status.clone()), ..program.as_ref().clone() };
                if let (Acceptance::Accepted { .. }, Some(dispatched), None) =
                    (&manifest.acceptance, &manifest.dispatched, shown.spec.bytecode.builtin)
                {
                    shown.spec.bytecode.inline = Some(check::encode_inline(&dispatched.bytes));
                }
                replace(&file, &shown)?;
                manifest.status = status;
                manifest.told = true;
            }
        }
        Ok(self.table())
    }

    /// The table, where more than the ages in it changed.
    fn table(&mut self) -> Option<String> {
        let row = |age: fn(SystemTime) -> Duration| {
            let rows = self.manifests.values().filter_map(move |manifest| {
                let name = manifest.program.as_ref().ok()?.metadata.name.as_deref()?;
                Some(Row { name, status: &manifest.status, age: age(manifest.stamp.0) })
            });
            table::render(&rows.collect::<Vec<_>>())
        };
        let ageless = row(|_| Duration::ZERO);
        if ageless == self.printed {
            return None;
        }
        let table = row(|since| since.elapsed().unwrap_or_default());
        self.printed = ageless;
        Some(table)
    }
}

impl Manifest {
    /// Reads and validates it. What was accepted before stays dispatched until something else is accepted.
    fn read(path: &Path, stamp: (SystemTime, u64), previous: Option<Self>) -> Self {
        let (before, status) = previous.map(|p| (p.dispatched, p.status)).unwrap_or_default();
        let mut parsed = parse(path);
        let accepted = match &mut parsed {
            Ok(program) => accept(program).inspect(|_| program.spec.bytecode.inline = None),
            Err(message) => Err(Refusal { reason: Reason::InvalidSpec, message: message.clone() }),
        };
        let (acceptance, dispatched) = match accepted {
            Ok((dispatched, notes)) => (Acceptance::Accepted { notes }, Some(dispatched)),
            Err(Refusal { reason, message }) => (Acceptance::Refused { reason, message }, before),
        };
        Self { stamp, program: parsed.map(Box::new), acceptance, dispatched, status, told: false }
    }
}

impl Bytes for Folder {
    async fn get(&self, digest: &str) -> Result<Vec<u8>, Missing> {
        let mut dispatched = self.manifests.values().filter_map(|manifest| manifest.dispatched.as_ref());
        let found = dispatched.find(|d| d.revision.spec.digest == digest);
        found.map(|d| d.bytes.to_vec()).ok_or_else(|| Missing::Refused("no manifest holds it any more".to_owned()))
    }
}

/// Reads a manifest as the API server does it under strict validation.
fn parse(path: &Path) -> Result<BpfProgram, String> {
    let wrong = |what: String| format!("{}: {what}", path.display());
    let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let (version, kind) = (BpfProgram::api_version(&()), BpfProgram::kind(&()));
    if value["apiVersion"] != version.as_ref() || value["kind"] != kind.as_ref() {
        return Err(wrong(format!("it is no {kind} of {version}")));
    }
    let mut unknown = Vec::new();
    let note = |path: serde_ignored::Path<'_>| unknown.push(field(&path.to_string()));
    let program: BpfProgram = serde_ignored::deserialize(value, note).map_err(|e| wrong(e.to_string()))?;
    // These two are checked above, and no field of the type.
    unknown.retain(|field| !matches!(field.as_str(), "apiVersion" | "kind"));
    if !unknown.is_empty() {
        return Err(wrong(format!("unknown field {}", unknown.join(", "))));
    }
    let name = program.metadata.name.as_deref().unwrap_or_default();
    if !names::is_dns_label(name) {
        return Err(wrong(format!("metadata.name {name:?} is no DNS label: it names a directory on bpffs")));
    }
    Ok(program)
}

/// A field as the API server names it: `programs[0].cgroup.path`, where serde_ignored says `programs.0.cgroup.?.path`.
fn field(path: &str) -> String {
    path.split('.').filter(|part| *part != "?").fold(String::new(), |at, part| match part.parse::<usize>() {
        Ok(index) => format!("{at}[{index}]"),
        Err(_) if at.is_empty() => part.to_owned(),
        Err(_) => format!("{at}.{part}"),
    })
}

fn accept(program: &BpfProgram) -> Result<(Dispatched, Vec<String>), Refusal> {
    let bytes = check::embedded_bytes(&program.spec.bytecode)?.ok_or_else(|| Refusal {
        reason: Reason::BytecodeUnavailable,
        message: "spec.bytecode: without a cluster only inline and builtin can be used".to_owned(),
    })?;
    let accepted = check(&program.spec, &bytes)?;
    let notes = accepted.notes.clone();
    let spec = accepted.into_revision_spec(reference(program), 1, 1);
    Ok((Dispatched { revision: Arc::new(BpfRevision::named(spec)), bytes: bytes.into_owned().into() }, notes))
}

fn reference(program: &BpfProgram) -> ProgramRef {
    ProgramRef { name: program.metadata.name.clone().unwrap_or_default(), uid: UID.to_owned() }
}

fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let yaml = name.ends_with(".yaml") || name.ends_with(".yml");
    yaml && !name.starts_with('.') && !name.ends_with(".status.yaml")
}

fn status_path(manifest: &Path) -> PathBuf {
    manifest.with_extension("status.yaml")
}

/// Writes the YAML beside its place and renames it over, where it says something else than what is there.
fn replace(path: &Path, object: &impl Serialize) -> io::Result<()> {
    let text = serde_saphyr::to_string(object).map_err(io::Error::other)?;
    if fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let staged = path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().to_string_lossy()));
    fs::write(&staged, text)?;
    fs::rename(&staged, path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_another_boot_or_of_no_manifest_are_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let left = |boot_id: &str| {
            for name in ["a.yaml", "a.status.yaml", "b.c.yml", "b.c.status.yaml", "gone.status.yaml"] {
                fs::write(folder.path().join(name), "").unwrap();
            }
            fs::write(folder.path().join(NODE_STATUS), "metadata: {}\nspec: {}\nstatus: {node: {bootID: this}}")
                .unwrap();
            let mut open = Folder::open(folder.path(), "n", boot_id).unwrap();
            assert!(open.scan().unwrap() && open.manifests.len() == 2, "manifests stay");
            let names = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.filter(|name| name.ends_with(".status.yaml")).collect();
            names.sort();
            names
        };
        assert_eq!(left("another"), Vec::<String>::new());
        assert_eq!(left("this"), ["a.status.yaml", "b.c.status.yaml", NODE_STATUS]);
    }

    #[test]
    fn the_same_object_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let example = include_str!("../../../deploy/examples/tcp-events.yaml");
        for name in ["a", "b"] {
            let manifest = example.replacen("name: tcp-events", &format!("name: {name}"), 1);
            fs::write(folder.path().join(format!("{name}.yaml")), manifest).unwrap();
        }
        let mut open = Folder::open(folder.path(), "n", "b").unwrap();
        open.scan().unwrap();
        let kept: Vec<_> =
            open.manifests.values().map(|manifest| &manifest.dispatched.as_ref().unwrap().bytes).collect();
        assert!(kept.len() == 2 && Arc::ptr_eq(kept[0], kept[1]));
        fs::remove_file(folder.path().join("a.yaml")).unwrap();
        open.scan().unwrap();
        assert_eq!(open.objects.0.len(), 1, "the other one still has it");
        fs::remove_file(folder.path().join("b.yaml")).unwrap();
        open.scan().unwrap();
        assert!(open.objects.0.is_empty());
    }
}
