//! `Trial`: a stranger's bytes taken through all that the operator and an agent do with them, up to the kernel. For tests and
//! the fuzz target, which fail where a trial panics: it asserts that every outcome is one that a status can tell.

use std::{collections::BTreeMap, os::fd::RawFd};

use aya_obj::{
    Features,
    btf::{Btf, BtfFeatures},
};
use serde_json::{Value, json};
use sockeye_crds::{
    BpfProgramSpec, ObjectInfo, ProgramInfo, Reason,
    names::{is_pin_name, line, lines, pin_name},
    program::{Bytecode, MapSpec, ProgramSpec},
    target::{Attach, CgroupTarget, Scope},
};

use sockeye_ebpf::{
    Accepted, Object, ObjectError, check,
    kinds::section::{self, Target},
    link::{LinkError, Loadable},
    values::settings::{Settings, SettingsError},
};

/// What became of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The operator refuses them, and so would the agent.
    Refused(Reason),
    /// The operator takes them, and the agent could not load them.
    Unlinked(LinkError),
    /// All is ready for the kernel.
    Ready,
}

/// The spec of a BpfProgram that runs these programs.
pub fn spec(programs: &[&str]) -> BpfProgramSpec {
    let cgroup = Some(CgroupTarget::whole(Scope::Node));
    let attach = vec![Attach { cgroup, map: None }];
    let program = |name: &&str| ProgramSpec { name: (*name).to_owned(), program_type: None, attach: attach.clone() };
    BpfProgramSpec {
        bytecode: Bytecode { inline: Some(String::new()), ..Bytecode::default() },
        node_selector: None,
        programs: programs.iter().map(program).collect(),
        maps: Vec::new(),
        globals: BTreeMap::new(),
        priority: None,
        suspend: false,
    }
}

/// What a kernel knows: all that there is to know, or, as an old one, nothing.
pub fn features(all: bool) -> Features {
    let btf = BtfFeatures::new(all, all, all, all, all, all, all, all);
    Features::new(all, all, all, all, all, all, all, Some(btf))
}

/// Takes the bytes through, with programs to run, the kernel's types where there are any, and what the kernel knows.
pub fn roundtrip(bytes: &[u8], programs: &[&str], kernel: Option<&Btf>, features: &Features) -> Outcome {
    let checked = check(&spec(programs), bytes);
    let linked = linked(bytes, programs, kernel, features);
    match &linked {
        Err(LinkError::Refused(ObjectError::Defect(panicked))) => panic!("the reader gave up: {panicked}"),
        Err(LinkError::Refused(error)) => {
            let refusal = checked.as_ref().err();
            let same =
                refusal.is_some_and(|r| r.reason == Reason::InvalidObject && r.message.ends_with(&error.to_string()));
            assert!(same, "the agent refuses what the operator takes: {error}");
        }
        Err(error @ LinkError::Step { .. }) => assert_line(&error.to_string()),
        Ok(()) => {}
    }
    match checked {
        Err(refusal) => {
            assert_line(&refusal.message);
            let expected = [Reason::InvalidObject, Reason::NoSuchProgram, Reason::Unsupported];
            let no_programs = programs.is_empty() && refusal.reason == Reason::InvalidSpec;
            assert!(expected.contains(&refusal.reason) || no_programs, "{refusal:?}");
            Outcome::Refused(refusal.reason)
        }
        Ok(accepted) => {
            assert_shown(&accepted);
            set(bytes, &accepted.object);
            linked.map_or_else(Outcome::Unlinked, |()| Outcome::Ready)
        }
    }
}

/// The same with all programs that sockeye runs of those that the object has.
pub fn roundtrip_all_programs(bytes: &[u8], kernel: Option<&Btf>, features: &Features) -> Outcome {
    let object = Object::read(bytes).map(Object::into_info).unwrap_or_default();
    let runs = |program: &&ProgramInfo| section::find(&program.section).is_some_and(|s| s.target == Target::Cgroup);
    let programs: Vec<&str> =
        object.programs.iter().filter(runs).map(|program| program.name.as_str()).take(32).collect();
    roundtrip(bytes, &programs, kernel, features)
}

/// What the agent does, with descriptors that no kernel gave.
fn linked(bytes: &[u8], programs: &[&str], kernel: Option<&Btf>, features: &Features) -> Result<(), LinkError> {
    let mut object = Loadable::read(bytes)?;
    if let Some(btf) = features.btf() {
        let _ = object.btf(btf)?;
    }
    if let (true, Some(kernel)) = (object.needs_kernel_btf(), kernel) {
        object.relocate_types(kernel)?;
    }
    let maps = object.take_maps();
    let descriptors = maps.iter().enumerate().map(|(i, (name, map))| (name.as_str(), 1000 + i as RawFd, map));
    object.link(descriptors, features)?;
    for (program, function) in programs.iter().filter_map(|name| object.program(name)) {
        let _ = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
        assert!(program.license.count_bytes() <= 128 && !function.instructions.is_empty());
    }
    Ok(())
}

/// Sets a variable and an entry, one of each by the bytes, to something: it is encoded by the types that the bytes say.
fn set(bytes: &[u8], object: &ObjectInfo) {
    let chosen = bytes.iter().fold(0, |sum, byte| sum + usize::from(*byte));
    let values =
        [json!(1), json!("10.0.0.1"), json!([[1], 2]), json!({"limits": {"bytes": 1}, "count": 1, "text": ["a"]})];
    let globals = ["step", "start", "total", "zeroed", "rate", "label", "limits"];
    let value = &values[chosen % values.len()];
    assert_settings(bytes, &BTreeMap::from([(globals[chosen % globals.len()].to_owned(), value.clone())]), &[]);
    if let Some(map) = object.maps.get(chosen % object.maps.len().max(1)) {
        let entry = json!({"name": map.name, "initial": [{"key": value, "value": value}]});
        let entry: MapSpec = serde_json::from_value(entry).unwrap_or_else(|error| panic!("{error}"));
        assert_settings(bytes, &BTreeMap::new(), &[entry]);
    }
}

fn assert_settings(bytes: &[u8], globals: &BTreeMap<String, Value>, maps: &[MapSpec]) {
    match Settings::read(bytes, globals, maps) {
        Err(SettingsError::Object(ObjectError::Defect(panicked))) => panic!("the encoder gave up: {panicked}"),
        Err(error) => assert_line(&line(&error.to_string(), 2048)),
        Ok(_) => {}
    }
}

fn assert_line(text: &str) {
    assert!(text.len() <= 2048 && lines(text) == text && !text.contains(['\n', '\t']), "not fit to be shown: {text:?}");
}

/// Every string of an object that reaches a status, a log or a path.
fn assert_shown(Accepted { object, notes, .. }: &Accepted) {
    let ObjectInfo { programs, maps, license, btf: _ } = object;
    assert!(programs.len() <= 64 && maps.len() <= 128);
    for program in programs {
        assert!(is_pin_name(&program.name), "{program:?}");
        assert!(program.section.len() <= 128);
        assert_line(&program.section);
    }
    for map in maps {
        assert!(is_pin_name(&pin_name(&map.name)), "{map:?}");
        assert!(map.definition.is_data() || is_pin_name(&map.name), "{map:?}");
    }
    assert!(license.len() <= 128);
    assert_line(license);
    notes.iter().for_each(|note| assert_line(note));
}
