//! Where the kubelet puts pods' cgroups. Pure.

/// The cgroup of all pods under each of the kubelet's cgroup drivers, systemd first, by the kubelet's `--cgroup-root`.
///
/// systemd makes of every part of a path a slice that is named by all the parts before it
/// (`CgroupName.ToSystemd` in k8s.io/kubernetes/pkg/kubelet/cm).
pub fn pods_cgroups(kubelet_root: &str) -> [String; 2] {
    const PODS: &str = "kubepods";
    let parts: Vec<&str> = kubelet_root.split('/').filter(|part| !part.is_empty()).chain([PODS]).collect();
    let escaped: Vec<String> = parts.iter().map(|part| part.replace('-', "_")).collect();
    let slices = (1..=escaped.len()).map(|n| format!("/{}.slice", escaped[..n].join("-")));
    [slices.collect(), format!("/{}", parts.join("/"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kubelet_names_them() {
        assert_eq!(pods_cgroups("/"), ["/kubepods.slice", "/kubepods"]);
        assert_eq!(pods_cgroups("/a/b-c"), ["/a.slice/a-b_c.slice/a-b_c-kubepods.slice", "/a/b-c/kubepods"]);
    }
}
