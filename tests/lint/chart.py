"""Reads the rendered chart on stdin and holds it to what docs/operations.md promises about privileges."""

import sys

import yaml

WORKLOADS = ("DaemonSet", "Deployment", "Job")
AGENT_CAPABILITIES = ["BPF", "NET_ADMIN", "PERFMON"]
HOOK_DELETION = "before-hook-creation,hook-succeeded"
ARCHITECTURES = {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}


class Strict(yaml.SafeLoader):
    """Takes no key twice, where others take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.YAMLError(f"a key stands twice: {node.start_mark}: {keys}")
        return super().construct_mapping(node, deep=deep)


def main():
    objects = [o for o in yaml.load_all(sys.stdin, Loader=Strict) if o]
    complaints = []
    for o in objects:
        name = f"{o['kind']} {o['metadata']['name']}"
        if o["kind"] in WORKLOADS:
            component = o["metadata"]["labels"]["app.kubernetes.io/component"]
            complaints += [f"{name}: {c}" for c in workload(component, o["spec"]["template"]["spec"])]
            if o["kind"] == "DaemonSet":
                complaints += [f"{name}: {c}" for c in rollout(o["spec"]["updateStrategy"])]
        elif o["kind"] in ("ClusterRole", "Role"):
            complaints += [f"{name}: {c}" for rule in o["rules"] for c in role(rule)]
        elif o["kind"] == "ValidatingAdmissionPolicy" and o["spec"]["failurePolicy"] != "Fail":
            complaints.append(f"{name}: lets through what it cannot judge")
        elif o["kind"] == "ValidatingAdmissionPolicyBinding" and o["spec"]["validationActions"] != ["Deny"]:
            complaints.append(f"{name}: denies nothing")
        elif o["kind"] == "NetworkPolicy":
            complaints += [f"{name}: {c}" for c in network(o["spec"])]
        complaints += [f"{name}: {c}" for c in hook(o)]
    kinds = sorted(o["kind"] for o in objects if o["kind"] in ("Deployment", "DaemonSet"))
    if kinds != ["DaemonSet", "Deployment"]:
        complaints.append(f"workloads are {kinds}")
    guarded = sorted(o["metadata"]["name"] for o in objects if o["kind"] == "NetworkPolicy")
    if guarded != ["sockeye-agent", "sockeye-operator"]:
        complaints.append(f"network policies are {guarded}")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return bool(complaints)


def rollout(strategy):
    # 1 is what values.yaml of these checks asks for.
    if strategy["type"] != "RollingUpdate" or strategy["rollingUpdate"] not in (
        {"maxUnavailable": "10%"},
        {"maxUnavailable": 1},
    ):
        yield f"all nodes may be without an agent at once: {strategy}"


def workload(component, pod):
    for shared in ("hostPID", "hostNetwork", "hostIPC"):
        if pod.get(shared):
            yield shared
    if pod["securityContext"]["seccompProfile"] != {"type": "RuntimeDefault"}:
        yield "seccomp profile is not RuntimeDefault"
    if pod["nodeSelector"]["kubernetes.io/os"] != "linux":
        yield "not on Linux nodes only"
    for term in pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]:
        if ARCHITECTURES not in term["matchExpressions"]:
            yield f"may land where there is no image for it: {term}"
    (container,) = pod["containers"]
    hooked = any(a.startswith("--nri-socket=") for a in container.get("args", []))
    host_paths = sorted(v["name"] for v in pod.get("volumes", []) if "hostPath" in v)
    if host_paths != (["bpffs", "cgroup"] + ["nri"] * hooked if component == "agent" else []):
        yield f"host paths are {host_paths}"
    security = container["securityContext"]
    capabilities = security["capabilities"]
    if capabilities["drop"] != ["ALL"] or capabilities.get("add", []) != (
        AGENT_CAPABILITIES if component == "agent" else []
    ):
        yield f"capabilities are {capabilities}"
    if security.get("privileged") or security["allowPrivilegeEscalation"] or not security["readOnlyRootFilesystem"]:
        yield "privileged, may escalate, or writes its root"
    uid = security.get("runAsUser", pod["securityContext"].get("runAsUser"))
    if uid != (0 if component == "agent" else 65532):
        yield f"runs as {uid}"
    for mount in container.get("volumeMounts", []):
        if mount["mountPath"].startswith("/sys"):
            yield "mounts below /sys, where containerd's AppArmor profile denies writes"
        if mount.get("mountPropagation") == "Bidirectional":
            yield "mounts reach the host"
        if mount["name"] in ("cgroup", "nri") and not mount.get("readOnly"):
            yield f"may write {mount['name']}"


def network(spec):
    if spec["ingress"] or "Ingress" not in spec["policyTypes"]:
        yield "lets something connect"
    # An egress rule without peers or ports would let everything out.
    if ("Egress" in spec["policyTypes"]) != bool(spec.get("egress")):
        yield "outgoing connections are limited by no rule"
    for rule in spec.get("egress", []):
        if not all(peer.get("ipBlock") for peer in rule["to"]) or not rule["to"] or not rule["ports"]:
            yield f"lets out more than the API server's address and port: {rule}"


def hook(o):
    """What Helm does not count as the release's own is a hook, and goes by itself."""
    annotations = o["metadata"].get("annotations", {})
    if "helm.sh/hook" not in annotations:
        if o["kind"] == "Job":
            yield "a Job that is no hook"
    elif annotations["helm.sh/hook-delete-policy"] != HOOK_DELETION:
        yield "a hook that stays"


def role(rule):
    if "*" in rule["apiGroups"] + rule["resources"] + rule["verbs"]:
        yield f"a wildcard: {rule}"
    if "secrets" in rule["resources"]:
        yield "reads Secrets"


if __name__ == "__main__":
    sys.exit(main())
