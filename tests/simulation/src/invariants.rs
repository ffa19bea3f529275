//! What is so once all is well and quiet: every spec is dispatched, every node runs what it should and nothing else,
//! and each status says what is there.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value};
use sockeye_agent::{model::observed::Observed, node::Node as _};
use sockeye_crds::{
    BpfNode, BpfProgram, BpfRevision, ConditionType,
    condition::{self, Status},
    names,
    node::{NodeProgram, State},
    revision::{ProgramRef, assigned},
};

use crate::{
    api::{Api, kind::Kind},
    node::SimNode,
};

/// The labels of a node.
type Labels = BTreeMap<String, String>;

/// Returns the first thing that is not as it should be.
pub fn unsettled(api: &Api, nodes: &mut BTreeMap<String, SimNode>) -> Option<String> {
    let revisions: Vec<BpfRevision> = api.list(Kind::Revision).map(|(_, object)| read(object)).collect();
    let labels = api.list(Kind::Node).map(|(name, node)| (name.clone(), labels(node)));
    let labels: BTreeMap<String, Labels> = labels.collect();
    let programs: Vec<BpfProgram> = api.list(Kind::Program).map(|(_, object)| read(object)).collect();
    let orphan = revisions.iter().find(|revision| {
        let owner = &revision.spec.program_ref;
        !programs.iter().any(|program| program_ref(program) == *owner)
    });
    if let Some(orphan) = orphan {
        return Some(format!("revision {} belongs to nobody", name(&orphan.metadata.name)));
    }
    let of_program = programs.iter().find_map(|program| {
        let own = revisions.iter().filter(|revision| revision.spec.program_ref == program_ref(program));
        let why = unsettled_program(program, &own.collect::<Vec<_>>(), &labels).err()?;
        Some(format!("BpfProgram {}: {why}; its status: {:?}", name(&program.metadata.name), program.status))
    });
    of_program.or_else(|| {
        nodes.iter_mut().find_map(|(node, kernel)| {
            let Some(labels) = labels.get(node) else { return Some(format!("{node} has no Node")) };
            let why = unsettled_node(api, node, kernel, &assigned(&revisions, labels)).err()?;
            Some(format!("{node}: {why}"))
        })
    })
}

/// Fails with what is not as it should be of a BpfProgram.
fn unsettled_program(
    program: &BpfProgram,
    revisions: &[&BpfRevision],
    nodes: &BTreeMap<String, Labels>,
) -> Result<(), String> {
    let meta = &program.metadata;
    ensure(meta.deletion_timestamp.is_none(), || "its deletion has not ended".to_owned())?;
    let status = program.status.clone().unwrap_or_default();
    ensure(status.observed_generation == meta.generation, || "its status is about another generation".to_owned())?;
    let live: Vec<&&BpfRevision> = revisions.iter().filter(|revision| revision.is_live()).collect();
    ensure(live.len() <= 1, || format!("it has {} active revisions", live.len()))?;
    let said = |type_| condition::find(&status.conditions, type_).map(|condition| condition.status);
    let is_valid = program.spec.programs.iter().all(|function| function.name == "my_prog");
    let accepted = if is_valid { Status::True } else { Status::False };
    ensure(said(ConditionType::Accepted) == Some(accepted), || format!("Accepted is not {accepted:?}"))?;
    let current = status.current_revision.as_ref().map(|current| current.name.as_str());
    let newest = live.first().map(|revision| name(&revision.metadata.name));
    ensure(current == newest, || format!("its current revision is {newest:?}"))?;
    let Some(revision) = live.first() else {
        return ensure(!is_valid, || "it is not dispatched".to_owned());
    };
    let template = &revision.spec.template;
    if is_valid {
        let target = program.spec.attach.first();
        let is_same = template.suspend == program.spec.suspend
            && template.node_selector == program.spec.node_selector
            && template.programs.iter().all(|function| function.attach.first() == target)
            && template.digest == digest(program);
        ensure(is_same, || format!("its spec is not that of {newest:?}"))?;
    }
    let selected = nodes.values().filter(|labels| template.selects(labels)).count() as i64;
    let counts = status.nodes.clone().unwrap_or_default();
    let updated = if template.suspend { counts.suspended } else { counts.updated };
    let counted = if is_valid { (counts.desired, updated) } else { (counts.desired, selected) };
    ensure(counted == (selected, selected), || format!("{selected} nodes run it: {counts:?}"))?;
    let is_ready = said(ConditionType::Ready) == Some(Status::True);
    ensure(!is_valid || template.suspend || selected == 0 || is_ready, || "it is not Ready".to_owned())
}

/// Fails with what is not as it should be on a node.
fn unsettled_node(
    api: &Api,
    node: &str,
    kernel: &mut SimNode,
    assigned: &BTreeMap<&str, &BpfRevision>,
) -> Result<(), String> {
    let report: BpfNode = api.get(Kind::Report, node).map(read).ok_or("it has no BpfNode")?;
    let reported = report.status.ok_or("its BpfNode has no status")?.programs;
    let homes = kernel.homes().map_err(|error| error.to_string())?;
    let names = |named: Vec<&str>| named.join(", ");
    let wanted: Vec<&str> = assigned.keys().copied().collect();
    ensure(homes.iter().map(String::as_str).eq(wanted.iter().copied()), || {
        format!("it has {homes:?} in place of {}", names(wanted.clone()))
    })?;
    let told: Vec<&str> = reported.iter().map(|program| program.name.as_str()).collect();
    ensure(told == wanted, || format!("it reports {} in place of {}", names(told.clone()), names(wanted.clone())))?;
    for entry in &reported {
        let Some(revision) = assigned.get(entry.name.as_str()) else { continue };
        let observed = kernel.observe(&entry.name).map_err(|error| error.to_string())?;
        runs(revision, &observed).map_err(|why| format!("{}: {why}: {observed:?}", entry.name))?;
        reports(entry, revision, &observed).map_err(|why| format!("{}: {why}: {entry:?}", entry.name))?;
    }
    Ok(())
}

/// Fails unless a node runs a revision.
fn runs(revision: &BpfRevision, observed: &Observed) -> Result<(), String> {
    ensure(observed.uid.as_ref() == Some(&revision.spec.program_ref.uid), || "it is another's".to_owned())?;
    let current = revision.metadata.name.as_ref();
    ensure(observed.revision.as_ref() == current, || format!("it does not run {current:?}"))?;
    let links = observed.links.values().filter(|link| link.in_effect).count();
    let expected = usize::from(!revision.spec.template.suspend);
    ensure(links == expected && observed.links.len() == expected, || format!("it has {links} links in effect"))
}

/// Fails unless a report says what a node has.
fn reports(entry: &NodeProgram, revision: &BpfRevision, observed: &Observed) -> Result<(), String> {
    let ids: Vec<i64> = observed.functions.values().map(|function| function.info.id.into()).collect();
    ensure(entry.program_ids == ids, || format!("it has the programs {ids:?}"))?;
    let links = observed.links.values().filter(|link| link.in_effect).count() as i64;
    ensure(entry.links == links, || format!("it has {links} links"))?;
    let is_current = entry.revision.as_ref() == revision.metadata.name.as_ref();
    let state = if revision.spec.template.suspend { State::Suspended } else { State::Attached };
    ensure(is_current && entry.state == state && entry.uid == revision.spec.program_ref.uid, || {
        format!("it reports another state than {state:?}")
    })
}

fn ensure(is_so: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise()) }
}

fn read<K: DeserializeOwned>(object: &Value) -> K {
    from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"))
}

fn labels(node: &Value) -> Labels {
    from_value(node["metadata"]["labels"].clone()).unwrap_or_default()
}

fn name(name: &Option<String>) -> &str {
    name.as_deref().unwrap_or_default()
}

fn program_ref(program: &BpfProgram) -> ProgramRef {
    let meta = &program.metadata;
    ProgramRef { name: name(&meta.name).to_owned(), uid: meta.uid.clone().unwrap_or_default() }
}

/// Returns the digest of the object that a spec has.
fn digest(program: &BpfProgram) -> String {
    let inline = program.spec.bytecode.inline.as_deref().unwrap_or_default();
    names::digest(&STANDARD.decode(inline).unwrap())
}
