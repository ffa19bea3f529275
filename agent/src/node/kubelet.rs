//! The names that the kubelet and the container runtime give the cgroups of pods and containers. Pure.
//!
//! ```text
//! cgroupfs  <root>/kubepods/[besteffort|burstable/]pod<UID>/<container ID>
//! systemd   <root>/kubepods.slice/[kubepods-burstable.slice/]kubepods[-burstable]-pod<UID, _ for ->.slice
//!             /cri-containerd-<container ID>.scope
//! ```
//! A runtime whose driver is not the kubelet's takes the slice for a name of its own, below where it runs itself:
//!
//! ```text
//! <the runtime's cgroup>/kubepods-burstable-pod<UID, _ for ->.slice:cri-containerd:<container ID>
//! ```
//! (k8s.io/kubernetes/pkg/kubelet/cm/cgroup_manager_linux.go and pod_container_manager_linux.go). A static pod's UID is
//! the hash of its manifest, which its mirror carries as the annotation `kubernetes.io/config.mirror`.

/// The name of the cgroup of all pods.
const PODS: &str = "kubepods";
/// The quality of service classes that have a cgroup of their own. Guaranteed pods are children of the cgroup of all
/// pods.
const CLASSES: [&str; 2] = ["besteffort", "burstable"];

/// The paths of the cgroup of all pods under the kubelet's `--cgroup-root`: with the cgroup driver systemd, then with
/// cgroupfs.
///
/// systemd names each slice of a path by all names up to it (`CgroupName.ToSystemd`).
pub fn pods_cgroups(kubelet_root: &str) -> [String; 2] {
    let parts: Vec<&str> = kubelet_root.split('/').filter(|part| !part.is_empty()).chain([PODS]).collect();
    let escaped: Vec<String> = parts.iter().map(|part| part.replace('-', "_")).collect();
    let slices = (1..=escaped.len()).map(|n| format!("/{}.slice", escaped[..n].join("-")));
    [slices.collect(), format!("/{}", parts.join("/"))]
}

/// The paths of the cgroups whose children are pods' cgroups, by the path of the cgroup of all pods.
pub fn classes(pods: &str) -> [String; 3] {
    let [besteffort, burstable] = CLASSES.map(|class| match pods.strip_suffix(".slice") {
        Some(slice) => format!("{pods}/{}-{class}.slice", slice.rsplit('/').next().unwrap_or_default()),
        None => format!("{pods}/{class}"),
    });
    [pods.to_owned(), besteffort, burstable]
}

/// The UID of the pod whose cgroup has that name, if it is a pod's.
pub fn pod_uid(name: &str) -> Option<String> {
    match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod").map(|(_, uid)| uid.replace('_', "-")),
        None => name.strip_prefix("pod").map(str::to_owned),
    }
    .filter(|uid| !uid.is_empty())
}

/// The ID of the container whose cgroup has that name, if it is a container's: 64 hexadecimal digits, with or without
/// the runtime's name before them. CRI-O's monitor of a container is no container.
pub fn container_id(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (runtime, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) && !runtime.ends_with("conmon")).then_some(id)
}

/// The pod and the ID of the container whose cgroup has that name, if it is one that a runtime with another driver than
/// the kubelet's made of the name of the pod's slice.
pub fn outside_container(name: &str) -> Option<(String, &str)> {
    let (slice, _) = name.split_once(':')?;
    Some((pod_uid(slice).filter(|_| slice.ends_with(".slice"))?, container_id(name)?))
}

/// Returns whether a cgroup of that name is a pod's, or that of a container which is outside of its pod's.
pub fn is_of_pod(name: &str) -> bool {
    let is_uid = |uid: String| matches!(uid.len(), 32 | 36) && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    pod_uid(name).or_else(|| Some(outside_container(name)?.0)).is_some_and(is_uid)
}

/// The path of the cgroup of all pods, by the path of a pod's cgroup, if the kubelet named both.
pub fn pods_cgroup_of(pod: &str) -> Option<&str> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let is_pods = |path: &str| {
        let name = name(path);
        name == PODS || name.strip_suffix(".slice").is_some_and(|slice| slice.rsplit('-').next() == Some(PODS))
    };
    let is_class = |path: &str| {
        let name = name(path);
        let slice = name.strip_suffix(".slice").and_then(|slice| slice.rsplit('-').next());
        CLASSES.contains(&slice.unwrap_or(&name))
    };
    let parent = pod.rsplit_once('/')?.0;
    if is_pods(parent) {
        return Some(parent);
    }
    parent.rsplit_once('/').map(|(above, _)| above).filter(|above| is_class(parent) && is_pods(above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_have_the_kubelets_names() {
        assert_eq!(pods_cgroups("/"), ["/kubepods.slice", "/kubepods"]);
        assert_eq!(pods_cgroups("/a/b-c"), ["/a.slice/a-b_c.slice/a-b_c-kubepods.slice", "/a/b-c/kubepods"]);
        assert_eq!(classes("/a/kubepods"), ["/a/kubepods", "/a/kubepods/besteffort", "/a/kubepods/burstable"]);
        let pods = "/a.slice/a-kubepods.slice";
        let [same, besteffort, _] = classes(pods);
        assert_eq!((same.as_str(), besteffort), (pods, format!("{pods}/a-kubepods-besteffort.slice")));
    }

    #[test]
    fn a_pods_uid_is_read_from_its_cgroups_name() {
        let uid = "5e3b7b0a-9d1c-4a6e-8f57-0c1d2e3f4a5b";
        for (name, is) in [
            (format!("pod{uid}"), Some(uid)),
            (format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_")), Some(uid)),
            (format!("a_pod-kubepods-pod{}.slice", uid.replace('-', "_")), Some(uid)),
            ("pod0123456789abcdef0123456789abcdef".into(), Some("0123456789abcdef0123456789abcdef")),
            ("burstable".into(), None),
            ("kubepods-besteffort.slice".into(), None),
            ("pod".into(), None),
            ("cgroup.procs".into(), None),
        ] {
            assert_eq!(pod_uid(&name).as_deref(), is, "{name}");
        }
    }

    #[test]
    fn a_pods_cgroup_is_told_from_others_whose_names_begin_alike() {
        let uid = "5e3b7b0a-9d1c-4a6e-8f57-0c1d2e3f4a5b";
        let slice = format!("kubepods-besteffort-pod{}.slice", uid.replace('-', "_"));
        let outside = format!("{slice}:cri-containerd:{}", "0".repeat(64));
        for name in [&format!("pod{uid}"), &slice, &outside, "pod0123456789abcdef0123456789abcdef"] {
            assert!(is_of_pod(name), "{name}");
        }
        for name in ["podman", "pod", "kubepods", "podman.slice:x:y", "user-podxx.slice", "init.scope"] {
            assert!(!is_of_pod(name), "{name}");
        }
    }

    #[test]
    fn the_cgroup_of_all_pods_is_known_by_that_of_one() {
        for (pod, pods) in [
            ("/kubelet/kubepods/podu", Some("/kubelet/kubepods")),
            ("/kubelet/kubepods/burstable/podu", Some("/kubelet/kubepods")),
            ("/a.slice/a-kubepods.slice/a-kubepods-podu.slice", Some("/a.slice/a-kubepods.slice")),
            ("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podu.slice", Some("/kubepods.slice")),
            ("/system.slice/podu", None),
            ("/kubepods/other/podu", None),
            ("podu", None),
        ] {
            assert_eq!(pods_cgroup_of(pod), pods, "{pod}");
        }
    }

    #[test]
    fn a_containers_id_is_read_from_its_cgroups_name() {
        let id = "0123456789abcdef".repeat(4);
        let mismatched = format!("kubepods-burstable-pod5e3b7b0a_9d1c.slice:cri-containerd:{id}");
        assert_eq!(outside_container(&mismatched), Some(("5e3b7b0a-9d1c".to_owned(), id.as_str())));
        for name in [&id, &format!("pod5e3b7b0a:cri-containerd:{id}"), "kubepods-pod5e3b7b0a.slice:cri-containerd:1"] {
            assert_eq!(outside_container(name), None, "{name}");
        }
        let scope = format!("cri-containerd-{id}.scope");
        for name in [id.clone(), scope, format!("crio-{id}.scope"), format!("crio-{id}"), mismatched] {
            assert_eq!(container_id(&name), Some(id.as_str()), "{name}");
        }
        for name in [format!("crio-conmon-{id}.scope"), "init.scope".into(), id[1..].into(), "g".repeat(64)] {
            assert_eq!(container_id(&name), None, "{name}");
        }
    }
}
