//! A revision whose objects differ by architecture: an agent runs that of its node's, and refuses one that has none.

use serde_json::{Value, json};
use sockeye_agent::model::architecture::ARCHITECTURE;
use sockeye_ebpf::programs::{TCP_EVENTS, TCP_EVENTS_BTF};

use crate::{
    api_server::{Server, free_address, kubeconfig, revisions},
    node::Node,
    seed,
};

const OBJECTS: [(&str, &[u8]); 2] = [("amd64", TCP_EVENTS_BTF), ("arm64", TCP_EVENTS)];

/// Returns the revision of a BpfProgram whose image has these objects.
fn of_architectures(node: &Node, objects: &[(&str, &[u8])]) -> Value {
    let mut variants = Vec::new();
    let mut revision = Value::Null;
    for (architecture, object) in objects {
        seed(node, "guard", object);
        revision = revisions(node)["guard"].clone();
        let template = &revision["spec"]["template"];
        variants
            .push(json!({"architecture": architecture, "digest": template["digest"], "object": template["object"]}));
    }
    let template = revision["spec"]["template"].as_object_mut().unwrap();
    template.insert("digest".into(), variants[0]["digest"].clone());
    template.insert("object".into(), variants[0]["object"].clone());
    template.insert("variants".into(), json!(variants));
    revision
}

fn end(mut node: Node) {
    node.stop("KILL");
    node.start();
    node.remove("guard");
    node.nothing_left();
}

#[test]
fn of_several_objects_that_of_the_nodes_architecture_runs() {
    let mut node = Node::new("architectures");
    let revision = of_architectures(&node, &OBJECTS);
    let at = free_address();
    // No other one can be had.
    let own = OBJECTS.iter().find(|(architecture, _)| *architecture == ARCHITECTURE).unwrap().1;
    let _server = Server::of_node(at, vec![revision], &[own]);
    node.start_in_cluster(&kubeconfig(&node, at), "node");
    node.until("the program", |node| node.attached().len() == 1);
    end(node);
}

#[test]
fn an_image_without_an_object_for_the_nodes_architecture_is_refused() {
    let mut node = Node::new("architecture-missing");
    let revision = of_architectures(&node, &[("riscv64", TCP_EVENTS_BTF), ("s390x", TCP_EVENTS)]);
    let at = free_address();
    let server = Server::of_node(at, vec![revision], &[TCP_EVENTS_BTF, TCP_EVENTS]);
    node.start_in_cluster(&kubeconfig(&node, at), "node");
    node.until("the refusal", |_| {
        let status = server.last_status.lock().unwrap().clone();
        status.contains("ArchitectureMissing") && status.contains("riscv64, s390x") && status.contains(ARCHITECTURE)
    });
    assert!(node.attached().is_empty());
    end(node);
}
