//! [`Inspection`]: what an ELF object holds and needs, and whether nodes could load it.
//!
//! A node could load it if its kernel has every feature that the object's programs and maps need, and none of the known
//! regressions. The verifier's judgement is not in it: that takes the kernel itself.

use std::collections::BTreeSet;

use serde::Serialize;
use sockeye_crds::{ObjectInfo, node::NodeFacts};
use sockeye_ebpf::kinds::{map_type, section};

use crate::output::{Table, table::escaped};

/// The contents of an ELF object, and its needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The digest of its bytes.
    pub digest: String,
    /// The number of its bytes.
    pub bytes: usize,
    /// Its programs and maps.
    pub object: ObjectInfo,
    /// The features of kernels that it needs, by the names of `status.node.features` of BpfNodes.
    pub needs: Vec<String>,
    /// The parts of it that sockeye can't run.
    pub problems: Vec<String>,
    /// This machine and the nodes.
    pub places: Vec<Place>,
}

/// A place where it could be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The node, or `here`.
    pub name: String,
    /// The release of its kernel.
    pub kernel: String,
    /// True if it would load, as far as features and relocations say.
    pub would_load: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// Causes for which the verifier may refuse it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Returns the features that programs and maps need, sorted.
pub fn needs(object: &ObjectInfo, needs_btf: bool) -> Vec<String> {
    let mut needs = BTreeSet::new();
    for program in &object.programs {
        needs.extend(section::find(&program.section).map(section::Section::feature));
    }
    for map in &object.maps {
        let number = map_type::number(&map.map_type).filter(|number| map_type::OPTIONAL.contains(number));
        needs.extend(number.map(|_| map_type::feature(&map.map_type)));
    }
    if needs_btf {
        needs.insert("KernelBTF".to_owned());
    }
    needs.into_iter().collect()
}

/// Returns the programs whose sections sockeye does not run.
pub fn problems(object: &ObjectInfo) -> Vec<String> {
    let foreign = object.programs.iter().filter(|program| section::find(&program.section).is_none());
    let mut problems: Vec<String> = foreign
        .map(|program| match section::of(&program.section, None) {
            Err(unknown) => format!("program {}: {unknown}", program.name),
            Ok(_) => format!("program {}: section {} needs spec.programs[].attachType", program.name, program.section),
        })
        .collect();
    if object.programs.is_empty() {
        problems.push("the object has no program".to_owned());
    }
    problems
}

/// Returns whether a node could load what has these needs.
pub fn on_node(name: &str, facts: &NodeFacts, needs: &[String]) -> Place {
    let lacks: Vec<String> = needs.iter().filter(|need| !facts.features.contains(need)).cloned().collect();
    Place {
        name: name.to_owned(),
        kernel: facts.kernel_release.clone(),
        would_load: lacks.is_empty(),
        lacks,
        notes: Vec::new(),
    }
}

impl Inspection {
    /// Returns whether it would load wherever that was asked.
    pub fn would_load(&self) -> bool {
        self.problems.is_empty() && self.places.iter().all(|place| place.would_load)
    }
}

/// Returns the page.
pub fn render(inspection: &Inspection) -> String {
    let Inspection { digest, bytes, object, needs, problems, places } = inspection;
    let license = if object.license.is_empty() { "none" } else { &object.license };
    let btf = if object.btf { "yes" } else { "no" };
    let mut text = format!("Digest:   {digest}\nBytes:    {bytes}\nLicence:  {license}\nBTF:      {btf}\n");
    let mut programs = Table::new(&["program", "section", "type"], &[]);
    for program in &object.programs {
        let kind = program.program_type.map_or("not run by sockeye".to_owned(), |kind| format!("{kind:?}"));
        programs.row([program.name.clone(), program.section.clone(), kind]);
    }
    let mut maps = Table::new(&["map", "type", "key", "value", "max", "definition", "used-by"], &[]);
    for map in &object.maps {
        let numbers = [map.key_size_bytes, map.value_size_bytes, map.max_entries].map(|number| number.to_string());
        let [key, value, max] = numbers;
        let used_by = if map.used_by.is_empty() { "nothing".to_owned() } else { map.used_by.join(",") };
        let definition = format!("{:?}", map.definition);
        maps.row([map.name.clone(), map.map_type.clone(), key, value, max, definition, used_by]);
    }
    let mut table = Table::new(&["place", "kernel", "would-load", "lacks"], &[]);
    for Place { name, kernel, would_load, lacks, notes: _ } in places {
        let word = if *would_load { "yes" } else { "no" };
        table.row([name.clone(), kernel.clone(), word.to_owned(), lacks.join("; ")]);
    }
    for table in [programs, maps].iter().filter(|table| !table.is_empty()) {
        text += &format!("\n{}", table.render(true, false));
    }
    text += &format!("\nNeeds: {}\n", if needs.is_empty() { "nothing special".to_owned() } else { needs.join(", ") });
    problems.iter().for_each(|problem| text += &format!("Problem: {problem}\n"));
    if !table.is_empty() {
        text += &format!("\n{}", table.render(true, false));
    }
    for place in places {
        place.notes.iter().for_each(|note| text += &format!("{}: {note}\n", place.name));
    }
    escaped(&text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(programs: Value, maps: Value) -> ObjectInfo {
        serde_json::from_value(json!({"programs": programs, "maps": maps, "btf": true})).unwrap()
    }

    #[test]
    fn needs_are_compared_with_what_nodes_report() {
        let map = |name: &str, kind: &str| {
            json!({
                "name": name, "type": kind, "keySizeBytes": 4, "valueSizeBytes": 4, "maxEntries": 1,
                "definition": "BTF", "usedBy": [],
            })
        };
        let programs = json!([
            {"name": "f", "section": "cgroup_skb/egress", "type": "CgroupSkb"}, {"name": "g", "section": "xdp"},
        ]);
        let object = object(programs, json!([map("events", "RingBuf"), map("plain", "Hash")]));
        let needs = needs(&object, true);
        assert_eq!(needs, ["CgroupInetEgress", "KernelBTF", "MapRingBuf"]);
        assert_eq!(problems(&object).len(), 1);
        assert!(problems(&object)[0].starts_with("program g: "));
        let facts = |features: &[&str]| NodeFacts {
            kernel_release: "5.10".into(),
            features: features.iter().map(|feature| (*feature).to_owned()).collect(),
            ..NodeFacts::default()
        };
        let all = on_node("a", &facts(&["CgroupInetEgress", "KernelBTF", "MapRingBuf", "JIT"]), &needs);
        let some = on_node("b", &facts(&["CgroupInetEgress", "KernelBTF"]), &needs);
        assert!(all.would_load && some.lacks == ["MapRingBuf"]);
        let inspection =
            Inspection { digest: "sha256:0".into(), object, needs, places: vec![all, some], ..Inspection::default() };
        assert!(!inspection.would_load());
        let text = render(&inspection);
        assert!(text.contains("b       5.10     no           MapRingBuf\n"), "{text}");
    }
}
