//! `spec.programs[].attach[]`: each target checked by itself, and the programs of one map checked against each other.

use std::collections::BTreeSet;

use sockeye_crds::{
    MapInfo, ObjectInfo, Reason, Refusal,
    names::{self, printable},
    program::{MapSpec, ProgramSpec},
    selector,
    target::{Attach, CgroupTarget, Scope},
};

use super::rules::{check_count, invalid, list, refuse};
use crate::kinds::section::{self, Section, Target};

/// Checks a target against its program.
pub(super) fn check_target(field: &str, target: &Attach, row: &Section, object: &ObjectInfo) -> Result<(), Refusal> {
    match (target, row.target) {
        (Attach { cgroup: Some(cgroup), map: None }, Target::Cgroup) => check_cgroup(field, cgroup),
        (Attach { cgroup: None, map: Some(map) }, Target::Map) => check_map(field, map, object),
        (Attach { cgroup: Some(_), map: None }, Target::Map) => {
            Err(invalid(format!("{field}.cgroup: a {} program attaches to a map: set map instead", row.program_type)))
        }
        (Attach { cgroup: None, map: Some(_) }, Target::Cgroup) => {
            Err(invalid(format!("{field}.map: a {} program attaches to cgroups: set cgroup instead", row.program_type)))
        }
        _ => Err(invalid(format!("{field}: exactly one of cgroup and map must be set"))),
    }
}

fn check_map(field: &str, map: &str, object: &ObjectInfo) -> Result<(), Refusal> {
    let of_sockets = |m: &&MapInfo| matches!(m.map_type.as_str(), "Sockmap" | "Sockhash");
    let Some(found) = object.maps.iter().find(|m| m.name == *map) else {
        let there = list(object.maps.iter().filter(of_sockets).map(|m| m.name.as_str()));
        let message = format!(
            "{field}.map: the object has no map {}; of sockmaps and sockhashes it has: {there}",
            printable(map)
        );
        return Err(refuse(Reason::NoSuchMap, message));
    };
    if !of_sockets(&found) {
        return Err(invalid(format!(
            "{field}.map: {map} is of type {}; sk_msg and sk_skb programs attach to a Sockmap or a Sockhash",
            found.map_type
        )));
    }
    Ok(())
}

/// Checks the programs that attach to one map against each other: a map runs one program of each kind. The map must be
/// pinned.
pub(super) fn check_attached_maps(
    programs: &[ProgramSpec],
    maps: &[MapSpec],
    object: &ObjectInfo,
) -> Result<(), Refusal> {
    let row = |program: &ProgramSpec| {
        let info = object.programs.iter().find(|info| info.name == program.name)?;
        section::find(&info.section)
    };
    let mut seen: Vec<(&str, &str, u32)> = Vec::new();
    for (i, program) in programs.iter().enumerate() {
        let Some(row) = row(program) else { continue };
        for (j, map) in program.attach.iter().enumerate().filter_map(|(j, attach)| Some((j, attach.map.as_deref()?))) {
            let field = format!("spec.programs[{i}].attach[{j}].map");
            let taken = |(at, _, attach_type): &&(&str, &str, u32)| {
                *at == map && section::exclude_each_other(*attach_type, row.attach_type)
            };
            if let Some((_, other, _)) = seen.iter().find(taken) {
                return Err(invalid(format!(
                    "{field}: map {map} already runs {other}, and {} would be in its place: a map runs one sk_msg \
                     program, one parser, and one verdict on what is received",
                    program.name
                )));
            }
            if maps.iter().any(|settings| settings.name == map && !settings.pin) {
                return Err(invalid(format!(
                    "{field}: map {map} has pin: false, and a program is attached to a map for as long as the map is \
                     pinned: leave it pinned"
                )));
            }
            seen.push((map, &program.name, row.attach_type));
        }
    }
    Ok(())
}

fn check_cgroup(field: &str, target: &CgroupTarget) -> Result<(), Refusal> {
    let CgroupTarget { scope, path, pod_selector, namespace_selector, containers, strict } = target;
    let field = format!("{field}.cgroup");
    for (of_pods, given) in [
        ("podSelector", pod_selector.is_some()),
        ("namespaceSelector", namespace_selector.is_some()),
        ("containers", !containers.is_empty()),
        ("strict", *strict),
    ] {
        if given && *scope != Scope::Pods {
            return Err(invalid(format!("{field}.{of_pods} goes with scope Pods only")));
        }
    }
    for (name, selector) in [("podSelector", pod_selector), ("namespaceSelector", namespace_selector)] {
        let fault = selector.as_ref().and_then(|selector| selector::fault(&format!("{field}.{name}"), selector));
        if let Some(fault) = fault {
            return Err(invalid(fault));
        }
    }
    check_count(&format!("{field}.containers"), containers.len(), 0, 16)?;
    if containers.iter().collect::<BTreeSet<_>>().len() < containers.len() {
        return Err(invalid(format!("{field}.containers: a name is there twice")));
    }
    if let Some(i) = containers.iter().position(|name| !names::is_dns_label(name)) {
        return Err(invalid(format!(
            "{field}.containers[{i}]: {} is no container's name: lower-case letters, digits and '-', at most 63",
            printable(&containers[i])
        )));
    }
    match (scope, path) {
        (Scope::Node | Scope::Pods, None) => Ok(()),
        (Scope::Path, Some(path)) => {
            let leaves = path.split('/').any(|part| matches!(part, "." | ".."));
            if !path.starts_with('/') || leaves || path.len() > 1024 || path.chars().any(char::is_control) {
                return Err(invalid(format!(
                    "{field}.path: {} must begin with '/', hold no '.' or '..', and have at most 1024 bytes: it is \
                     taken below the node's cgroup root",
                    printable(path)
                )));
            }
            Ok(())
        }
        (Scope::Path, None) => Err(invalid(format!("{field}.path must be set with scope Path"))),
        (_, Some(_)) => Err(invalid(format!("{field}.path must be set with scope Path only"))),
    }
}
