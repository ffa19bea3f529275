//! Several BpfPrograms on the same nodes: shared maps, and the order in which programs run. On the local cluster, as
//! `e2e`.
#![allow(missing_docs)]

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_ebpf::programs::TCP_EVENTS_BTF;
use sockeye_tests::{NODES, TIMEOUT, condition, json, kubectl, program::TestProgram, wait_until};

#[test]
fn a_shared_map_blocks_the_deletion_of_its_owner() -> Result<()> {
    let shared = || json!({"maps": [{"name": "my_map", "sharing": "Shared"}]});
    let borrowed = json!({"maps": [{"name": "my_map", "mapRef": {"program": "lender", "name": "my_map"}}]});
    let borrower = TestProgram::apply("borrower", TCP_EVENTS_BTF, borrowed)?;
    let waits = |type_: &str, reason: &str| {
        let says = || Ok(condition(&borrower.get()?, type_).is_some_and(|c| c["reason"] == reason));
        wait_until(TIMEOUT, &format!("the borrower waits: {reason}"), says)
            .with_context(|| format!("{:#}", borrower.get().unwrap_or_default()["status"]))
    };
    waits("Accepted", "MapNotShared")?;
    let mut on_one_node = shared();
    on_one_node["nodeSelector"] = json!({"matchLabels": {"kubernetes.io/hostname": "node-1"}});
    let lender = TestProgram::apply("lender", TCP_EVENTS_BTF, on_one_node)?;
    lender.ready_on("1/1")?;
    waits("Attached", "SharedMapNotFound")?;

    lender.edit(TCP_EVENTS_BTF, shared())?;
    lender.ready_on("2/2")?;
    borrower.ready_on("2/2")?;
    for node in NODES {
        let ids = [&lender, &borrower].map(|program| program.pin(node, "map", "maps/my_map"));
        let [theirs, own] = ids;
        let (theirs, own) = (theirs?["id"].clone(), own?["id"].clone());
        ensure!(theirs == own, "{node}: {theirs} and {own}");
        let uses = borrower.pin(node, "prog", "programs/my_prog")?["map_ids"].clone();
        ensure!(uses == json!([own]), "{node}: the borrower's program uses {uses}");
        wait_until(TIMEOUT, "the borrower in the lender's detail", || {
            Ok(lender.detail(node)?["maps"][0]["sharedBy"] == json!(["borrower"]))
        })?;
        let from = borrower.detail(node)?["maps"][0]["mapRef"].clone();
        ensure!(from == json!({"program": "lender", "name": "my_map"}), "{from}");
    }

    kubectl(&["delete", "bpfprograms.sockeye.dev", "lender", "--wait=false"])?;
    let in_use = |object: &Value| condition(object, "Ready").is_some_and(|c| c["reason"] == "InUse");
    wait_until(TIMEOUT, "a deletion that waits", || Ok(in_use(&lender.get()?)))?;
    wait_until(TIMEOUT, "an Event that names the borrower", || {
        let events = json(&["get", "events.events.k8s.io", "-A", "--field-selector=reason=InUse"])?;
        Ok(events["items"].as_array().is_some_and(|all| all.iter().any(|e| e["note"].to_string().contains("borrower"))))
    })?;
    lender.pin("node-1", "map", "maps/my_map").context("the lender runs until then")?;

    borrower.edit(TCP_EVENTS_BTF, json!({}))?;
    wait_until(TIMEOUT, "the end of the lender", || {
        Ok(kubectl(&["get", "bpfprograms.sockeye.dev", "lender", "--ignore-not-found"])?.is_empty())
    })?;
    borrower.ready_on("2/2")?;
    Ok(())
}

#[test]
fn a_map_that_is_not_shared_is_lent_to_nobody() -> Result<()> {
    let private = TestProgram::apply("private", TCP_EVENTS_BTF, json!({}))?;
    private.ready_on("2/2")?;
    let borrowed = json!({"maps": [{"name": "my_map", "mapRef": {"program": "private", "name": "my_map"}}]});
    let thief = TestProgram::apply("thief", TCP_EVENTS_BTF, borrowed)?;
    let mut found = Value::Null;
    wait_until(TIMEOUT, "MapNotShared", || {
        found = thief.get()?;
        Ok(condition(&found, "Ready").is_some_and(|ready| ready["reason"] == "MapNotShared"))
    })
    .with_context(|| format!("{:#}", found["status"]))?;
    for node in NODES {
        ensure!(thief.pin(node, "map", "maps/my_map").is_err(), "{node}: the map was lent");
    }
    // Once it is shared, the other gets it without an edit of its own.
    private.edit(TCP_EVENTS_BTF, json!({"maps": [{"name": "my_map", "sharing": "Shared"}]}))?;
    thief.ready_on("2/2")?;
    let [own, theirs] = [&private, &thief].map(|program| program.pin("node-1", "map", "maps/my_map"));
    ensure!(own?["id"] == theirs?["id"]);
    Ok(())
}

#[test]
fn lower_priorities_run_first() -> Result<()> {
    let programs: Vec<TestProgram> = [("third", 900), ("first", 100), ("second", 500)]
        .into_iter()
        .map(|(name, priority)| TestProgram::apply(name, TCP_EVENTS_BTF, json!({"priority": priority})))
        .collect::<Result<_>>()?;
    for program in &programs {
        program.ready_on("2/2")?;
    }
    let expected = ["first/my_prog", "second/my_prog", "third/my_prog"];
    for node in NODES {
        let kept = json(&["get", "bpfnodes", node])?["status"]["node"]["features"].to_string();
        ensure!(kept.contains("CgroupLinkOrder"), "this kernel keeps no order: {kept}");
        wait_until(TIMEOUT, "the order in the BpfNodeDetail", || {
            let order = json(&["get", "bpfnodedetails", node])?["status"]["attachOrder"].clone();
            let root = order.as_array().into_iter().flatten().find(|one| one["cgroupPath"] == "/");
            let names = root.and_then(|one| one["programs"].as_array()).into_iter().flatten();
            let names: Vec<&str> = names.filter_map(|runs| runs["name"].as_str()).collect();
            Ok(names == expected)
        })?;
    }
    Ok(())
}
