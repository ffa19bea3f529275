//! Resolution of attach targets: cgroup targets become paths, and map targets become pin names. Pure.

use std::collections::BTreeMap;

use sockeye_crds::{
    BpfRevisionSpec, Reason,
    names::pin_name,
    target::{Attach, Scope},
};

use crate::model::{
    node_context::NodeContext,
    pods::CgroupOwner,
    refusal::{Refusal, unsupported},
};

/// Adds the cgroups of one target to `paths`. A cgroup that one target names has no owner, even if a selector picks it
/// too.
pub(super) fn add_cgroups(
    attach: &Attach,
    node_context: &NodeContext,
    paths: &mut BTreeMap<String, Option<CgroupOwner>>,
) -> Result<(), Refusal> {
    let unknown = || unsupported(format!("this agent does not support the attach target {attach:?}"));
    let Attach { cgroup: Some(target), map: None } = attach else { return Err(unknown()) };
    let path = match (target.scope, &target.path) {
        (Scope::Pods, None) if target.is_selective() => {
            for (path, owner) in node_context.pods.pick(target) {
                paths.entry(path).or_insert(Some(owner));
            }
            return Ok(());
        }
        (Scope::Pods, None) => node_context.pods_root.clone(),
        (Scope::Node, None) => "/".to_owned(),
        (Scope::Path, Some(path)) => normalize(path)?,
        _ => return Err(unknown()),
    };
    paths.insert(path, None);
    Ok(())
}

/// Removes empty components from a path, and refuses one that could lead above the cgroup root.
fn normalize(path: &str) -> Result<String, Refusal> {
    let components: Vec<&str> = path.split('/').filter(|component| !component.is_empty()).collect();
    if components.iter().any(|component| matches!(*component, "." | "..")) {
        let message = format!("attach path {path:?} contains . or ..: give the path of the cgroup itself");
        return Err(Refusal { reason: Reason::InvalidSpec, message });
    }
    Ok(format!("/{}", components.join("/")))
}

/// Returns the pin name of the map that a target names. The map must be pinned: the agent finds an attachment by the
/// pin.
pub(super) fn map_pin(spec: &BpfRevisionSpec, function: &str, attach: &Attach) -> Result<String, Refusal> {
    let Attach { cgroup: None, map: Some(map) } = attach else {
        return Err(unsupported(format!("program {function}: this agent attaches it to maps only")));
    };
    let is_pinned = spec.map(map).is_none_or(|settings| settings.pin);
    if !is_pinned || !spec.object.maps.iter().any(|info| info.name == *map) {
        let message = format!("program {function}: there is no pinned map {map} to attach it to");
        return Err(Refusal { reason: Reason::InvalidSpec, message });
    }
    Ok(pin_name(map))
}

#[cfg(test)]
mod tests {
    use sockeye_crds::target::CgroupTarget;

    use super::*;
    use crate::model::resolve::tests::node_context;

    fn paths(targets: Vec<CgroupTarget>) -> Result<Vec<String>, Refusal> {
        let mut paths = BTreeMap::new();
        for target in targets {
            add_cgroups(&Attach { cgroup: Some(target), map: None }, &node_context(), &mut paths)?;
        }
        Ok(paths.into_keys().collect())
    }

    #[test]
    fn paths_are_normalized_and_stay_below_the_cgroup_root() {
        let at = |path: &str| paths(vec![CgroupTarget::at(path.to_owned())]);
        assert_eq!(at("/system.slice//x/").unwrap(), ["/system.slice/x"]);
        assert_eq!(at("/a/../..").unwrap_err().reason, Reason::InvalidSpec);
        assert_eq!(paths(vec![CgroupTarget::whole(Scope::Pods)]).unwrap(), ["/kubepods"]);
        let neither = Attach { cgroup: None, map: Some("m".to_owned()) };
        let refusal = add_cgroups(&neither, &node_context(), &mut BTreeMap::new()).unwrap_err();
        assert_eq!(refusal.reason, Reason::Unsupported);
    }
}
