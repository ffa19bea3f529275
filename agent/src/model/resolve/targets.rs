//! Resolution of attach targets: cgroup targets become paths, and map targets become pin names. Pure.

use std::collections::{BTreeMap, btree_map::Entry};

use sockeye_crds::{Reason, RevisionTemplate, names::pin_name, target::AttachTarget};

use crate::model::{
    node_context::NodeContext,
    pods::CgroupOwner,
    refusal::{Refusal, unsupported},
};

/// The cgroups that a program is to be attached to, by path.
type Paths = BTreeMap<String, Option<CgroupOwner>>;

/// Adds the cgroups of one target to `paths`. A cgroup that one target names has no owner, even if a selector picks it
/// too.
pub(super) fn add_cgroups(target: &AttachTarget, node_context: &NodeContext, paths: &mut Paths) -> Result<(), Refusal> {
    let path = match target {
        AttachTarget::Node => "/".to_owned(),
        AttachTarget::AllPods => node_context.pods_root.clone(),
        AttachTarget::CgroupPath { cgroup_path } => normalize(cgroup_path)?,
        AttachTarget::Pods { pods } => {
            node_context.pods.pick(pods).for_each(|(path, owner)| add_picked(path, owner, paths));
            return Ok(());
        }
        AttachTarget::Map { map } => {
            return Err(unsupported(format!("map {}: this agent attaches the program to cgroups only", map.name)));
        }
    };
    paths.insert(path, None);
    Ok(())
}

/// Adds a cgroup that a selector picked. Of several targets that pick it, a keeper counts.
fn add_picked(path: String, owner: CgroupOwner, paths: &mut Paths) {
    match paths.entry(path) {
        Entry::Vacant(vacant) => drop(vacant.insert(Some(owner))),
        Entry::Occupied(mut picked) => {
            if let Some(known) = picked.get_mut().as_mut().filter(|known| known.keeper.is_none()) {
                known.keeper = owner.keeper;
            }
        }
    }
}

/// Removes empty components from a path, and refuses one that could lead above the cgroup root.
fn normalize(path: &str) -> Result<String, Refusal> {
    let components: Vec<&str> = path.split('/').filter(|component| !component.is_empty()).collect();
    if components.iter().any(|component| matches!(*component, "." | "..")) {
        let message = format!("cgroupPath {path:?} contains . or ..: give the path of the cgroup itself");
        return Err(Refusal { reason: Reason::InvalidSpec, message });
    }
    Ok(format!("/{}", components.join("/")))
}

/// Returns the pin name of the map that a target names. The map must be pinned: the agent finds an attachment by the
/// pin.
pub(super) fn map_pin(template: &RevisionTemplate, function: &str, target: &AttachTarget) -> Result<String, Refusal> {
    let Some(map) = target.map_name() else {
        return Err(unsupported(format!("program {function}: this agent attaches it to maps only")));
    };
    let is_pinned = template.map(map).is_none_or(|settings| settings.is_pinned());
    if !is_pinned || !template.object.maps.iter().any(|info| info.name == *map) {
        let message = format!("program {function}: there is no pinned map {map} to attach it to");
        return Err(Refusal { reason: Reason::InvalidSpec, message });
    }
    Ok(pin_name(map))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sockeye_crds::target::{PodsTarget, WhenUnselected};

    use super::*;
    use crate::model::{
        keeper,
        pods::{Pod, PodCgroup, Pods},
        resolve::tests::node_context,
    };

    fn resolved(targets: &[AttachTarget], node_context: &NodeContext) -> Result<Paths, Refusal> {
        let mut paths = Paths::new();
        targets.iter().try_for_each(|target| add_cgroups(target, node_context, &mut paths))?;
        Ok(paths)
    }

    fn paths(target: AttachTarget) -> Result<Vec<String>, Refusal> {
        Ok(resolved(&[target], &node_context())?.into_keys().collect())
    }

    #[test]
    fn paths_are_normalized_and_stay_below_the_cgroup_root() {
        assert_eq!(paths(AttachTarget::at("/system.slice//x/")).unwrap(), ["/system.slice/x"]);
        assert_eq!(paths(AttachTarget::at("/a/../..")).unwrap_err().reason, Reason::InvalidSpec);
        assert_eq!(paths(AttachTarget::Node).unwrap(), ["/"]);
        assert_eq!(paths(AttachTarget::map("m")).unwrap_err().reason, Reason::Unsupported);
    }

    /// All pods are one cgroup; pods that a selector picks, be it each of them, are one each.
    #[test]
    fn all_pods_are_one_cgroup_and_every_single_pod_is_one_of_its_own() {
        let pod = |uid: &str| Pod { uid: uid.to_owned(), ..Pod::default() };
        let cgroup = |uid: &str| {
            (uid.to_owned(), PodCgroup { path: format!("/kubepods/pod{uid}"), containers: BTreeMap::new() })
        };
        let pods = Pods {
            pods: Arc::new(vec![pod("1"), pod("2")]),
            cgroups: ["1", "2"].map(cgroup).into(),
            ..Pods::default()
        };
        let node_context = NodeContext { pods, ..node_context() };
        let paths = |target| resolved(&[target], &node_context).unwrap().into_keys().collect::<Vec<_>>();
        assert_eq!(paths(AttachTarget::AllPods), ["/kubepods"]);
        assert_eq!(paths(PodsTarget::default().into()), ["/kubepods/pod1", "/kubepods/pod2"]);
    }

    #[test]
    fn of_several_targets_that_pick_a_pod_the_keeper_counts() {
        let pods = Pods {
            pods: Arc::new(vec![Pod { uid: "1".to_owned(), ..Pod::default() }]),
            cgroups: [("1".to_owned(), PodCgroup { path: "/kubepods/pod1".to_owned(), ..PodCgroup::default() })].into(),
            ..Pods::default()
        };
        let node_context = NodeContext { pods, ..node_context() };
        let keeper = PodsTarget { when_unselected: Some(WhenUnselected::KeepUntilPodEnds), ..PodsTarget::default() };
        let targets = [PodsTarget::default().into(), keeper.clone().into(), PodsTarget::default().into()];
        let paths = resolved(&targets, &node_context).unwrap();
        assert_eq!(paths["/kubepods/pod1"].as_ref().unwrap().keeper, keeper::identity(&keeper));
        assert!(keeper::identity(&keeper).is_some() && keeper::identity(&PodsTarget::default()).is_none());
    }
}
