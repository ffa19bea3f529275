//! The page about one BpfProgram: intent, revision, placements, cost, and why it is not in effect.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::LabelSelector, jiff::Timestamp};
use sockeye_crds::{
    BpfProgram, BpfProgramSpec, BpfProgramStatus, Condition,
    program::{Bytecode, MapSpec, ProgramSpec},
    target::AttachTarget,
};
use sockeye_read_api::node::Runs;

use super::{
    placement::{Placement, PlacementState},
    selector, why,
};
use crate::output::{Table, duration, quantity, table::escaped, terminal::Colours};

/// The facts on the page.
pub struct Page<'a> {
    /// The BpfProgram.
    pub program: &'a BpfProgram,
    /// Its state on each node.
    pub placements: &'a [Placement],
    /// The runs of its functions by node, as far as agents answered.
    pub runs: &'a [(String, Vec<Runs>)],
    /// Why it is not in effect.
    pub why: &'a why::Why,
}

/// Returns the page.
pub fn render(page: &Page<'_>, colours: Colours, now: Timestamp) -> String {
    let Page { program, placements, runs, why } = page;
    let empty = BpfProgramStatus::default();
    let status = program.status.as_ref().unwrap_or(&empty);
    let mut text = Lines::default();
    let name = program.metadata.name.as_deref().unwrap_or_default();
    text.0 += &format!("{:<13}{}\n", "Name:", colours.strong(&escaped(name)));
    text.field("In effect", if why.in_effect { "yes" } else { "no" });
    let created = program.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
    text.field("Age", &duration::age(created.as_deref(), now));
    if let Some(generation) = program.metadata.generation {
        text.field("Generation", &generation.to_string());
    }
    intent(&mut text, &program.spec);
    revision(&mut text, status);
    text.heading("Conditions");
    text.table(&conditions(&status.conditions, now));
    text.heading("Placements");
    if placements.is_empty() {
        text.line("  on no node");
    } else {
        text.table(&placed(placements));
    }
    if status.node_statuses_omitted > 0 {
        text.line(&format!("  the status leaves out {} nodes", status.node_statuses_omitted));
    }
    cost(&mut text, placements, runs);
    drift(&mut text, placements, now);
    if !why.in_effect {
        text.heading("Why not");
        for link in why.chain.iter().filter(|link| !link.ok) {
            text.line(&format!("  {}: {}", link.stage, link.text.replace('\n', " ")));
            link.lines.iter().for_each(|line| text.line(&format!("    {line}")));
        }
        why.advice.iter().for_each(|advice| text.line(&format!("  -> {advice}")));
    }
    text.0
}

/// The lines of a page.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn field(&mut self, name: &str, value: &str) {
        self.line(&format!("{:<13}{value}", format!("{name}:")));
    }

    fn heading(&mut self, name: &str) {
        self.0 += &format!("{name}:\n");
    }

    fn line(&mut self, line: &str) {
        self.0 += &escaped(line);
        self.0.push('\n');
    }

    fn table(&mut self, table: &Table) {
        for line in table.render(true, false).lines() {
            self.line(&format!("  {}", line.trim_end()));
        }
    }
}

fn intent(text: &mut Lines, spec: &BpfProgramSpec) {
    text.heading("Intent");
    text.line(&format!("  bytecode: {}", source(&spec.bytecode)));
    text.line(&format!("  nodes: {}", spec.node_selector.as_ref().map_or("all".to_owned(), selector::text)));
    if let Some(priority) = spec.priority {
        text.line(&format!("  priority: {priority}"));
    }
    if spec.suspend {
        text.line("  suspend: true");
    }
    for ProgramSpec { name, attach, .. } in &spec.programs {
        let own = if attach.is_empty() { &spec.attach } else { attach };
        let targets: Vec<String> = own.iter().map(target).collect();
        text.line(&format!("  program {name}: attached to {}", targets.join("; ")));
    }
    for map in &spec.maps {
        text.line(&format!("  map {}: {}", map.name, settings(map)));
    }
    for (name, value) in &spec.globals {
        text.line(&format!("  global {name} = {value}"));
    }
}

/// Returns the source of the bytes in words.
pub fn source(bytecode: &Bytecode) -> String {
    let Bytecode { inline, config_map_ref, image, builtin, signatures: _ } = bytecode;
    match (builtin, image, config_map_ref, inline) {
        (Some(builtin), ..) => format!("builtin {builtin}"),
        (_, Some(image), ..) => format!("image {}", image.reference),
        (_, _, Some(map), _) => format!("ConfigMap {}, key {}", map.name, map.key),
        (.., Some(inline)) => format!("inline, {} characters of base64", inline.len()),
        _ => "none".to_owned(),
    }
}

/// Returns a target in words.
pub fn target(target: &AttachTarget) -> String {
    match target {
        AttachTarget::Node => "the whole node".to_owned(),
        AttachTarget::AllPods => "all pods".to_owned(),
        AttachTarget::CgroupPath { cgroup_path } => format!("cgroup {cgroup_path}"),
        AttachTarget::Map { map } => match &map.program {
            Some(program) => format!("map {} of {program}", map.name),
            None => format!("map {}", map.name),
        },
        AttachTarget::Pods { pods } => {
            let mut words = vec![format!("pods {}", selector::text(&pods.pod_selector))];
            words.extend(
                pods.namespace_selector
                    .as_ref()
                    .map(|one: &LabelSelector| format!("in namespaces {}", selector::text(one))),
            );
            if !pods.containers.is_empty() {
                words.push(format!("containers {}", pods.containers.join(", ")));
            }
            if pods.is_strict() {
                words.push("which start once it is attached".to_owned());
            }
            if pods.keeps_unselected() {
                words.push("and keep it until they end".to_owned());
            }
            words.join(", ")
        }
    }
}

fn settings(map: &MapSpec) -> String {
    let mut words = Vec::new();
    words.extend(map.map_ref.as_ref().map(|other| other.to_string()));
    if !map.is_pinned() {
        words.push("not pinned".to_owned());
    }
    words.extend(map.max_entries.map(|most| format!("{most} entries at most")));
    if map.is_retained() {
        words.push("kept after deletion".to_owned());
    }
    if map.is_recreated() {
        words.push("created anew if its shape changes".to_owned());
    }
    if map.lists_entries() || map.is_synced() {
        let how = if map.is_synced() { "kept in step" } else { "written on creation" };
        words.push(match &map.entries_from {
            Some(from) => format!("entries of ConfigMap {} {how}", from.config_map_ref.name),
            None => format!("{} entries {how}", map.entries.len()),
        });
    }
    if map.is_shared() {
        words.push("shared with other BpfPrograms".to_owned());
    }
    if words.is_empty() { "as the object has it".to_owned() } else { words.join(", ") }
}

fn revision(text: &mut Lines, status: &BpfProgramStatus) {
    let Some(current) = &status.current_revision else {
        text.field("Revision", "none");
        return;
    };
    text.field("Revision", &format!("{}, of generation {}", current.name, current.program_generation));
    text.field("Digest", &current.digest);
    if let Some(bytecode) = &status.bytecode {
        if let Some(digest) = &bytecode.image_digest {
            text.field("Image digest", digest);
        }
        if !bytecode.architectures.is_empty() {
            text.field("Objects for", &bytecode.architectures.join(", "));
        }
    }
}

fn conditions(conditions: &[Condition], now: Timestamp) -> Table {
    let mut table = Table::new(&["type", "status", "reason", "since", "message"], &[]);
    for condition in conditions {
        let since = duration::age(Some(&condition.last_transition_time.0.to_string()), now);
        let reason = condition.reason.as_str().to_owned();
        let status = format!("{:?}", condition.status);
        table.row([condition.type_.as_str().to_owned(), status, reason, since, condition.message.clone()]);
    }
    table
}

fn placed(placements: &[Placement]) -> Table {
    let columns = ["node", "state", "revision", "pods", "links", "program-ids", "map-ids", "memory", "reason"];
    let mut table = Table::new(&columns, &[]);
    let ids = |ids: &[i64]| ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    for placement in placements {
        table.row([
            placement.node.clone(),
            placement.state.as_str().to_owned(),
            placement.revision.clone().unwrap_or_default(),
            placement.pods.to_string(),
            placement.links.to_string(),
            ids(&placement.program_ids),
            ids(&placement.map_ids),
            placement.memory_bytes.map(quantity::format_bytes).unwrap_or_default(),
            placement.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        ]);
    }
    table
}

fn cost(text: &mut Lines, placements: &[Placement], runs: &[(String, Vec<Runs>)]) {
    text.heading("Cost");
    let memory: u64 = placements.iter().filter_map(|placement| placement.memory_bytes).sum();
    let links: i64 = placements.iter().map(|placement| placement.links).sum();
    text.line(&format!("  memory: {} on all nodes, by the kernel's charge", quantity::format_bytes(memory)));
    text.line(&format!("  links: {links}"));
    let mut table = Table::new(&["node", "function", "id", "runs", "time/run"], &[]);
    for (node, runs) in runs {
        for run in runs.iter().filter(|run| run.count > 0) {
            let each = quantity::nanoseconds(run.nanoseconds / run.count.max(1));
            table.row([node.clone(), run.name.clone(), run.id.to_string(), quantity::count(run.count), each]);
        }
    }
    if table.is_empty() {
        text.line("  runs: none counted; sockeye top says whether the kernels count them");
    } else {
        text.table(&table);
    }
}

fn drift(text: &mut Lines, placements: &[Placement], now: Timestamp) {
    let mut table = Table::new(&["node", "seen", "count", "change"], &[]);
    for placement in placements.iter().filter(|placement| placement.state != PlacementState::Unknown) {
        for drift in &placement.drift {
            let seen = duration::age(Some(&drift.seen_time), now);
            table.row([placement.node.clone(), seen, drift.count.to_string(), drift.message.clone()]);
        }
    }
    if !table.is_empty() {
        text.heading("Drift");
        text.table(&table);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::{
        fixtures::{condition, detail, node, program},
        placement::placements,
    };

    #[test]
    fn the_page_says_intent_revision_placements_and_cost() {
        let spec = json!({
            "bytecode": {"image": {"reference": "r.example/guard:v1"}},
            "nodeSelector": {
                "matchLabels": {"disk": "ssd"}, "matchExpressions": [{"key": "gpu", "operator": "Exists"}],
            },
            "attach": [{"type": "AllPods"}],
            "priority": 10,
            "programs": [
                {"name": "one"},
                {"name": "two", "attach": [{"type": "Pods", "pods": {"podSelector": {"matchLabels": {"app": "web"}},
                    "containers": ["app"], "startPolicy": "WaitForAttachment"}}]},
            ],
            "maps": [{"name": "denied", "maxEntries": 7, "entriesPolicy": "Sync", "entries": [{"key": 1, "value": 1}]}],
            "globals": {"limit": 5},
        });
        let status = json!({
            "observedGeneration": 2,
            "currentRevision": {"name": "guard-2", "programGeneration": 2, "digest": "sha256:ab"},
            "nodes": {
                "desired": 1, "updated": 1, "attached": 1, "suspended": 0, "failed": 0, "unknown": 0,
                "withoutAgent": 0,
            },
            "conditions": [condition("Ready", "True", "InEffect", "")],
        });
        let entry = json!({
            "uid": "u", "revision": "guard-2", "state": "Attached", "links": 3, "pods": 2, "programIDs": [7, 8],
            "mapIDs": [5],
            "drift": [{
                "seenTime": "2026-01-01T00:59:00Z", "kind": "PinRemoved", "message": "a pin was removed", "count": 2,
            }],
        });
        let nodes = [node("a", json!({"programs": {"guard": entry.to_string()}}))];
        let maps = json!([{
            "name": "denied", "kernelName": "denied", "id": 5, "type": "Hash", "flags": 0, "keySizeBytes": 4,
            "valueSizeBytes": 4, "maxEntries": 7, "memlockBytes": 2048, "used": true,
        }]);
        let details = [detail("a", json!([{"name": "guard", "maps": maps}]))];
        let program = program("guard", spec, status);
        let placed = placements(&program, &nodes, &details);
        let why = why::explain(&program, &placed);
        let runs = [(
            "a".to_owned(),
            vec![Runs { name: "one".into(), id: 7, count: 1000, nanoseconds: 85_000, ..Runs::default() }],
        )];
        let page = Page { program: &program, placements: &placed, runs: &runs, why: &why };
        let text = render(&page, Colours::default(), "2026-01-01T01:00:00Z".parse().unwrap());
        let expected = "\
Name:        guard
In effect:   yes
Age:         60m
Generation:  2
Intent:
  bytecode: image r.example/guard:v1
  nodes: disk=ssd,gpu
  priority: 10
  program one: attached to all pods
  program two: attached to pods app=web, containers app, which start once it is attached
  map denied: 7 entries at most, 1 entries kept in step
  global limit = 5
Revision:    guard-2, of generation 2
Digest:      sha256:ab
Conditions:
  TYPE    STATUS   REASON     SINCE   MESSAGE
  Ready   True     InEffect   60m
Placements:
  NODE   STATE      REVISION   PODS   LINKS   PROGRAM-IDS   MAP-IDS   MEMORY   REASON
  a      InEffect   guard-2    2      3       7,8           5         2.0Ki
Cost:
  memory: 2.0Ki on all nodes, by the kernel's charge
  links: 3
  NODE   FUNCTION   ID    RUNS   TIME/RUN
  a      one        7     1.0k   85ns
Drift:
  NODE   SEEN   COUNT   CHANGE
  a      60s    2       a pin was removed
";
        assert_eq!(text, expected);
    }
}
