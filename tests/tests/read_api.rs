//! The agents' read API on the local cluster of two nodes, through the API server's port-forward.
//!
//! The tests share the cluster and run one after the other (`--test-threads=1`).
#![allow(missing_docs)]

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sockeye_ebpf::programs::TCP_EVENTS_BTF;
use sockeye_tests::{NODES, helper, json, kubectl, program::TestProgram, run_with_input};

/// Forwards a port to a pod, asks, and prints the answer. The arguments: the pod, the path, and those of kubectl.
const ASK: &str = r#"
pod=$1 path=$2
shift 2
kubectl "$@" -n sockeye-system port-forward "pod/$pod" 18082:8082 >&2 &
forward=$!
trap 'kill $forward; wait $forward' EXIT
for _ in $(seq 100); do
    kill -0 $forward 2>/dev/null || exit 1
    curl -s --http2-prior-knowledge "http://127.0.0.1:18082$path" && exit
    sleep 0.1
done
exit 1"#;

fn ask(pod: &str, path: &str, kubectl: &[&str]) -> Result<Value> {
    let answer = helper("run", &[&["sh", "-c", ASK, "ask", pod, path], kubectl].concat())?;
    serde_json::from_str(&answer).with_context(|| answer)
}

/// Returns the agent's pod on a node.
fn pod_on(node: &str) -> Result<Value> {
    let selector = "app.kubernetes.io/component=agent";
    let field = format!("spec.nodeName={node}");
    let pods = json(&["get", "pods", "-n", "sockeye-system", "-l", selector, "--field-selector", &field])?;
    let running = pods["items"].as_array().and_then(|pods| pods.iter().find(|pod| pod["status"]["phase"] == "Running"));
    running.cloned().with_context(|| format!("no agent on {node}"))
}

fn name(pod: &Value) -> Result<&str> {
    pod["metadata"]["name"].as_str().context("no name")
}

#[test]
fn each_agent_answers_about_its_own_node_through_a_port_forward() -> Result<()> {
    let program = TestProgram::apply("read-api", TCP_EVENTS_BTF, serde_json::json!({}))?;
    program.ready_on("2/2")?;
    for node in NODES {
        let pod = pod_on(node)?;
        let answer = ask(name(&pod)?, "/v1/node", &[])?;
        ensure!(answer["name"] == node, "{answer}");
        let programs = answer["programs"].as_array().context("no BpfPrograms")?;
        let read = programs.iter().find(|one| one["name"] == program.name()).context("it is not there")?;
        let detail = program.detail(node)?;
        ensure!(read["detail"]["maps"][0]["id"] == detail["maps"][0]["id"], "{read} {detail}");
        let entries = ask(name(&pod)?, "/v1/programs/read-api/maps/my_map/entries", &[])?;
        let counts = program.counts(node)?;
        ensure!(entries["undecoded"].is_null() && entries["entries"].as_array().map(Vec::len) == Some(counts.len()));
    }
    Ok(())
}

/// The right to port-forward is all that is needed; and the port is nowhere but on the pod's loopback.
#[test]
fn the_port_is_reached_by_whoever_may_port_forward_and_nobody_else() -> Result<()> {
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n\
                metadata: {name: read-api, namespace: sockeye-system}\nrules:\n\
                - {apiGroups: [''], resources: [pods], verbs: [get]}\n\
                - {apiGroups: [''], resources: [pods/portforward], verbs: [create]}\n---\n\
                apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n\
                metadata: {name: read-api, namespace: sockeye-system}\n\
                roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: read-api}\n\
                subjects: [{kind: User, name: on-call, apiGroup: rbac.authorization.k8s.io}]\n";
    let kubectl_path = sockeye_tests::repo().join("target/cluster/kubectl");
    run_with_input(std::process::Command::new(kubectl_path).args(["apply", "-f", "-"]), role)?;
    let pod = pod_on(NODES[0])?;
    ask(name(&pod)?, "/v1/node", &["--as", "on-call"])?;
    let refused = ask(name(&pod)?, "/v1/node", &["--as", "somebody"]).err().context("it is not refused")?;
    ensure!(format!("{refused:#}").contains("pods"), "{refused:#}");
    kubectl(&["delete", "role,rolebinding", "read-api", "-n", "sockeye-system"])?;

    ensure!(pod["spec"]["hostNetwork"] != true, "the pod is in the host's network");
    let address = pod["status"]["podIP"].as_str().context("no address")?;
    let url = format!("http://{address}:8082/v1/node");
    let reached = helper("exec", &[NODES[0], "curl", "-s", "-m", "3", "--http2-prior-knowledge", &url]);
    ensure!(reached.is_err(), "{reached:?}");
    Ok(())
}
