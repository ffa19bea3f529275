//! Where the kubelet and the container runtime put pods' cgroups, and what their names say. Pure.
//!
//! ```text
//! cgroupfs  <root>/kubepods/[besteffort|burstable/]pod<UID>/<container ID>
//! systemd   <root>/kubepods.slice/[kubepods-burstable.slice/]kubepods[-burstable]-pod<UID, _ for ->.slice/cri-containerd-<container ID>.scope
//! ```
//! (k8s.io/kubernetes/pkg/kubelet/cm/cgroup_manager_linux.go and pod_container_manager_linux.go). A static pod's UID is the
//! hash of its manifest, which its mirror carries as the annotation `kubernetes.io/config.mirror`.

/// What the cgroup of all pods is called.
const PODS: &str = "kubepods";
/// The kubelet's classes of quality of service that have a cgroup of their own; guaranteed pods are beside these.
const CLASSES: [&str; 2] = ["besteffort", "burstable"];

/// The cgroup of all pods under each of the kubelet's cgroup drivers, systemd first, by the kubelet's `--cgroup-root`.
///
/// systemd makes of every part of a path a slice that is named by all the parts before it (`CgroupName.ToSystemd`).
pub fn pods_cgroups(kubelet_root: &str) -> [String; 2] {
    let parts: Vec<&str> = kubelet_root.split('/').filter(|part| !part.is_empty()).chain([PODS]).collect();
    let escaped: Vec<String> = parts.iter().map(|part| part.replace('-', "_")).collect();
    let slices = (1..=escaped.len()).map(|n| format!("/{}.slice", escaped[..n].join("-")));
    [slices.collect(), format!("/{}", parts.join("/"))]
}

/// The cgroups right below which pods have theirs, by the cgroup of all pods.
pub fn classes(pods: &str) -> [String; 3] {
    let [besteffort, burstable] = CLASSES.map(|class| match pods.strip_suffix(".slice") {
        Some(slice) => format!("{pods}/{}-{class}.slice", slice.rsplit('/').next().unwrap_or_default()),
        None => format!("{pods}/{class}"),
    });
    [pods.to_owned(), besteffort, burstable]
}

/// The UID of the pod whose cgroup has that name, where it is a pod's.
pub fn pod_uid(name: &str) -> Option<String> {
    match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod").map(|(_, uid)| uid.replace('_', "-")),
        None => name.strip_prefix("pod").map(str::to_owned),
    }
    .filter(|uid| !uid.is_empty())
}

/// The ID of the container whose cgroup has that name, where it is a container's: 64 hexadecimal digits, perhaps after the
/// runtime's name. CRI-O's monitor of a container is none.
pub fn container_id(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (runtime, id) = name.rsplit_once('-').unwrap_or(("", name));
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) && !runtime.ends_with("conmon")).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kubelet_names_them() {
        assert_eq!(pods_cgroups("/"), ["/kubepods.slice", "/kubepods"]);
        assert_eq!(pods_cgroups("/a/b-c"), ["/a.slice/a-b_c.slice/a-b_c-kubepods.slice", "/a/b-c/kubepods"]);
        assert_eq!(classes("/a/kubepods"), ["/a/kubepods", "/a/kubepods/besteffort", "/a/kubepods/burstable"]);
        let pods = "/a.slice/a-kubepods.slice";
        let [same, besteffort, _] = classes(pods);
        assert_eq!((same.as_str(), besteffort), (pods, format!("{pods}/a-kubepods-besteffort.slice")));
    }

    #[test]
    fn names_tell_pods() {
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
    fn names_tell_containers() {
        let id = "0123456789abcdef".repeat(4);
        for name in [id.clone(), format!("cri-containerd-{id}.scope"), format!("crio-{id}.scope"), format!("crio-{id}")]
        {
            assert_eq!(container_id(&name), Some(id.as_str()), "{name}");
        }
        for name in [format!("crio-conmon-{id}.scope"), "init.scope".into(), id[1..].into(), "g".repeat(64)] {
            assert_eq!(container_id(&name), None, "{name}");
        }
    }
}
