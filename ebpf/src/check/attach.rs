//! `spec.attach` and `spec.programs[].attach`: each target checked by itself and against its program, and the programs
//! of one map checked against each other.

use std::collections::BTreeSet;

use sockeye_crds::{
    MapInfo, ObjectInfo, Reason, Refusal,
    names::{self, printable},
    program::{MapSpec, ProgramSpec},
    selector,
    target::{AttachTarget, MapTarget, PodsTarget},
};

use super::{
    checked::Checked,
    rules::{DNS_LABEL, PIN_NAME, check_count, invalid, list, refuse},
};
use crate::kinds::section::{self, Section, Target};

/// The field with the targets of the programs that have none of their own.
pub(super) const DEFAULT: &str = "spec.attach";

/// Returns the targets of a program, its own or the default ones, with the field that has them.
pub(super) fn targets_of<'a>(
    field: &str,
    program: &'a ProgramSpec,
    default: &'a [AttachTarget],
) -> (String, &'a [AttachTarget]) {
    if program.attach.is_empty() {
        return (DEFAULT.to_owned(), default);
    }
    (format!("{field}.attach"), &program.attach)
}

/// Checks the targets in a field, each by itself.
pub(super) fn check_targets(field: &str, targets: &[AttachTarget], object: &ObjectInfo) -> Result<(), Refusal> {
    check_count(field, targets.len(), 0, 16)?;
    for (i, target) in targets.iter().enumerate() {
        let field = format!("{field}[{i}]");
        match target {
            AttachTarget::Node | AttachTarget::AllPods => {}
            AttachTarget::Pods { pods } => check_pods(&format!("{field}.pods"), pods)?,
            AttachTarget::CgroupPath { cgroup_path } => check_path(&format!("{field}.cgroupPath"), cgroup_path)?,
            AttachTarget::Map { map } => check_map(&format!("{field}.map"), map, object)?,
        }
    }
    Ok(())
}

/// Checks that a program can be attached to the targets in a field.
pub(super) fn check_kinds(field: &str, targets: &[AttachTarget], name: &str, row: &Section) -> Result<(), Refusal> {
    let (wrong, takes) = match row.target {
        Target::Cgroup => (targets.iter().position(|t| t.map().is_some()), "cgroups, with any type but Map"),
        Target::Map => (targets.iter().position(|t| t.map().is_none()), "maps, with type Map"),
    };
    match wrong {
        None => Ok(()),
        Some(i) => Err(invalid(format!(
            "{field}[{i}].type: {name} is of type {}, whose programs are attached to {takes}: correct the target, or \
             give the program an attach of its own",
            row.program_type
        ))),
    }
}

fn check_map(field: &str, MapTarget { name, program }: &MapTarget, object: &ObjectInfo) -> Result<(), Refusal> {
    // Each node checks that another BpfProgram's map is there, and is of sockets.
    if let Some(program) = program {
        if !names::is_dns_label(program) {
            return Err(invalid(format!(
                "{field}.program: {} is no BpfProgram's name: {DNS_LABEL}",
                printable(program)
            )));
        }
        if !names::is_pin_name(name) {
            return Err(invalid(format!(
                "{field}.name: {} is no name of a map that can be shared: {PIN_NAME}",
                printable(name)
            )));
        }
        return Ok(());
    }
    let of_sockets = |m: &&MapInfo| matches!(m.map_type.as_str(), "Sockmap" | "Sockhash");
    let Some(found) = object.maps.iter().find(|m| m.name == *name) else {
        let there = list(object.maps.iter().filter(of_sockets).map(|m| m.name.as_str()));
        let message = format!(
            "{field}.name: the object has no map {}; of sockmaps and sockhashes it has: {there}",
            printable(name)
        );
        return Err(refuse(Reason::MapNotFound, message));
    };
    if !of_sockets(&found) {
        return Err(invalid(format!(
            "{field}.name: {name} is of type {}; sk_msg and sk_skb programs attach to a Sockmap or Sockhash: name one",
            found.map_type
        )));
    }
    Ok(())
}

fn check_pods(field: &str, pods: &PodsTarget) -> Result<(), Refusal> {
    let PodsTarget { pod_selector, namespace_selector, containers, start_policy: _, when_unselected: _ } = pods;
    let selectors = [("podSelector", Some(pod_selector)), ("namespaceSelector", namespace_selector.as_ref())];
    for (name, selector) in selectors {
        if let Some(fault) = selector.and_then(|selector| selector::fault(&format!("{field}.{name}"), selector)) {
            return Err(invalid(fault));
        }
    }
    check_count(&format!("{field}.containers"), containers.len(), 0, 16)?;
    let mut seen = BTreeSet::new();
    if let Some(i) = containers.iter().position(|name| !seen.insert(name)) {
        let name = printable(&containers[i]);
        return Err(invalid(format!("{field}.containers[{i}]: {name} is there twice: leave one out")));
    }
    if let Some(i) = containers.iter().position(|name| !names::is_dns_label(name)) {
        return Err(invalid(format!(
            "{field}.containers[{i}]: {} is no container's name: {DNS_LABEL}",
            printable(&containers[i])
        )));
    }
    Ok(())
}

fn check_path(field: &str, path: &str) -> Result<(), Refusal> {
    let leaves = path.split('/').any(|part| matches!(part, "." | ".."));
    if !path.starts_with('/') || leaves || path.len() > 1024 || path.chars().any(char::is_control) {
        return Err(invalid(format!(
            "{field}: {} must begin with '/', hold no '.' or '..', and have at most 1024 bytes: it is taken below the \
             node's cgroup root",
            printable(path)
        )));
    }
    Ok(())
}

/// Checks the programs that attach to one map against each other: a map runs one program of each kind. The map must be
/// pinned. The programs have their targets set.
pub(super) fn check_attached_maps(programs: &[Checked], maps: &[MapSpec]) -> Result<(), Refusal> {
    let mut seen: Vec<(&MapTarget, &str, u32)> = Vec::new();
    for Checked { spec: program, field, row } in programs {
        let targets = program.attach.iter().enumerate();
        for (j, map) in targets.filter_map(|(j, target)| Some((j, target.map()?))) {
            let field = format!("{field}[{j}].map.name");
            let taken = |(at, _, attach_type): &&(&MapTarget, &str, u32)| {
                *at == map && section::exclude_each_other(*attach_type, row.attach_type)
            };
            if let Some((_, other, _)) = seen.iter().find(taken) {
                return Err(invalid(format!(
                    "{field}: map {} already runs {other}, and {} would be in its place: a map runs one sk_msg \
                     program, one parser, and one verdict on what is received; leave one of the targets out",
                    map.name, program.name
                )));
            }
            let is_unpinned = |settings: &MapSpec| settings.name == map.name && !settings.is_pinned();
            if map.program.is_none() && maps.iter().any(is_unpinned) {
                return Err(invalid(format!(
                    "{field}: map {} has pinning: None, and a program is attached to a map for as long as the map is \
                     pinned: leave it pinned",
                    map.name
                )));
            }
            seen.push((map, &program.name, row.attach_type));
        }
    }
    Ok(())
}
