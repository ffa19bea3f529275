//! `diff`: what an edit would change. Exits as kubectl's: 0 if nothing changes, 1 if something does, 2 for an error.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use k8s_openapi::api::core::v1;
use sockeye_crds::{BpfProgram, BpfProgramSpec, BpfRevision, RevisionTemplate, revision::ProgramRef};
use sockeye_ebpf::{
    check::{check_with, embedded_bytes},
    values::list::Lists,
};

use super::{
    context::Context,
    manifests::{self, Files, Manifest},
    print,
};
use crate::{
    source::{Cluster, Kind, Source, SourceError},
    view::{
        diff::{self, Diff},
        which::Pod,
    },
};

/// The exit code where something changes.
const CHANGES: u8 = 1;

/// The arguments of `diff`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let Source::Cluster(cluster) = context.source().await? else {
        anyhow::bail!("diff compares with a cluster; for a node without one see sockeye apply --dry-run");
    };
    let manifests = manifests::read(&args.files)?;
    let mut notes = Vec::new();
    let seen = seen(&cluster, &mut notes).await;
    let mut diffs: Vec<Diff> = Vec::new();
    for manifest in &manifests {
        let found = compare(&cluster, manifest, &seen).await.with_context(|| manifest.place.clone())?;
        diffs.push(found);
    }
    if context.format.is_table() {
        diffs.iter().try_for_each(|diff| print::text(&diff::render(diff)))?;
    } else {
        print::structured(context, &diffs)?;
    }
    print::notes(&notes);
    let is_same = diffs.iter().all(Diff::is_empty);
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}

async fn compare(cluster: &Cluster, manifest: &Manifest, seen: &diff::Cluster) -> anyhow::Result<Diff> {
    let name = manifest.name();
    let source = Source::Cluster(cluster.clone());
    let current: Option<BpfProgram> = match source.read(Kind::Program, name).await {
        Ok(program) => Some(program),
        Err(SourceError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let old = match current.as_ref().and_then(|program| program.status.as_ref()?.current_revision.as_ref()) {
        Some(revision) => Some(source.read::<BpfRevision>(Kind::Revision, &revision.name).await?.spec.template),
        None => None,
    };
    let spec = &manifest.program.spec;
    let new = template(cluster, name, spec, old.as_ref()).await?;
    let mut found = diff::diff(name, old.as_ref(), &new, seen);
    if let Some(current) = &current {
        found.is_new = false;
        let (old, new) = (serde_json::to_value(&current.spec)?, serde_json::to_value(spec)?);
        found.fields = diff::fields("spec", &old, &new);
    }
    Ok(found)
}

/// Returns the template of the revision that the operator would make of a spec.
async fn template(
    cluster: &Cluster,
    name: &str,
    spec: &BpfProgramSpec,
    old: Option<&RevisionTemplate>,
) -> anyhow::Result<RevisionTemplate> {
    let bytes = read_object(cluster, spec).await?;
    let mut lists = Lists::new();
    for map in &spec.maps {
        if let Some(from) = &map.entries_from {
            let list = cluster.config_map_key(&from.config_map_ref.name, &from.config_map_ref.key).await?;
            lists.insert(map.name.clone(), Arc::from(list));
        }
    }
    let accepted = check_with(spec, &bytes, &lists)?;
    let program = ProgramRef { name: name.to_owned(), uid: String::new() };
    let mut template = accepted.into_revision_spec(program, 0, 0).template;
    if let Some(old) = old.filter(|old| old.digest == template.digest) {
        // They follow from the object, whose bytes are the same.
        template.variants = old.variants.clone();
    }
    Ok(template)
}

/// Returns the bytes of the object, from where the operator would take them.
async fn read_object(cluster: &Cluster, spec: &BpfProgramSpec) -> anyhow::Result<Vec<u8>> {
    if let Some(bytes) = embedded_bytes(&spec.bytecode)? {
        return Ok(bytes.into_owned());
    }
    if let Some(map) = &spec.bytecode.config_map_ref {
        return Ok(cluster.config_map_key(&map.name, &map.key).await?);
    }
    let image = spec.bytecode.image.as_ref().context("spec.bytecode has no source")?;
    super::push::pull(&image.reference).await
}

/// Reads nodes and pods, as far as that is allowed.
async fn seen(cluster: &Cluster, notes: &mut Vec<String>) -> diff::Cluster {
    let mut or_note = |error: SourceError| notes.push(format!("{error}; what it would change is not known"));
    let nodes = cluster.node_labels().await.map_err(&mut or_note).ok();
    let namespaces = cluster.namespace_labels().await.map_err(&mut or_note).ok();
    let pods = cluster.pods(None).await.map_err(&mut or_note).ok();
    let pods = pods.map(|pods| pods.into_iter().filter_map(|one| pod(one, namespaces.as_ref())).collect());
    diff::Cluster { nodes, pods }
}

/// Returns a pod that is on a node and has not ended.
fn pod(pod: v1::Pod, namespaces: Option<&BTreeMap<String, BTreeMap<String, String>>>) -> Option<Pod> {
    let status = pod.status.unwrap_or_default();
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let namespace = pod.metadata.namespace.unwrap_or_default();
    Some(Pod {
        namespace_labels: namespaces.and_then(|all| all.get(&namespace).cloned()),
        namespace,
        name: pod.metadata.name.unwrap_or_default(),
        uid: pod.metadata.uid.unwrap_or_default(),
        node: pod.spec?.node_name?,
        qos_class: status.qos_class.unwrap_or_default(),
        labels: pod.metadata.labels.unwrap_or_default(),
        node_labels: None,
    })
}
