//! `Folder`: a folder of manifests, `X.yaml` each, with their statuses beside them in `X.status.yaml`: the same object
//! with the status that the operator would fold. Does IO: files.
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
use kube::core::ObjectMeta;
use serde::Serialize;
use sockeye_crds::{
    BpfNode, BpfNodeDetail, BpfNodeDetailStatus, BpfNodeStatus, BpfProgram, BpfRevision, BpfRevisionSpec, Condition,
    ConditionType, Reason, Refusal, condition,
    node::{BpfNodeDetailSpec, BpfNodeSpec},
    program::{MapRef, MapSpec},
    summary::{self, Acceptance, Liveness, NodeView, Subject},
};
use sockeye_ebpf::check;

use super::{
    manifest::{self, Dispatched, Manifest, Stamp},
    pod_list::PodList,
    table::{self, Row},
};
use crate::{
    control::{event::Report, report::conditions::conditions},
    model::assignment::{Assignment, UnreadableRevision},
};

/// The file with the status of the node's BpfNode.
const NODE_STATUS: &str = "node.status.yaml";
/// The file with the status of its BpfNodeDetail.
const NODE_DETAIL: &str = "node.detail.status.yaml";

/// A folder of manifests.
#[derive(Debug)]
pub struct Folder {
    directory: PathBuf,
    node_name: String,
    /// Lists the node's pods.
    pod_list: Option<PodList>,
    manifests: BTreeMap<PathBuf, Manifest>,
    objects: SharedObjects,
    /// The node's conditions, as last written.
    conditions: Vec<Condition>,
    printed: String,
}

/// The objects of all manifests by digest: one that several manifests hold is kept once.
#[derive(Debug, Default)]
struct SharedObjects(BTreeMap<String, Weak<[u8]>>);

impl SharedObjects {
    /// Has a manifest share its object with those that have the same.
    fn share(&mut self, Dispatched { revision, bytes }: &mut Dispatched) {
        let digest = &revision.spec.template.digest;
        match self.0.get(digest).and_then(Weak::upgrade) {
            Some(same) => *bytes = same,
            None => drop(self.0.insert(digest.clone(), Arc::downgrade(bytes))),
        }
    }

    /// Forgets the objects that no manifest holds any more.
    fn forget(&mut self) {
        self.0.retain(|_, bytes| bytes.strong_count() > 0);
    }
}

impl Folder {
    /// Opens a folder, without reading it yet. Statuses that are no longer true are removed first: all of another boot,
    /// and those beside manifests that are gone.
    ///
    /// # Errors
    /// Fails where the folder can't be listed, or a status not removed.
    pub fn open(directory: &Path, node_name: &str, boot_id: &str) -> io::Result<Self> {
        let of_node = [NODE_STATUS, NODE_DETAIL].map(|name| directory.join(name));
        let status = fs::read_to_string(&of_node[0])
            .ok()
            .and_then(|text| serde_saphyr::from_str::<BpfNode>(&text).ok()?.status)
            .filter(|status| status.node.boot_id == boot_id);
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let Some(stem) = path.to_str().and_then(|path| path.strip_suffix(".status.yaml")) else { continue };
            let of_manifest = ["yaml", "yml"].iter().any(|kind| Path::new(&format!("{stem}.{kind}")).exists());
            if status.is_some() && (of_manifest || of_node.contains(&path)) {
                continue;
            }
            if !of_node.contains(&path) && !manifest::is_status(&path) {
                tracing::warn!(file = %path.display(), "left alone: it is named as a status, and is none of a \
                    BpfProgram");
                continue;
            }
            tracing::info!(status = %path.display(), "removed: it is of another boot, or of no manifest");
            remove_if_there(&path)?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            node_name: node_name.to_owned(),
            pod_list: None,
            manifests: BTreeMap::new(),
            objects: SharedObjects::default(),
            conditions: status.map(|status| status.conditions).unwrap_or_default(),
            printed: String::new(),
        })
    }

    /// Returns the name under which the node is reported.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// Adds a file that lists the node's pods.
    pub fn with_pods(self, pod_list: Option<PodList>) -> Self {
        Self { pod_list, ..self }
    }

    /// Returns the directories in which something to read may change.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        iter::once(self.directory.as_path()).chain(self.pod_list.as_ref().map(PodList::directory))
    }

    /// Returns the file names of the manifests that are not in effect.
    pub fn unready(&self) -> Vec<String> {
        let ready = |manifest: &Manifest| match &manifest.acceptance {
            Acceptance::Accepted { .. } => condition::find(&manifest.status.conditions, ConditionType::Ready)
                .is_some_and(|ready| ready.status == condition::Status::True || ready.reason == Reason::Suspended),
            Acceptance::Refused { .. } => false,
        };
        let unready = self.manifests.iter().filter(|(_, manifest)| !ready(manifest));
        unready.map(|(path, _)| file_name(path)).collect()
    }

    /// Reads what changed; reports whether anything did.
    ///
    /// # Errors
    /// Fails where the folder can't be listed. A manifest that can't be read is refused, and no error.
    pub fn scan(&mut self) -> io::Result<bool> {
        let found = self.find()?;
        let mut changed = self.pod_list.as_mut().is_some_and(PodList::scan);
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
        if changed {
            self.manifests.values_mut().for_each(Manifest::judge_alone);
            self.refuse_namesakes();
            self.refuse_borrowers();
        }
        self.objects.forget();
        Ok(changed)
    }

    /// Lists the manifests, each with what changes when it is written.
    fn find(&self) -> io::Result<BTreeMap<PathBuf, Stamp>> {
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
        Ok(found)
    }

    /// Of several manifests with the same name, only the first is run, by file name; the others are refused.
    fn refuse_namesakes(&mut self) {
        let mut first: BTreeMap<String, String> = BTreeMap::new();
        for (path, manifest) in &mut self.manifests {
            let Some(name) = manifest.claimed_name().map(str::to_owned) else { continue };
            match first.get(&name) {
                Some(other) => manifest.refuse_as_namesake(other),
                None => drop(first.insert(name, file_name(path))),
            }
        }
    }

    /// Refuses the manifests that name a map which its BpfProgram does not share. Until there is such a BpfProgram, the
    /// node waits for it.
    fn refuse_borrowers(&mut self) {
        let running = self.manifests.values().filter_map(Manifest::running);
        let templates: BTreeMap<String, Arc<BpfRevision>> = running
            .map(|Dispatched { revision, .. }| (revision.spec.program_ref.name.clone(), Arc::clone(revision)))
            .collect();
        let unshared = |(field, map_ref): (String, MapRef)| {
            let lender = &templates.get(&map_ref.program)?.spec.template;
            let is_shared = lender.map(&map_ref.name).is_some_and(MapSpec::is_shared);
            (!is_shared).then(|| {
                let shared = lender.maps.iter().filter(|map| map.is_shared()).map(|map| map.name.as_str());
                format!("{field}: {}", map_ref.unshared_message(shared))
            })
        };
        for manifest in self.manifests.values_mut() {
            let maps = manifest.running().into_iter().flat_map(|running| running.revision.spec.template.map_refs());
            let message = maps.filter_map(unshared).next();
            if let Some(message) = message {
                manifest.refuse_as_borrower(message);
            }
        }
    }

    /// Returns what the node is to run.
    pub fn assignment(&self) -> Assignment {
        let (pods, namespaces) =
            self.pod_list.as_ref().map(|list| (list.pods.clone(), list.namespaces.clone())).unwrap_or_default();
        let mut assignment = Assignment { complete: true, pods, namespaces, ..Assignment::default() };
        for manifest in self.manifests.values().filter(|manifest| !manifest.is_namesake()) {
            match (manifest.running(), &manifest.program) {
                (Some(Dispatched { revision, bytes }), _) => {
                    let BpfRevisionSpec { program_ref, template, .. } = &revision.spec;
                    let (name, digest) = (program_ref.name.clone(), template.digest.clone());
                    assignment.revisions.insert(name, Arc::clone(revision));
                    assignment.objects.insert(digest, Arc::clone(bytes));
                }
                (None, Ok(program)) => {
                    let Acceptance::Refused { message, .. } = &manifest.acceptance else { continue };
                    let name = program.metadata.name.clone().unwrap_or_default();
                    let why = Refusal { reason: Reason::Unsupported, message: message.clone() };
                    assignment.unreadable.insert(name, UnreadableRevision { name: None, uid: None, why });
                }
                // It may be any BpfProgram's.
                (None, Err(_)) => assignment.complete = false,
            }
        }
        assignment
    }

    /// Writes every status that changed beside its manifest, those of the node first, and returns the table if it
    /// differs from the one before.
    ///
    /// # Errors
    /// Fails where a status can't be written.
    pub fn write(&mut self, report: &Report, now: Timestamp) -> io::Result<Option<String>> {
        let Report { status, detail, awaiting, older_layout, assignment: _ } = report;
        let states = conditions(status, awaiting, older_layout.as_deref());
        self.conditions = condition::merge(&self.conditions, states, None::<i64>, now);
        let node = &BpfNodeStatus { conditions: self.conditions.clone(), ..status.clone() };
        self.write_node(node, detail)?;
        let labels = BTreeMap::new();
        let view = NodeView { name: &self.node_name, labels: &labels, liveness: Liveness::Live, report: Some(node) };
        for (path, manifest) in &mut self.manifests {
            let Ok(program) = &manifest.program else { continue };
            let reference = manifest::reference(program);
            let subject = Subject {
                program: &reference,
                generation: 1,
                acceptance: &manifest.acceptance,
                current: manifest.running().map(|dispatched| dispatched.revision.as_ref()),
                users: &[],
            };
            let status = summary::fold(&subject, &[view], &manifest.status, now);
            let file = status_path(path);
            if status != manifest.status || !manifest.reported || !file.exists() {
                let mut shown = BpfProgram { status: Some(status.clone()), ..program.as_ref().clone() };
                if let (Acceptance::Accepted { .. }, Some(dispatched), None) =
                    (&manifest.acceptance, &manifest.dispatched, shown.spec.bytecode.builtin)
                {
                    shown.spec.bytecode.inline = Some(check::encode_inline(&dispatched.bytes));
                }
                replace(&file, &shown)?;
                manifest.status = status;
                manifest.reported = true;
            }
        }
        Ok(self.table())
    }

    /// Writes the node's own statuses, from which the others are folded.
    fn write_node(&self, status: &BpfNodeStatus, detail: &BpfNodeDetailStatus) -> io::Result<()> {
        let metadata = || ObjectMeta { name: Some(self.node_name.clone()), ..ObjectMeta::default() };
        let node = BpfNode { metadata: metadata(), spec: BpfNodeSpec {}, status: Some(status.clone()) };
        replace(&self.directory.join(NODE_STATUS), &node)?;
        let detail = BpfNodeDetail { metadata: metadata(), spec: BpfNodeDetailSpec {}, status: Some(detail.clone()) };
        replace(&self.directory.join(NODE_DETAIL), &detail)
    }

    /// Returns the table if more than the ages in it changed.
    fn table(&mut self) -> Option<String> {
        let row = |age: fn(SystemTime) -> Duration| {
            let rows = self.manifests.values().filter_map(move |manifest| {
                Some(Row { name: manifest.name()?, status: &manifest.status, age: age(manifest.stamp.0) })
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

fn is_manifest(path: &Path) -> bool {
    let name = file_name(path);
    let yaml = name.ends_with(".yaml") || name.ends_with(".yml");
    yaml && !name.starts_with('.') && !name.ends_with(".status.yaml")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn status_path(manifest: &Path) -> PathBuf {
    manifest.with_extension("status.yaml")
}

/// Writes the YAML beside its place and renames it over, if it differs from what is there.
fn replace(path: &Path, object: &impl Serialize) -> io::Result<()> {
    let text = serde_saphyr::to_string(object).map_err(io::Error::other)?;
    if fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let staged = path.with_file_name(format!(".{}", file_name(path)));
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
mod tests;
