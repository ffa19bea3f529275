//! `Wanted`: what one BpfProgram is to have on this node, worked out from its revision. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sockeye_crds::{
    BpfRevision, BpfRevisionSpec, MapDefinition, MapInfo, Reason,
    names::{is_dns_label, is_pin_name, pin_name},
    program::{DEFAULT_PRIORITY, MapRef, MapSpec, OnDelete, OnShapeChange, ProgramSpec},
    revision::ProgramRef,
    target::{Attach, Scope},
};
use sockeye_ebpf::kinds::section::{self, Section, Target};

use crate::{
    kernel::{
        facts::Machine,
        load::ProgramKind,
        probe::{self, Lacking},
    },
    pods::{Occupant, Pods, highest},
    shape::Shape,
};

/// What of this node and its agent a revision is worked out with.
#[derive(Clone, Debug)]
pub struct Here {
    /// What settles maps' sizes.
    pub machine: Machine,
    /// What this agent knows of what a revision may require.
    pub features: Vec<String>,
    /// What the kernel lacks of what a revision may ask for.
    pub lacking: Lacking,
    /// The cgroup that holds all pods, as a path below the root, as far as any target asks for it.
    pub pods_root: String,
    /// The pods, as far as any target asks for them.
    pub pods: Pods,
    /// Whether there is an API server that this agent must be able to reach.
    pub has_api: bool,
}

/// What one BpfProgram is to have on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose it is.
    pub program: ProgramRef,
    /// The revision's name.
    pub revision: String,
    /// Names what a load gives; see [`BpfRevisionSpec::load_key`].
    pub load_key: String,
    /// The digest of the object's bytes.
    pub digest: String,
    /// The functions to run.
    pub functions: BTreeMap<String, WantedFunction>,
    /// Every map of the object, by its name in the ELF.
    pub maps: BTreeMap<String, WantedMap>,
    /// Whether any function is for maps, also while it is attached nowhere.
    pub attaches_to_maps: bool,
    /// Values of global variables.
    pub globals: BTreeMap<String, Value>,
    /// Settings of single maps, as the spec has them: what they begin with is encoded once the object's types are at hand.
    pub settings: Vec<MapSpec>,
    /// Where it runs among others: lower ones first.
    pub priority: i64,
    /// Whether it asks for a place that this kernel does not keep.
    pub unordered: bool,
    /// Whether it is to be loaded, and attached nowhere.
    pub suspended: bool,
}

/// A function to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFunction {
    /// How it is verified and attached.
    pub kind: ProgramKind,
    /// The cgroups to attach it to, as paths below the root, none below another: nothing counts twice. With each that is a
    /// pod's, whose it is: such a one comes and goes, and is no mistake of anybody's where it is not there.
    pub paths: BTreeMap<String, Option<Occupant>>,
    /// The maps to attach it to, by pin name.
    pub maps: BTreeSet<String>,
    /// Whether it can keep this agent from the API server, so that an attachment is on probation.
    pub can_cut_off: bool,
}

/// A map to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedMap {
    /// Its name on bpffs.
    pub pin_name: String,
    /// Whether it is pinned.
    pub pin: bool,
    /// Whether it outlives its BpfProgram.
    pub retain: bool,
    /// How the object defines it.
    pub definition: MapDefinition,
    /// Whether it belongs to one load and is never carried over: global data, and what the object fills itself.
    pub of_load: bool,
    /// Its shape, settled.
    pub shape: Shape,
    /// Whether it is created anew where the pinned one has another shape.
    pub recreate: bool,
    /// Where it is another BpfProgram's map, which one.
    pub from: Option<MapRef>,
    /// The object's functions that use it, whether they are to run or not.
    pub used_by: Vec<String>,
}

/// Why a revision, a value, can't be done here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// In one word.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

impl Refusal {
    fn unsupported(message: String) -> Self {
        Self { reason: Reason::Unsupported, message }
    }

    /// The kernel would refuse it, in a word for everything (EINVAL): it is said here what is missing.
    fn kernel(whose: &str, what: &str, (major, minor): (u16, u16)) -> Self {
        let message = format!(
            "{whose}: this node's kernel lacks {what}, which Linux has from {major}.{minor} on, where it is configured: have \
             spec.nodeSelector select nodes that have it (BpfNode's status.node.features)"
        );
        Self { reason: Reason::KernelUnsupported, message }
    }
}

impl Wanted {
    /// Works it out. The operator has checked the revision; what fails here is what this agent, perhaps an older one, does not know.
    pub fn new(revision: &BpfRevision, here: &Here) -> Result<Self, Refusal> {
        let spec = &revision.spec;
        let lacking = spec.lacking(&here.features);
        if !lacking.is_empty() {
            let message = format!(
                "revision {} requires {}, which this node's agent does not know: upgrade the agent",
                revision.metadata.name.as_deref().unwrap_or_default(),
                lacking.join(", ")
            );
            return Err(Refusal { reason: Reason::AgentTooOld, message });
        }
        let mut functions = BTreeMap::new();
        for program in &spec.programs {
            functions.insert(program.name.clone(), function(spec, program, here)?);
        }
        // What program arrays hold is loaded, and attached nowhere.
        for name in spec.object.maps.iter().filter(|map| map.map_type == "ProgArray").flat_map(|map| &map.holds) {
            if !functions.contains_key(name) {
                let (kind, _) = kind(spec, name, here)?;
                let (paths, maps) = (BTreeMap::new(), BTreeSet::new());
                functions.insert(name.clone(), WantedFunction { kind, paths, maps, can_cut_off: false });
            }
        }
        let mut maps = BTreeMap::new();
        for info in &spec.object.maps {
            maps.insert(info.name.clone(), map(spec, info, here)?);
        }
        Ok(Self {
            program: spec.program.clone(),
            revision: revision.metadata.name.clone().unwrap_or_default(),
            load_key: spec.load_key(),
            digest: spec.digest.clone(),
            functions,
            maps,
            attaches_to_maps: spec.programs.iter().flat_map(|program| &program.attach).any(|at| at.map.is_some()),
            globals: spec.globals.clone(),
            settings: spec.maps.clone(),
            priority: spec.priority.unwrap_or(DEFAULT_PRIORITY),
            unordered: spec.priority.is_some() && here.lacking.order,
            suspended: spec.suspend,
        })
    }

    /// Every cgroup path that some function is to be attached to.
    pub fn paths(&self) -> BTreeSet<&str> {
        self.functions.values().flat_map(|f| f.paths.keys().map(String::as_str)).collect()
    }

    /// The map of a pin name.
    pub fn map_by_pin(&self, pin: &str) -> Option<(&str, &WantedMap)> {
        self.maps.iter().find(|(_, map)| map.pin_name == pin).map(|(name, map)| (name.as_str(), map))
    }
}

fn function(spec: &BpfRevisionSpec, program: &ProgramSpec, here: &Here) -> Result<WantedFunction, Refusal> {
    let ProgramSpec { name, program_type: _, attach } = program;
    let (kind, section) = kind(spec, name, here)?;
    let (mut paths, mut maps) = (BTreeMap::new(), BTreeSet::new());
    for attach in attach.iter().filter(|_| !spec.suspend) {
        match section.target {
            Target::Cgroup => add_paths(attach, here, &mut paths)?,
            Target::Map => drop(maps.insert(attached_map(spec, name, attach)?)),
        }
    }
    let can_cut_off = here.has_api && section.can_deny();
    Ok(WantedFunction { kind, paths: highest(&paths), maps, can_cut_off })
}

/// How a function is verified and attached.
fn kind(spec: &BpfRevisionSpec, name: &str, here: &Here) -> Result<(ProgramKind, &'static Section), Refusal> {
    let info = spec.object.programs.iter().find(|p| p.name == name);
    let section_name = info.map(|p| p.section.as_str()).unwrap_or_default();
    let section = section::find(section_name)
        .ok_or_else(|| Refusal::unsupported(format!("program {name}: this agent runs no section {section_name:?}")))?;
    if !is_pin_name(name) {
        return Err(Refusal::unsupported(format!("program {name:?} has a name that can't be pinned")));
    }
    let kind = ProgramKind { prog_type: section.prog_type, attach_type: section.attach_type };
    if here.lacking.programs.contains(&kind) {
        let what = format!("attach type {}", section.attach_name);
        return Err(Refusal::kernel(&format!("program {name}"), &what, section.least_kernel));
    }
    Ok((kind, section))
}

/// The map's pin name. The pin is what holds an attachment, or what it is found by.
fn attached_map(spec: &BpfRevisionSpec, function: &str, attach: &Attach) -> Result<String, Refusal> {
    let Attach { cgroup: None, map: Some(map) } = attach else {
        return Err(Refusal::unsupported(format!("program {function}: this agent attaches it to maps only")));
    };
    let pinned = spec.map(map).is_none_or(|settings| settings.pin);
    if !pinned || !spec.object.maps.iter().any(|info| info.name == *map) {
        let message = format!("program {function}: there is no pinned map {map} to attach it to");
        return Err(Refusal { reason: Reason::InvalidSpec, message });
    }
    Ok(pin_name(map))
}

/// Adds the cgroups of one target. One that is named by its place is no pod's, whoever else picks it.
fn add_paths(attach: &Attach, here: &Here, paths: &mut BTreeMap<String, Option<Occupant>>) -> Result<(), Refusal> {
    let unknown = || Refusal::unsupported(format!("this agent does not know the attach target {attach:?}"));
    let Attach { cgroup: Some(target), map: None } = attach else { return Err(unknown()) };
    let path = match (target.scope, &target.path) {
        (Scope::Pods, None) if target.is_selective() => {
            for (path, occupant) in here.pods.pick(target) {
                paths.entry(path).or_insert(Some(occupant));
            }
            return Ok(());
        }
        (Scope::Pods, None) => here.pods_root.clone(),
        (Scope::Node, None) => "/".to_owned(),
        (Scope::Path, Some(path)) => below_root(path)?,
        _ => return Err(unknown()),
    };
    paths.insert(path, None);
    Ok(())
}

fn below_root(path: &str) -> Result<String, Refusal> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(Refusal { reason: Reason::InvalidSpec, message: format!("attach path {path:?} leaves its place") });
    }
    Ok(format!("/{}", parts.join("/")))
}

fn map(spec: &BpfRevisionSpec, info: &MapInfo, here: &Here) -> Result<WantedMap, Refusal> {
    let MapInfo { name, map_type, key_size, value_size, max_entries, flags, definition, used_by, holds: _ } = info;
    let settings = spec.map(name);
    let word = |n: i64| u32::try_from(n).map_err(|_| Refusal::unsupported(format!("map {name}: {n} is out of bounds")));
    let type_number = sockeye_ebpf::kinds::map_type::number(map_type)
        .ok_or_else(|| Refusal::unsupported(format!("map {name}: this agent knows no map type {map_type}")))?;
    if here.lacking.maps.contains(&type_number)
        && let Some(row) = probe::MAPS.iter().find(|row| row.map_type == type_number)
    {
        return Err(Refusal::kernel(&format!("map {name}"), &format!("map type {map_type}"), row.least_kernel));
    }
    let pin = pin_name(name);
    if !is_pin_name(&pin) {
        return Err(Refusal {
            reason: Reason::InvalidObject,
            message: format!("map {name:?} has a name that can't be pinned"),
        });
    }
    let declared = Shape {
        map_type: type_number,
        key_size: word(*key_size)?,
        value_size: word(*value_size)?,
        max_entries: word(settings.and_then(|s| s.max_entries).unwrap_or(*max_entries))?,
        flags: word(*flags)?,
    };
    Ok(WantedMap {
        pin_name: pin,
        pin: settings.is_none_or(|s| s.pin),
        retain: settings.is_some_and(|s| s.on_delete == OnDelete::Retain),
        definition: *definition,
        of_load: info.is_of_load(),
        shape: declared.settled(&here.machine),
        recreate: settings.is_some_and(|s| s.on_shape_change == OnShapeChange::Recreate),
        from: settings.and_then(|s| s.from.clone()).map(|from| of_another(spec, name, from)).transpose()?,
        used_by: used_by.clone(),
    })
}

/// Whose map it is to be. The names reach a path.
fn of_another(spec: &BpfRevisionSpec, name: &str, from: MapRef) -> Result<MapRef, Refusal> {
    if from.program == spec.program.name || !is_dns_label(&from.program) || !is_pin_name(&from.map) {
        let message = format!("map {name}: {from} is no map of another BpfProgram");
        return Err(Refusal { reason: Reason::InvalidSpec, message });
    }
    Ok(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sockeye_crds::target::CgroupTarget;

    fn here() -> Here {
        let features = vec!["ScopePods".to_owned()];
        let machine = Machine { page: 4096, cpus: 2 };
        let (pods_root, pods) = ("/kubepods".to_owned(), Pods::default());
        Here { machine, features, lacking: Lacking::default(), pods_root, pods, has_api: false }
    }

    fn paths(targets: Vec<CgroupTarget>) -> Result<Vec<String>, Refusal> {
        let mut paths = BTreeMap::new();
        for target in targets {
            add_paths(&Attach { cgroup: Some(target), map: None }, &here(), &mut paths)?;
        }
        Ok(paths.into_keys().collect())
    }

    #[test]
    fn paths_are_normal_and_stay_below_the_root() {
        let at = |path: &str| paths(vec![CgroupTarget::at(path.to_owned())]);
        assert_eq!(at("/system.slice//x/").unwrap(), ["/system.slice/x"]);
        assert_eq!(at("/a/../..").unwrap_err().reason, Reason::InvalidSpec);
        assert_eq!(paths(vec![CgroupTarget::whole(Scope::Pods)]).unwrap(), ["/kubepods"]);
        let neither = Attach { cgroup: None, map: Some("m".to_owned()) };
        assert_eq!(add_paths(&neither, &here(), &mut BTreeMap::new()).unwrap_err().reason, Reason::Unsupported);
    }

    #[test]
    fn a_map_to_attach_to_is_one_that_is_pinned() {
        let wanted = |map: &str, pin: bool| {
            let spec = serde_json::json!({
                "program": {"name": "p", "uid": "u"}, "generation": 1, "sequence": 1, "digest": "sha256:0",
                "object": {
                    "programs": [{"name": "f", "section": "sk_msg"}],
                    "maps": [{"name": "m", "type": "Sockhash", "keySize": 4, "valueSize": 8, "maxEntries": 1,
                        "definition": "Btf"}],
                },
                "programs": [{"name": "f", "attach": [{"map": map}]}],
                "maps": [{"name": "m", "pin": pin}],
            });
            Wanted::new(&BpfRevision::new("p-1", serde_json::from_value(spec).unwrap()), &here())
        };
        let there = wanted("m", true).unwrap();
        assert!(there.attaches_to_maps && there.functions["f"].maps.contains("m") && there.paths().is_empty());
        for refused in [wanted("m", false), wanted("n", true)] {
            assert_eq!(refused.unwrap_err().reason, Reason::InvalidSpec);
        }
    }

    #[test]
    fn what_the_agent_does_not_know_is_refused_by_its_name() {
        let spec = serde_json::json!({
            "program": {"name": "p", "uid": "u"}, "generation": 1, "sequence": 1, "digest": "sha256:0",
            "object": {}, "requires": ["ScopePods", "Tomorrow"], "programs": [],
        });
        let revision = BpfRevision::new("p-1", serde_json::from_value(spec).unwrap());
        let refusal = Wanted::new(&revision, &here()).unwrap_err();
        assert_eq!(refusal.reason, Reason::AgentTooOld);
        assert!(refusal.message.contains("requires Tomorrow,"), "{refusal}");
    }

    #[test]
    fn what_the_kernel_lacks_is_refused_by_its_name() {
        let spec = serde_json::json!({
            "program": {"name": "p", "uid": "u"}, "generation": 1, "sequence": 1, "digest": "sha256:0",
            "object": {
                "programs": [{"name": "f", "section": "cgroup/getpeername4"}],
                "maps": [{"name": "m", "type": "CgrpStorage", "keySize": 4, "valueSize": 8, "maxEntries": 0, "flags": 1,
                    "definition": "Btf"}],
            },
            "programs": [{"name": "f", "attach": [{"cgroup": {"scope": "Node"}}]}],
        });
        let revision = BpfRevision::new("p-1", serde_json::from_value(spec).unwrap());
        let kind = Wanted::new(&revision, &here()).unwrap().functions["f"].kind;
        let other = ProgramKind { attach_type: 30, ..kind };
        for (programs, maps, words) in [
            (vec![kind], vec![], ["program f", "cgroup_inet4_getpeername", "5.8"]),
            (vec![other], vec![32], ["map m", "CgrpStorage", "6.2"]),
        ] {
            let lacking =
                Lacking { programs: programs.into_iter().collect(), maps: maps.into_iter().collect(), order: false };
            let refusal = Wanted::new(&revision, &Here { lacking, ..here() }).unwrap_err();
            assert_eq!(refusal.reason, Reason::KernelUnsupported);
            assert!(words.iter().all(|word| refusal.message.contains(word)), "{refusal}");
        }
    }
}
