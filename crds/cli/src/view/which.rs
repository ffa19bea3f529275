//! [`Acting`]: the programs that act on a pod, and those that should and do not.
//!
//! A program that is attached to a cgroup acts on all processes below it: to a pod's cgroup, to one of its containers',
//! to that of all pods, or to the node's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sockeye_crds::{
    BpfRevision, Reason,
    node::{AttachedLink, ProgramDetail},
    program::ProgramSpec,
    target::AttachTarget,
};

use super::{describe, placement::Placement};
use crate::output::Table;

/// A pod.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// The node.
    pub node: String,
    /// The class of service: Guaranteed, Burstable or BestEffort.
    pub qos_class: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The labels of its namespace, if they may be read.
    pub namespace_labels: Option<BTreeMap<String, String>>,
    /// The labels of its node, if they may be read.
    pub node_labels: Option<BTreeMap<String, String>>,
}

/// A program that acts on a pod, or should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Acting {
    /// The BpfProgram.
    pub program: String,
    /// The function.
    pub function: String,
    /// The attach type by bpftool's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_type: Option<String>,
    /// The place of the attachment, in words.
    pub at: String,
    /// The path of the cgroup below the node's cgroup root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<String>,
    /// The kernel's ID of the program.
    #[serde(rename = "programID", skip_serializing_if = "Option::is_none")]
    pub program_id: Option<i64>,
    /// True if it is in effect.
    pub in_effect: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Returns the programs of a node that act on a pod there.
pub fn acting(pod: &Pod, programs: &[ProgramDetail]) -> Vec<Acting> {
    let mut found: Vec<Acting> = Vec::new();
    for program in programs {
        let reaches: Vec<Acting> = program.links.iter().filter_map(|link| reach(pod, &program.name, link)).collect();
        let fills_maps = !reaches.is_empty();
        found.extend(reaches);
        // Programs of a map act on the sockets in it, which programs of the same BpfProgram put there.
        let of_maps = program.links.iter().filter(|link| link.map.is_some() && fills_maps);
        found.extend(of_maps.map(|link| {
            let at = format!("sockets in map {}", link.map.as_deref().unwrap_or_default());
            of_link(&program.name, link, at)
        }));
    }
    found
}

/// Returns how a link to a cgroup reaches a pod, if it does.
fn reach(pod: &Pod, program: &str, link: &AttachedLink) -> Option<Acting> {
    let path = link.cgroup_path.as_deref();
    let is_named = link.pod.as_deref() == Some(&format!("{}/{}", pod.namespace, pod.name));
    let at = match (&link.container, path) {
        (Some(container), _) if is_named => format!("container {container}"),
        _ if is_named => "the pod".to_owned(),
        (_, Some(path)) => above(path, pod)?,
        _ => return None,
    };
    Some(of_link(program, link, at))
}

fn of_link(program: &str, link: &AttachedLink, at: String) -> Acting {
    Acting {
        program: program.to_owned(),
        function: link.program.clone(),
        attach_type: Some(link.attach_type.clone()),
        at,
        cgroup_path: link.cgroup_path.clone(),
        program_id: Some(link.program_id),
        in_effect: link.in_effect,
        reason: (!link.in_effect).then(|| Reason::NotInEffect.as_str().to_owned()),
    }
}

/// Returns what a cgroup is to a pod that it holds: the kubelet's names of cgroups say that (kubelet,
/// `pkg/kubelet/cm/pod_container_manager_linux.go` and `helpers_linux.go`).
fn above(path: &str, pod: &Pod) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Some("the whole node".to_owned());
    }
    let uid = pod.uid.as_str();
    if !uid.is_empty() && parts.iter().any(|part| part.contains(uid) || part.contains(&uid.replace('-', "_"))) {
        return Some(format!("cgroup {path}"));
    }
    let class = pod.qos_class.to_lowercase();
    let is_all = |part: &str| part.trim_end_matches(".slice").ends_with("kubepods");
    let of_class = || Some(format!("all {} pods", pod.qos_class));
    // A slice of systemd's has the names of those above in its own: kubepods-burstable.slice.
    let is_class = |part: &str| part.trim_end_matches(".slice").ends_with(&format!("kubepods-{class}"));
    match parts.as_slice() {
        [.., last] if is_all(last) => Some("all pods".to_owned()),
        [.., last] if is_class(last) => of_class(),
        [.., above, last] if is_all(above) && **last == *class => of_class(),
        _ => None,
    }
}

/// Returns the functions that revisions want on a pod and that do not act on it, with the reason that the node gives.
/// Targets that need labels which may not be read are left out.
pub fn missing(
    pod: &Pod,
    revisions: &[BpfRevision],
    acting: &[Acting],
    placements: &BTreeMap<String, Placement>,
) -> Vec<Acting> {
    let there: BTreeSet<(&str, &str)> = acting.iter().map(|one| (&*one.program, &*one.function)).collect();
    let live = revisions.iter().filter(|revision| revision.is_live());
    let mut missing = Vec::new();
    for revision in newest(live) {
        let (program, template) = (&revision.spec.program_ref.name, &revision.spec.template);
        let selected = match (&template.node_selector, &pod.node_labels) {
            (None, _) => true,
            (Some(_), Some(labels)) => template.selects(labels),
            (Some(_), None) => false,
        };
        let wanted = template.programs.iter().filter(|_| selected);
        for ProgramSpec { name, attach, .. } in wanted {
            if there.contains(&(program.as_str(), name.as_str())) {
                continue;
            }
            let Some(target) = attach.iter().find(|target| covers(target, pod)) else { continue };
            missing.push(Acting {
                program: program.clone(),
                function: name.clone(),
                attach_type: None,
                at: describe::target(target),
                cgroup_path: None,
                program_id: None,
                in_effect: false,
                reason: Some(why(template.suspend, placements.get(program))),
            });
        }
    }
    missing
}

/// Returns the newest revision of each BpfProgram.
fn newest<'a>(revisions: impl Iterator<Item = &'a BpfRevision>) -> Vec<&'a BpfRevision> {
    let mut newest: BTreeMap<&str, &BpfRevision> = BTreeMap::new();
    for revision in revisions {
        let slot = newest.entry(&revision.spec.program_ref.name).or_insert(revision);
        if revision.spec.sequence > slot.spec.sequence {
            *slot = revision;
        }
    }
    newest.into_values().collect()
}

fn why(is_suspended: bool, placement: Option<&Placement>) -> String {
    match placement {
        _ if is_suspended => Reason::Suspended.as_str().to_owned(),
        Some(Placement { reason: Some(reason), message: Some(message), .. }) => {
            format!("{}: {message}", reason.as_str())
        }
        Some(Placement { reason: Some(reason), .. }) => reason.as_str().to_owned(),
        Some(_) => "it is not attached to this pod yet".to_owned(),
        None => "the node has not reported on it".to_owned(),
    }
}

/// Returns whether a target holds a pod. A path may hold it, which nobody can know from here; a map does not.
pub fn covers(target: &AttachTarget, pod: &Pod) -> bool {
    match target {
        AttachTarget::Node | AttachTarget::AllPods => true,
        AttachTarget::Pods { pods } => {
            pods.selects(&pod.namespace, pod.namespace_labels.as_ref(), &pod.labels) == Some(true)
        }
        AttachTarget::CgroupPath { .. } | AttachTarget::Map { .. } => false,
    }
}

/// Returns the table.
pub fn table(all: &[Acting]) -> Table {
    let columns = ["program", "function", "attach-type", "at", "in-effect", "reason"];
    let mut table = Table::new(&columns, &["program-id", "cgroup"]);
    for one in all {
        table.row([
            one.program.clone(),
            one.function.clone(),
            one.attach_type.clone().unwrap_or_default(),
            one.at.clone(),
            if one.in_effect { "yes" } else { "no" }.to_owned(),
            one.reason.clone().unwrap_or_default(),
            one.program_id.map(|id| id.to_string()).unwrap_or_default(),
            one.cgroup_path.clone().unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::view::fixtures::revision;

    fn pod() -> Pod {
        Pod {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "0f1e-2d".into(),
            node: "a".into(),
            qos_class: "Burstable".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            namespace_labels: Some([("team".to_owned(), "x".to_owned())].into()),
            node_labels: None,
        }
    }

    fn link(function: &str, members: &Value) -> Value {
        let mut link = json!({
            "program": function, "programID": 7, "attachType": "cgroup_inet_egress", "inEffect": true, "pinPath": "/x",
        });
        for (name, value) in members.as_object().unwrap() {
            link[name] = value.clone();
        }
        link
    }

    fn details(links: &[Value]) -> Vec<ProgramDetail> {
        vec![serde_json::from_value(json!({"name": "p", "links": links})).unwrap()]
    }

    #[test]
    fn a_cgroup_acts_on_the_pods_below_it() {
        for (path, at) in [
            ("/", Some("the whole node")),
            ("/kubepods", Some("all pods")),
            ("/kubepods.slice", Some("all pods")),
            ("/kubepods/burstable", Some("all Burstable pods")),
            ("/kubepods.slice/kubepods-burstable.slice", Some("all Burstable pods")),
            ("/kubepods.slice/kubepods-besteffort.slice", None),
            ("/kubepods/besteffort", None),
            ("/node-1/kubelet-kubepods.slice", Some("all pods")),
            ("/kubepods/burstable/pod0f1e-2d", Some("cgroup /kubepods/burstable/pod0f1e-2d")),
            (
                "/k.slice/kubepods-pod0f1e_2d.slice/cri-9.scope",
                Some("cgroup /k.slice/kubepods-pod0f1e_2d.slice/cri-9.scope"),
            ),
            ("/kubepods/burstable/podffff", None),
            ("/system.slice", None),
        ] {
            let found = acting(&pod(), &details(&[link("f", &json!({"cgroupPath": path}))]));
            assert_eq!(found.first().map(|one| one.at.as_str()), at, "{path}");
        }
    }

    #[test]
    fn links_that_name_a_pod_are_that_pods_and_no_others() {
        let of = |pod: &str| link("f", &json!({"cgroupPath": "/kubepods/x", "pod": pod, "container": "app"}));
        let found = acting(&pod(), &details(&[of("shop/web"), of("shop/web2"), of("other/web")]));
        assert_eq!(found.iter().map(|one| &*one.at).collect::<Vec<_>>(), ["container app"]);
    }

    #[test]
    fn programs_of_a_map_act_where_something_fills_it() {
        let on_map = link("verdict", &json!({"map": "sockets", "mapID": 3}));
        assert_eq!(acting(&pod(), &details(std::slice::from_ref(&on_map))), []);
        let found = acting(&pod(), &details(&[on_map, link("fill", &json!({"cgroupPath": "/"}))]));
        let found: Vec<_> = found.iter().map(|one| (&*one.function, &*one.at)).collect();
        assert_eq!(found, [("fill", "the whole node"), ("verdict", "sockets in map sockets")]);
    }

    #[test]
    fn a_target_for_a_namespace_by_name_holds_its_pods_even_if_the_labels_may_not_be_read() {
        let target = |key: &str| -> AttachTarget {
            let namespaces = json!({"matchLabels": {key: "shop"}});
            let pods = json!({"podSelector": {}, "namespaceSelector": namespaces});
            serde_json::from_value(json!({"type": "Pods", "pods": pods})).unwrap()
        };
        let pod = Pod { namespace_labels: None, ..pod() };
        assert!(covers(&target("kubernetes.io/metadata.name"), &pod));
        assert!(!covers(&target("kubernetes.io/metadata.name"), &Pod { namespace: "bank".into(), ..pod.clone() }));
        assert!(!covers(&target("team"), &pod), "that label is not known");
    }

    #[test]
    fn a_target_that_selects_the_pod_and_is_not_attached_is_named_with_its_reason() {
        let pods = |selector: Value, namespaces: Value| {
            let pods = json!({"podSelector": selector, "namespaceSelector": namespaces});
            json!({"type": "Pods", "pods": pods})
        };
        let web = json!({"matchLabels": {"app": "web"}});
        let template = |targets: Value| {
            let programs = json!([{"name": "f", "attach": targets}]);
            json!({"digest": "sha256:0", "object": {"programs": [], "maps": [], "btf": true}, "programs": programs})
        };
        let mut revisions = vec![
            revision("selected", 1, template(json!([pods(web.clone(), json!({"matchLabels": {"team": "x"}}))]))),
            revision("elsewhere", 1, template(json!([pods(web.clone(), json!({"matchLabels": {"team": "y"}}))]))),
            revision("other-pods", 1, template(json!([pods(json!({"matchLabels": {"app": "db"}}), json!({}))]))),
            revision("attached", 1, template(json!([{"type": "AllPods"}]))),
            revision("edited", 1, template(json!([{"type": "AllPods"}]))),
            revision("edited", 2, template(json!([{"type": "CgroupPath", "cgroupPath": "/x"}]))),
        ];
        let failed =
            Placement { reason: Some(Reason::AttachFailed), message: Some("full".into()), ..Placement::default() };
        let placements = [("selected".to_owned(), failed)].into();
        let mut there = acting(&pod(), &details(&[link("f", &json!({"cgroupPath": "/"}))]));
        there[0].program = "attached".into();
        let missing_now = missing(&pod(), &revisions, &there, &placements);
        let shown: Vec<_> = missing_now.iter().map(|one| (&*one.program, one.reason.as_deref().unwrap())).collect();
        assert_eq!(shown, [("selected", "AttachFailed: full")]);
        revisions[0].spec.template.node_selector =
            Some(serde_json::from_value(json!({"matchLabels": {"a": "b"}})).unwrap());
        assert_eq!(missing(&pod(), &revisions, &there, &placements), [], "nobody knows the node's labels");
    }
}
