//! Several BpfPrograms on the same nodes: maps that they share, and the order in which they run. On a real Kubernetes of two
//! nodes, as in `e2e`.
#![allow(missing_docs)]

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;
use sockeye_tests::{
    NODES, PATIENCE, condition, json, kubectl,
    program::{Applied, details},
    until,
};

#[test]
fn a_map_is_shared_and_keeps_its_owner_from_being_deleted() -> Result<()> {
    let from = json!({"maps": [{"name": "my_map", "from": {"program": "lender", "map": "my_map"}}]});
    let borrower = Applied::apply("borrower", TCP_EVENTS_BTF, from)?;
    let waits = borrower.condition_is("Attached", "False")?;
    until(PATIENCE, "the borrower says what it waits for", || {
        let object = borrower.get()?;
        Ok(condition(&object, "Attached").is_some_and(|c| c["reason"] == "SharedMapMissing"))
    })
    .with_context(|| format!("{waits:#}"))?;

    let lender = Applied::apply("lender", TCP_EVENTS_BTF, json!({}))?;
    lender.ready_on("2/2")?;
    borrower.ready_on("2/2")?;
    for node in NODES {
        let ids = [&lender, &borrower].map(|program| program.pin(node, "map", "maps/my_map"));
        let [theirs, own] = ids;
        let (theirs, own) = (theirs?["id"].clone(), own?["id"].clone());
        ensure!(theirs == own, "{node}: {theirs} and {own}");
        let uses = borrower.pin(node, "prog", "programs/my_prog")?["map_ids"].clone();
        ensure!(uses == json!([own]), "{node}: the borrower's program uses {uses}");
        ensure!(details(node, "lender")?["maps"][0]["sharedBy"] == json!(["borrower"]));
    }

    kubectl(&["delete", "bpfprograms.sockeye.dev", "lender", "--wait=false"])?;
    let in_use = |object: &Value| condition(object, "Ready").is_some_and(|c| c["reason"] == "InUse");
    until(PATIENCE, "the deletion waits", || Ok(in_use(&lender.get()?)))?;
    until(PATIENCE, "an Event says for whom", || {
        let events = json(&["get", "events.events.k8s.io", "-A", "--field-selector=reason=InUse"])?;
        Ok(events["items"].as_array().is_some_and(|all| all.iter().any(|e| e["note"].to_string().contains("borrower"))))
    })?;
    lender.pin("node-1", "map", "maps/my_map").context("it runs until then")?;

    borrower.edit(TCP_EVENTS_BTF, json!({}))?;
    until(PATIENCE, "the lender goes", || {
        Ok(kubectl(&["get", "bpfprograms.sockeye.dev", "lender", "--ignore-not-found"])?.is_empty())
    })?;
    borrower.ready_on("2/2")?;
    Ok(())
}

#[test]
fn lower_priorities_run_first() -> Result<()> {
    let programs: Vec<Applied> = [("third", 900), ("first", 100), ("second", 500)]
        .into_iter()
        .map(|(name, priority)| Applied::apply(name, TCP_EVENTS_BTF, json!({"priority": priority})))
        .collect::<Result<_>>()?;
    for program in &programs {
        program.ready_on("2/2")?;
    }
    let expected = ["first/my_prog", "second/my_prog", "third/my_prog"];
    for node in NODES {
        let kept = json(&["get", "bpfnodes", node])?["status"]["node"]["features"].to_string();
        ensure!(kept.contains("CgroupLinkOrder"), "this kernel keeps no order: {kept}");
        until(PATIENCE, "the order in the BpfNode", || {
            let order = json(&["get", "bpfnodes", node])?["status"]["order"].clone();
            let root = order.as_array().into_iter().flatten().find(|one| one["cgroupPath"] == "/");
            let names = root.and_then(|one| one["programs"].as_array()).into_iter().flatten();
            let names: Vec<&str> = names.filter_map(|runs| runs["name"].as_str()).collect();
            Ok(names == expected)
        })?;
    }
    Ok(())
}
