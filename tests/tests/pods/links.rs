//! Links at pods, as the kernel has them, and the connections that they count.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sockeye_tests::{
    NODES, TIMEOUT, helper, json, kubectl,
    program::{TestProgram, report},
    wait_until,
};

/// The time within which links follow the fastest of a few changes, that of the API server and of the test's own
/// requests included.
const SOON: Duration = Duration::from_secs(3);

/// The directory with the pods' cgroups, in a node's mount namespace.
const PODS: &str = "/run/sockeye/cgroup/kubepods";

/// Returns the connections that both nodes counted.
pub fn counted(program: &TestProgram) -> Result<u64> {
    NODES.iter().map(|node| Ok(program.counts(node)?[TestProgram::ACTIVE])).sum()
}

/// Returns a spec that attaches `my_prog` to pods.
pub fn at(pods: Value) -> Value {
    json!({"attach": [{"type": "Pods", "pods": pods}]})
}

/// Returns the pods and containers at whose cgroups a program has a link on a node, by the names of the links' pins.
pub fn linked(node: &str, program: &TestProgram) -> Result<Vec<String>> {
    let pins = format!("{}/links", program.home());
    let pins = helper("exec", &[node, "find", &pins, "-mindepth", "2", "-printf", "%f\n"]).unwrap_or_default();
    let cgroups = helper("exec", &[node, "find", PODS, "-type", "d", "-printf", "%i %P\n"])?;
    let paths: BTreeMap<&str, &str> = cgroups.lines().filter_map(|line| line.split_once(' ')).collect();
    let owners = owners(node)?;
    let name = |cgroup: &str| match paths.get(cgroup) {
        Some(path) => owners.get(path.rsplit('/').next().unwrap_or_default()).cloned().unwrap_or((*path).to_owned()),
        None => format!("cgroup {cgroup}, which is gone"),
    };
    let mut names: Vec<String> = pins.lines().map(name).collect();
    names.sort();
    Ok(names)
}

/// Returns the pods and containers of a node by the names of their cgroups.
fn owners(node: &str) -> Result<BTreeMap<String, String>> {
    let pods = json(&["get", "pods", "-A", &format!("--field-selector=spec.nodeName={node}")])?;
    let mut owners = BTreeMap::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let meta = &pod["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = format!("{}/{}", text(&meta["namespace"]), text(&meta["name"]));
        // A static pod's cgroup has the hash of its manifest in the place of a UID.
        let mirrored = &meta["annotations"]["kubernetes.io/config.mirror"];
        let uid = if mirrored.is_string() { mirrored } else { &meta["uid"] };
        owners.insert(format!("pod{}", text(uid)), name.clone());
        for kind in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
            for container in pod["status"][kind].as_array().into_iter().flatten() {
                let id = text(&container["containerID"]);
                let id = id.rsplit('/').next().unwrap_or_default().to_owned();
                owners.insert(id, format!("{name} {}", text(&container["name"])));
            }
        }
    }
    Ok(owners)
}

/// Waits until a BpfProgram has links at exactly these pods and containers on a node, and its BpfNode reports as many.
pub fn links_are(node: &str, program: &TestProgram, within: Duration, names: &[&str]) -> Result<()> {
    time_to_links(node, program, within, names).map(drop)
}

/// Gives an object one label after another, and waits each time for the links at these pods and containers. Fails if
/// they follow none of the labels soon: a machine may be busy once, and not always.
pub fn links_soon_follow(
    (node, program): (&str, &TestProgram),
    object: &[&str],
    labels: &[(&str, &[&str])],
) -> Result<()> {
    let mut times = Vec::new();
    for (label, names) in labels {
        kubectl(&[&["label", "--overwrite"], object, &[label]].concat())?;
        times.push(time_to_links(node, program, TIMEOUT, names)?);
    }
    ensure!(times.iter().any(|time| *time < SOON), "links of {} followed after {times:?}", program.home());
    Ok(())
}

fn time_to_links(node: &str, program: &TestProgram, within: Duration, names: &[&str]) -> Result<Duration> {
    let mut found = Vec::new();
    let took = wait_until(within, &format!("links of {} on {node} at {names:?}", program.home()), || {
        found = linked(node, program)?;
        let reported = report(node, program.name())?["links"].as_u64().unwrap_or_default();
        Ok(found == names && reported == names.len() as u64)
    })
    .with_context(|| format!("{found:?}"))?;
    println!("links of {} on {node} followed within {took:?}", program.home());
    Ok(took)
}

/// Waits until the BpfNodeDetail names the pods and containers at which a BpfProgram has links on a node.
pub fn detail_names(node: &str, program: &TestProgram, names: &[&str]) -> Result<()> {
    let mut found = Vec::new();
    wait_until(TIMEOUT, &format!("links at {names:?} in the BpfNodeDetail"), || {
        let links = program.detail(node)?["links"].as_array().cloned().unwrap_or_default();
        ensure!(links.iter().all(|link| link["inEffect"] == true), "{links:#?}");
        let name = |link: &Value| {
            let [pod, container] = ["pod", "container"].map(|key| link[key].as_str().unwrap_or_default());
            format!("{pod} {container}").trim().to_owned()
        };
        found = links.iter().map(name).collect();
        found.sort();
        Ok(found == names)
    })
    .with_context(|| format!("{found:?}"))
    .map(drop)
}
