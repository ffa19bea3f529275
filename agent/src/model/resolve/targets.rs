//! Resolution of attach targets: cgroup targets become paths, and map targets become pin names. Pure.

use std::collections::BTreeMap;

use sockeye_crds::{
    BpfRevisionSpec, Reason,
    names::pin_name,
    target::{AttachTarget, PodsTarget},
};

use super::{inputs::Inputs, maps};
use crate::model::{
    cgroup_path::is_within,
    pods::CgroupOwner,
    refusal::{Refusal, unsupported},
};

/// The cgroups that a program is to be attached to, by path.
type Paths = BTreeMap<String, Option<CgroupOwner>>;

/// Adds the cgroups of one of a function's targets to `paths`. A cgroup that one target names has no owner, even if a
/// selector picks it too.
pub(super) fn add_cgroups(
    function: &str,
    target: &AttachTarget,
    inputs: &Inputs<'_>,
    paths: &mut Paths,
) -> Result<(), Refusal> {
    let path = match target {
        AttachTarget::Node => "/".to_owned(),
        AttachTarget::AllPods => inputs.node_context.pods_root.clone(),
        AttachTarget::CgroupPath { cgroup_path } => normalize(cgroup_path)?,
        AttachTarget::Pods { pods } => {
            add_pods(function, pods, inputs, paths);
            return Ok(());
        }
        AttachTarget::Map { map } => {
            return Err(unsupported(format!("map {}: this agent attaches the program to cgroups only", map.name)));
        }
    };
    paths.insert(path, None);
    Ok(())
}

/// Adds the cgroups of the pods that a target selects or goes on selecting.
///
/// The containers' names of a kept pod that is no longer listed are unknown. So of a target with `containers`, the
/// links that the function has within the pod stay.
fn add_pods(function: &str, target: &PodsTarget, inputs: &Inputs<'_>, paths: &mut Paths) {
    let Inputs { spec, node_context, observed } = *inputs;
    let kept = observed.kept_by(&spec.program_ref.uid, target);
    for (path, owner) in node_context.pods.pick(target, &kept) {
        paths.entry(path).or_insert(Some(owner));
    }
    for (_, pod) in node_context.pods.unlisted(&kept) {
        let links = observed.links.iter().filter(|(key, _)| key.function == function);
        let within = links.filter_map(|(_, link)| link.path.as_deref()).filter(|path| is_within(path, pod));
        let stay: Vec<&str> = if target.containers.is_empty() { vec![pod] } else { within.collect() };
        for path in stay {
            paths.entry(path.to_owned()).or_insert_with(|| Some(CgroupOwner::default()));
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
pub(super) fn map_pin(spec: &BpfRevisionSpec, function: &str, target: &AttachTarget) -> Result<String, Refusal> {
    let Some(target) = target.map() else {
        return Err(unsupported(format!(
            "program {function}: this agent attaches it to maps only: give it targets of type Map"
        )));
    };
    if let Some(map_ref) = target.map_ref() {
        let checked = maps::checked_source(spec, &format!("program {function}: attach[].map"), map_ref)?;
        return Ok(maps::borrowed_pin(&checked));
    }
    let (template, map) = (&spec.template, &target.name);
    let is_pinned = template.map(map).is_none_or(|settings| settings.is_pinned());
    if !is_pinned || !template.object.maps.iter().any(|info| info.name == *map) {
        let message =
            format!("program {function}: there is no pinned map {map} to attach it to: name another, or pin this one");
        return Err(Refusal { reason: Reason::InvalidSpec, message });
    }
    Ok(pin_name(map))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sockeye_crds_testing::provoked;

    use super::*;
    use crate::model::{
        node_context::NodeContext,
        observed::Observed,
        pods::{Pod, PodCgroup, Pods},
        resolve::tests::{node_context, revision},
    };

    fn resolved(targets: &[AttachTarget], node_context: &NodeContext) -> Result<Paths, Refusal> {
        let spec: BpfRevisionSpec = revision(&serde_json::json!({})).spec;
        let inputs = Inputs { spec: &spec, node_context, observed: &Observed::default() };
        let mut paths = Paths::new();
        targets.iter().try_for_each(|target| add_cgroups("f", target, &inputs, &mut paths))?;
        Ok(paths)
    }

    fn paths(target: AttachTarget) -> Result<Vec<String>, Refusal> {
        Ok(resolved(&[target], &node_context())?.into_keys().collect())
    }

    #[test]
    fn paths_are_normalized_and_stay_below_the_cgroup_root() {
        assert_eq!(paths(AttachTarget::at("/system.slice//x/")).unwrap(), ["/system.slice/x"]);
        let above = paths(AttachTarget::at("/a/../..")).unwrap_err();
        assert_eq!(above.reason, Reason::InvalidSpec);
        provoked(above.reason, &above.message);
        assert_eq!(paths(AttachTarget::Node).unwrap(), ["/"]);
        assert_eq!(paths(AttachTarget::on_map("m")).unwrap_err().reason, Reason::Unsupported);
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
}
