//! The controller's answers to inquiries, from what it knows. It makes no system call for them, and changes nothing.

use std::sync::Arc;

use aya_obj::generated::bpf_map_type;
use sockeye_crds::node::{NodeProgram, ProgramDetail};

use super::{
    Controller,
    inspection::{
        Inquiry, InspectedMap, InspectedNode, InspectedObject, InspectedProgram, InspectedReferences, InspectedRefused,
        InspectedStream, Inspection, MapName, Missing, OuterMap, UsingProgram,
    },
    program::ProgramState,
    report::full,
};
use crate::{
    model::{
        observed::{LinkKey, ObservedLink, ObservedMap},
        pod::Pod,
        refused::COUNTS,
    },
    node::{
        Node,
        layout::{self, Home},
    },
};

/// The types of maps that hold maps.
const OUTER: [u32; 2] =
    [bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS as u32, bpf_map_type::BPF_MAP_TYPE_HASH_OF_MAPS as u32];

impl<N: Node> Controller<N> {
    /// Answers an inquiry.
    pub(super) fn inspect(&self, inquiry: &Inquiry) -> Inspection {
        if !self.knows_node {
            return Inspection::Missing(Missing::Node);
        }
        let answer = match inquiry {
            Inquiry::Node => Ok(Inspection::Node(Box::new(self.inspect_node()))),
            Inquiry::Programs(names) => Ok(Inspection::Programs(self.inspect_programs(names))),
            Inquiry::Map(name) => self.inspect_map(name).map(|map| Inspection::Map(Box::new(map))),
            Inquiry::References(name) => self.inspect_references(name).map(|by| Inspection::References(Box::new(by))),
            Inquiry::VerifierLog(name) => self.inspect_log(name),
            Inquiry::Refused => Ok(Inspection::Refused(Box::new(self.inspect_refused()))),
            Inquiry::Stream(name) => self.inspect_stream(name).map(|stream| Inspection::Stream(Box::new(stream))),
        };
        answer.unwrap_or_else(Inspection::Missing)
    }

    fn inspect_node(&self) -> InspectedNode {
        InspectedNode {
            facts: self.settings.facts.clone(),
            suspended: self.survey.suspended.clone(),
            lists: full::node_lists(&self.reported()),
        }
    }

    fn inspect_programs(&self, names: &[String]) -> Vec<InspectedProgram> {
        let entries = full::entries(&self.reported(), names).into_iter();
        let program = |(status, detail): (NodeProgram, ProgramDetail)| {
            let descriptors = self.node.descriptors(&status.name);
            InspectedProgram { status, detail, descriptors }
        };
        entries.map(program).collect()
    }

    fn inspect_log(&self, name: &str) -> Result<Inspection, Missing> {
        match self.verifier_logs.get(name) {
            Some(log) => Ok(Inspection::VerifierLog(log.clone())),
            None => self.program_here(name).and(Err(Missing::VerifierLog)),
        }
    }

    fn inspect_map(&self, name: &MapName) -> Result<InspectedMap, Missing> {
        let program = self.program_here(&name.program)?;
        let Some((pin, map)) = find_map(program, &name.map) else {
            let unpinned = program.unpinned.get(&name.map).ok_or(Missing::Map)?;
            let object = InspectedObject::Unknown("the map is not pinned".to_owned());
            return Ok(InspectedMap { name: name.map.clone(), info: unpinned.clone(), fd: None, object });
        };
        let by_pin = program.desired.as_ref().and_then(|desired| desired.map_by_pin(pin));
        Ok(InspectedMap {
            name: by_pin.map_or(pin, |(name, _)| name).to_owned(),
            info: map.info.clone(),
            fd: self.node.descriptors(&name.program).maps.remove(pin),
            object: match by_pin.filter(|(_, map)| map.attach_only).and(map.from.as_ref()) {
                Some(from) => {
                    InspectedObject::Unknown(format!("ask for map {} of BpfProgram {}", from.name, from.program))
                }
                None => self.object_of(program),
            },
        })
    }

    fn inspect_stream(&self, name: &MapName) -> Result<InspectedStream, Missing> {
        let map = self.inspect_map(name)?;
        // As the object: a newer revision that is not in effect may declare other records.
        let in_effect = self.programs.get(&name.program).and_then(ProgramState::template_in_effect);
        let settings = in_effect.and_then(|template| template.maps.iter().find(|settings| settings.name == map.name));
        Ok(InspectedStream {
            stream: settings.and_then(|settings| settings.stream.clone()),
            pods: self.known_pods(),
            cgroups: self.node.cgroup_root(),
            map,
        })
    }

    fn inspect_refused(&self) -> InspectedRefused {
        let mut maps = Vec::new();
        for (name, program) in self.programs.iter() {
            // A map that is another BpfProgram's is listed with that one.
            let own = program.observed.maps.get(COUNTS).filter(|map| map.from.is_none());
            let fd = own.and_then(|_| self.node.descriptors(name).maps.remove(COUNTS));
            maps.extend(own.zip(fd).map(|(map, fd)| (name.to_owned(), map.info.clone(), fd)));
        }
        InspectedRefused { maps, pods: self.known_pods(), cgroups: self.node.cgroup_root() }
    }

    fn known_pods(&self) -> Arc<Vec<Pod>> {
        self.inputs.assignment.as_ref().and_then(|assignment| assignment.pods.clone()).unwrap_or_default()
    }

    /// Returns a BpfProgram that the node has or should have. One that was just removed has a state for a moment yet.
    fn program_here(&self, name: &str) -> Result<&ProgramState, Missing> {
        let program = self.programs.get(name);
        program.filter(|program| program.is_desired() || !program.observed.is_empty()).ok_or(Missing::Program)
    }

    /// Returns the object of the revision that is in effect.
    fn object_of(&self, program: &ProgramState) -> InspectedObject {
        let Some(revision) = program.observed.revision.as_deref() else {
            return InspectedObject::Unknown("no revision of the BpfProgram is in effect".to_owned());
        };
        let Some(template) = program.template_in_effect() else {
            let why =
                format!("the agent does not know the object of revision {revision}, which an earlier agent loaded");
            return InspectedObject::Unknown(why);
        };
        let digest = &template.digest;
        let at_hand = self.inputs.assignment.as_ref().and_then(|assignment| assignment.objects.get(digest));
        match at_hand {
            Some(bytes) => InspectedObject::Bytes(digest.clone(), bytes.clone()),
            None => InspectedObject::Digest(digest.clone()),
        }
    }

    fn inspect_references(&self, name: &MapName) -> Result<InspectedReferences, Missing> {
        let program = self.program_here(&name.program)?;
        let pinned = find_map(program, &name.map).map(|(_, map)| &map.info);
        let info = pinned.or_else(|| program.unpinned.get(&name.map)).ok_or(Missing::Map)?.clone();
        let id = info.id;
        let draining = self.draining.maps.iter().filter(|map| map.id == id);
        let pins = draining.map(|map| (map.pin_path.clone(), map.program.clone())).collect();
        let mut found = InspectedReferences {
            info,
            pins,
            users: Vec::new(),
            links: Vec::new(),
            outer: Vec::new(),
            previous: Vec::new(),
        };
        for (name, program) in self.programs.iter() {
            found.add(name, program, &self.settings.layout.home(name));
            self.add_descriptors(name, program, &mut found);
        }
        Ok(found)
    }

    /// Adds what only descriptors tell: the content of maps of maps, and what ran before a revision on trial.
    fn add_descriptors(&self, name: &str, program: &ProgramState, found: &mut InspectedReferences) {
        let observed = &program.observed;
        let is_outer = |map: &ObservedMap| OUTER.contains(&map.info.map_type);
        if observed.previous.is_none() && !observed.maps.values().any(is_outer) {
            return;
        }
        let mut descriptors = self.node.descriptors(name);
        let previous = descriptors.previous.into_iter().map(|(function, fd)| (name.to_owned(), function, fd));
        found.previous.extend(previous);
        for (pin, map) in observed.maps.iter().filter(|(_, map)| is_outer(map)) {
            let fd = descriptors.maps.remove(pin);
            let info = map.info.clone();
            found.outer.extend(fd.map(|fd| OuterMap { program: name.to_owned(), map: pin.clone(), info, fd }));
        }
    }
}

/// Finds a BpfProgram's map by its name in the ELF object or by its pin name.
fn find_map<'a>(program: &'a ProgramState, name: &str) -> Option<(&'a str, &'a ObservedMap)> {
    let desired = program.desired.as_ref().and_then(|desired| desired.maps.get(name));
    let pin = desired.map_or_else(|| sockeye_crds::names::pin_name(name), |map| map.pin_name.clone());
    program.observed.maps.get_key_value(&pin).map(|(pin, map)| (pin.as_str(), map))
}

impl InspectedReferences {
    /// Adds what a BpfProgram has that keeps the map.
    fn add(&mut self, name: &str, program: &ProgramState, home: &Home) {
        let (observed, id) = (&program.observed, self.info.id);
        let pinned = observed.maps.iter().filter(|(_, map)| map.info.id == id && map.pinned);
        self.pins.extend(pinned.map(|(pin, _)| (home.host(&layout::map(pin)), name.to_owned())));
        for (function, loaded) in observed.functions.iter().filter(|(_, loaded)| loaded.info.map_ids.contains(&id)) {
            let runs = |(_, link): &(&LinkKey, &ObservedLink)| link.pinned && link.info.program_id == loaded.info.id;
            let pin = loaded.pinned.then(|| home.host(&layout::program(function)));
            let links = observed.links.iter().filter(runs);
            let links = links.map(|(key, _)| home.host(&layout::link(&key.function, &key.place)));
            self.users.push(UsingProgram {
                program: name.to_owned(),
                function: function.clone(),
                id: loaded.info.id,
                kept_by: pin.into_iter().chain(links).collect(),
            });
        }
        let holds = |(_, link): &(&LinkKey, &ObservedLink)| link.is_link() && link.info.map_id == id;
        self.links.extend(observed.links.iter().filter(holds).map(|(key, _)| {
            (name.to_owned(), key.function.clone(), home.host(&layout::link(&key.function, &key.place)))
        }));
    }
}
