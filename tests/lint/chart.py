"""Reads the rendered chart on stdin and holds it to what docs/operations.md promises about privileges."""

import sys

import yaml

WORKLOADS = ("DaemonSet", "Deployment", "Job")
AGENT_CAPABILITIES = ["BPF", "NET_ADMIN", "PERFMON"]
# Those of agents on nodes with Linux before 5.11, which values.yaml of these checks asks for.
MEMLOCK_CAPABILITIES = [*AGENT_CAPABILITIES, "SETUID", "SYS_RESOURCE"]
MEMLOCK_LABEL = "sockeye.dev/memlock"
HOOK_DELETION = "before-hook-creation,hook-succeeded"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 3600
SCRAPER = {
    "from": [{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }],
    "ports": [{"protocol": "TCP", "port": 9443}],
}
LOG_SETTINGS = {"RUST_LOG", "SOCKEYE_LOG_FORMAT"}
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
            capabilities = capabilities_of(component, o["metadata"]["name"])
            complaints += [f"{name}: {c}" for c in workload(component, capabilities, o["spec"]["template"]["spec"])]
            if o["kind"] == "DaemonSet":
                complaints += [f"{name}: {c}" for c in rollout(o["spec"]["updateStrategy"])]
            if o["kind"] == "Deployment":
                budgets = [b["spec"] for b in objects if b["kind"] == "PodDisruptionBudget"]
                complaints += [f"{name}: {c}" for c in replicas(o["spec"], budgets)]
        elif o["kind"] in ("ClusterRole", "Role"):
            complaints += [f"{name}: {c}" for rule in o["rules"] for c in role(rule)]
        elif o["kind"] == "ValidatingAdmissionPolicy" and o["spec"]["failurePolicy"] != "Fail":
            complaints.append(f"{name}: lets through what it cannot judge")
        elif o["kind"] == "ValidatingAdmissionPolicyBinding" and o["spec"]["validationActions"] != ["Deny"]:
            complaints.append(f"{name}: denies nothing")
        elif o["kind"] == "NetworkPolicy":
            complaints += [f"{name}: {c}" for c in network(o["spec"])]
        complaints += [f"{name}: {c}" for c in hook(o)]
    deployments = [o["metadata"]["name"] for o in objects if o["kind"] == "Deployment"]
    agents = [o for o in objects if o["kind"] == "DaemonSet"]
    if len(deployments) != 1:
        complaints.append(f"Deployments are {deployments}")
    complaints += by_kernel(agents)
    selectors = [o["spec"]["podSelector"]["matchLabels"] for o in objects if o["kind"] == "NetworkPolicy"]
    pods = [o["spec"]["template"]["metadata"]["labels"] for o in objects if o["kind"] in WORKLOADS]
    for labels in pods:
        if sum(selector.items() <= labels.items() for selector in selectors) != 1:
            complaints.append(f"no network policy, or more than one, selects pods with {labels}")
    if len(selectors) != len(pods) - len(agents) + 1:
        complaints.append(f"network policies select {selectors}")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return bool(complaints)


def capabilities_of(component, name):
    if component != "agent":
        return []
    return MEMLOCK_CAPABILITIES if name == "sockeye-agent-memlock" else AGENT_CAPABILITIES


def by_kernel(agents):
    """Each node has one agent: the second DaemonSet's nodes are those that the first one's are not."""
    names = [o["metadata"]["name"] for o in agents]
    if names not in (["sockeye-agent"], ["sockeye-agent", "sockeye-agent-memlock"]):
        yield f"DaemonSets are {names}"
    for name, o in zip(names, agents):
        pod = o["spec"]["template"]["spec"]
        operator = "Exists" if name == "sockeye-agent-memlock" else "DoesNotExist"
        required = {"key": MEMLOCK_LABEL, "operator": operator}
        terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        if len(names) > 1 and not all(required in term["matchExpressions"] for term in terms):
            yield f"{name} may land on the other's nodes: {terms}"
        if any(a.startswith("--memlock-uid=") for a in pod["containers"][0]["args"]) != (operator == "Exists"):
            yield f"{name} has the arguments {pod['containers'][0]['args']}"
        if not o["spec"]["selector"]["matchLabels"].items() <= o["spec"]["template"]["metadata"]["labels"].items():
            yield f"{name} does not select its pods"
    if len({str(o["spec"]["selector"]) for o in agents}) != len(agents):
        yield "two DaemonSets select the same"


def rollout(strategy):
    # 1 is what values.yaml of these checks asks for.
    if strategy["type"] != "RollingUpdate" or strategy["rollingUpdate"] not in (
        {"maxUnavailable": "10%"},
        {"maxUnavailable": 1},
    ):
        yield f"all nodes may be without an agent at once: {strategy}"


def replicas(spec, budgets):
    if spec["strategy"] != {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}:
        yield f"is replaced by {spec['strategy']}"
    labels = spec["selector"]["matchLabels"]
    # A single replica has no budget, which would keep its node from being drained.
    expected = {"minAvailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": {"matchLabels": labels}}
    if budgets != ([expected] if spec["replicas"] > 1 else []):
        yield f"{spec['replicas']} replicas with budgets {budgets}"
    pod = spec["template"]["spec"]
    spread = pod["topologySpreadConstraints"]
    # With a second key, the scheduler ignores the nodes that lack either label.
    if [s["topologyKey"] for s in spread] != ["kubernetes.io/hostname"]:
        yield f"is spread by {spread}"
    terms = pod["affinity"]["podAntiAffinity"].get("preferredDuringSchedulingIgnoredDuringExecution", [])
    zones = [t["podAffinityTerm"] for t in terms]
    if spec["replicas"] > 1 and [
        (t["topologyKey"], t["labelSelector"], t["matchLabelKeys"]) for t in zones
    ] != [("topology.kubernetes.io/zone", {"matchLabels": labels}, ["pod-template-hash"])]:
        yield f"prefers no other zone: {terms}"
    if any(s["whenUnsatisfiable"] != "ScheduleAnyway" or s["labelSelector"]["matchLabels"] != labels for s in spread):
        yield f"is not spread, or does not start where it can't be: {spread}"


def workload(component, added, pod):
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
    yield from token(pod, container)
    names = {variable["name"] for variable in container["env"]}
    if not LOG_SETTINGS <= names:
        yield f"the settings of its log are not all set: {sorted(LOG_SETTINGS - names)}"
    hooked = any(a.startswith("--nri-socket=") for a in container.get("args", []))
    configured = any(a.startswith("--kernel-config=") for a in container.get("args", []))
    host_paths = sorted(v["name"] for v in pod.get("volumes", []) if "hostPath" in v)
    if host_paths != (["bpffs", "cgroup"] + ["kernel-config"] * configured + ["nri"] * hooked if component == "agent" else []):
        yield f"host paths are {host_paths}"
    security = container["securityContext"]
    capabilities = security["capabilities"]
    if capabilities["drop"] != ["ALL"] or capabilities.get("add", []) != added:
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
        if mount["name"] in ("cgroup", "nri", "kernel-config") and not mount.get("readOnly"):
            yield f"may write {mount['name']}"


def token(pod, container):
    """A token that Kubernetes mounts by itself, or one of 3607 seconds, is valid for a year."""
    if pod["automountServiceAccountToken"]:
        yield "a token is mounted that is valid for a year"
    sources = [s for v in pod["volumes"] for s in v.get("projected", {}).get("sources", [])]
    tokens = [s["serviceAccountToken"] for s in sources if "serviceAccountToken" in s]
    if tokens != [{"path": "token", "expirationSeconds": TOKEN_SECONDS}]:
        yield f"tokens are {tokens}"
    mounts = [m for m in container["volumeMounts"] if m["name"] == "token"]
    if mounts != [{"name": "token", "mountPath": TOKEN_PATH, "readOnly": True}]:
        yield f"tokens are mounted as {mounts}"


def network(spec):
    component = spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
    if "Ingress" not in spec["policyTypes"]:
        yield "lets something connect"
    # The scraper that values.yaml of these checks names, and it alone.
    for rule in spec["ingress"]:
        if component not in ("operator", "agent") or rule != SCRAPER:
            yield f"lets something connect: {rule}"
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
    # A Job that failed is still to be read; its rights are not to stay.
    elif annotations["helm.sh/hook-delete-policy"] != HOOK_DELETION + ("" if o["kind"] == "Job" else ",hook-failed"):
        yield "a hook that stays"


def role(rule):
    if "nonResourceURLs" in rule:
        if rule != {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}:
            yield f"more than a scraper needs: {rule}"
        return
    if "*" in rule["apiGroups"] + rule["resources"] + rule["verbs"]:
        yield f"a wildcard: {rule}"
    if "secrets" in rule["resources"]:
        yield "reads Secrets"


if __name__ == "__main__":
    sys.exit(main())
