//! `Wanted`: what one BpfProgram is to have on this node, worked out from its revision. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::{
    BpfRevision, BpfRevisionSpec, MapDefinition, MapInfo, Reason,
    names::{is_pin_name, pin_name},
    program::{Attach, CgroupTarget, OnDelete, OnShapeChange, ProgramSpec, Scope},
    revision::ProgramRef,
};
use sockeye_ebpf::section::{self, Target};

use crate::{
    kernel::{
        facts::Machine,
        load::ProgramKind,
        probe::{self, Lacking},
    },
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
    /// The cgroup that holds all pods, as a path below the root.
    pub pods: String,
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
    /// Whether it is to be loaded, and attached nowhere.
    pub suspended: bool,
}

/// A function to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFunction {
    /// How it is verified and attached.
    pub kind: ProgramKind,
    /// The cgroups to attach it to, as paths below the root, none below another: nothing counts twice.
    pub paths: BTreeSet<String>,
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
    /// How the object defines it; global data belongs to one load and is never carried over.
    pub definition: MapDefinition,
    /// Its shape, settled.
    pub shape: Shape,
    /// Whether it is created anew where the pinned one has another shape.
    pub recreate: bool,
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
            suspended: spec.suspend,
        })
    }

    /// Every cgroup path that some function is to be attached to.
    pub fn paths(&self) -> BTreeSet<&str> {
        self.functions.values().flat_map(|f| f.paths.iter().map(String::as_str)).collect()
    }

    /// The map of a pin name.
    pub fn map_by_pin(&self, pin: &str) -> Option<(&str, &WantedMap)> {
        self.maps.iter().find(|(_, map)| map.pin_name == pin).map(|(name, map)| (name.as_str(), map))
    }
}

fn function(spec: &BpfRevisionSpec, program: &ProgramSpec, here: &Here) -> Result<WantedFunction, Refusal> {
    let ProgramSpec { name, program_type: _, attach } = program;
    let info = spec.object.programs.iter().find(|p| p.name == *name);
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
    let (mut paths, mut maps) = (Vec::new(), BTreeSet::new());
    for attach in attach {
        match section.target {
            Target::Cgroup => paths.push(path(attach, here)?),
            Target::Map => drop(maps.insert(attached_map(spec, name, attach)?)),
        }
    }
    let can_cut_off = here.has_api && section.can_deny();
    if spec.suspend {
        (paths, maps) = (Vec::new(), BTreeSet::new());
    }
    Ok(WantedFunction { kind, paths: highest(paths), maps, can_cut_off })
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

fn path(attach: &Attach, here: &Here) -> Result<String, Refusal> {
    match attach {
        Attach { cgroup: Some(CgroupTarget { scope: Scope::Node, path: None }), map: None } => Ok("/".to_owned()),
        Attach { cgroup: Some(CgroupTarget { scope: Scope::Pods, path: None }), map: None } => Ok(here.pods.clone()),
        Attach { cgroup: Some(CgroupTarget { scope: Scope::Path, path: Some(path) }), map: None } => {
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            if parts.iter().any(|part| matches!(*part, "." | "..")) {
                return Err(Refusal {
                    reason: Reason::InvalidSpec,
                    message: format!("attach path {path:?} leaves its place"),
                });
            }
            Ok(format!("/{}", parts.join("/")))
        }
        other => Err(Refusal::unsupported(format!("this agent does not know the attach target {other:?}"))),
    }
}

/// Of several cgroups, those that lie below no other: a program attached to both would run twice for the lower one.
fn highest(paths: Vec<String>) -> BTreeSet<String> {
    let below = |path: &str, above: &str| above == "/" || path.starts_with(&format!("{above}/"));
    let all: BTreeSet<String> = paths.into_iter().collect();
    all.iter().filter(|path| !all.iter().any(|above| above != *path && below(path, above))).cloned().collect()
}

fn map(spec: &BpfRevisionSpec, info: &MapInfo, here: &Here) -> Result<WantedMap, Refusal> {
    let MapInfo { name, map_type, key_size, value_size, max_entries, flags, definition, used_by: _ } = info;
    let settings = spec.map(name);
    let word = |n: i64| u32::try_from(n).map_err(|_| Refusal::unsupported(format!("map {name}: {n} is out of bounds")));
    let type_number = sockeye_ebpf::map_type::number(map_type)
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
        shape: declared.settled(&here.machine),
        recreate: settings.is_some_and(|s| s.on_shape_change == OnShapeChange::Recreate),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Here {
        let features = vec!["ScopePods".to_owned()];
        let machine = Machine { page: 4096, cpus: 2 };
        Here { machine, features, lacking: Lacking::default(), pods: "/kubepods".to_owned(), has_api: false }
    }

    #[test]
    fn a_cgroup_below_another_gets_no_link_of_its_own() {
        let highest =
            |paths: &[&str]| highest(paths.iter().map(|p| (*p).to_owned()).collect()).into_iter().collect::<Vec<_>>();
        assert_eq!(highest(&["/", "/a", "/a/b"]), ["/"]);
        assert_eq!(highest(&["/a/b", "/a", "/ab", "/a"]), ["/a", "/ab"]);
        assert_eq!(highest(&["/x/y", "/x/z"]), ["/x/y", "/x/z"]);
    }

    #[test]
    fn paths_are_normal_and_stay_below_the_root() {
        let target = |path: &str| Attach {
            cgroup: Some(CgroupTarget { scope: Scope::Path, path: Some(path.to_owned()) }),
            map: None,
        };
        assert_eq!(path(&target("/system.slice//x/"), &here()).unwrap(), "/system.slice/x");
        assert_eq!(path(&target("/a/../.."), &here()).unwrap_err().reason, Reason::InvalidSpec);
        let pods = Attach { cgroup: Some(CgroupTarget { scope: Scope::Pods, path: None }), map: None };
        assert_eq!(path(&pods, &here()).unwrap(), "/kubepods");
        let neither = Attach { cgroup: None, map: Some("m".to_owned()) };
        assert_eq!(path(&neither, &here()).unwrap_err().reason, Reason::Unsupported);
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
            let lacking = Lacking { programs: programs.into_iter().collect(), maps: maps.into_iter().collect() };
            let refusal = Wanted::new(&revision, &Here { lacking, ..here() }).unwrap_err();
            assert_eq!(refusal.reason, Reason::KernelUnsupported);
            assert!(words.iter().all(|word| refusal.message.contains(word)), "{refusal}");
        }
    }
}
