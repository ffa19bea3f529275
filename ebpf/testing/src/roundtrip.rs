//! Takes an object through everything that the operator and an agent do with it before the kernel sees it. Tests and
//! the fuzz target fail if this panics: it asserts that a status can report every outcome.

use std::{collections::BTreeMap, os::fd::RawFd};

use aya_obj::{
    Features,
    btf::{Btf, BtfFeatures},
};
use sockeye_crds::{
    BpfProgramSpec, ObjectInfo, ProgramInfo, Reason, Value,
    names::{is_pin_name, line, lines, pin_name},
    program::{Bytecode, Entry, MapSpec, ProgramSpec},
    target::AttachTarget,
};
use sockeye_ebpf::{
    Accepted, Object, ObjectError, check,
    kinds::section::{self, Target},
    link::{LinkError, Loadable},
    values::settings::{Settings, SettingsError},
};

/// The outcome for an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The operator refuses the object, and so would an agent.
    Refused(Reason),
    /// The operator accepts the object, but an agent cannot link it.
    Unlinked(LinkError),
    /// The object is ready for the kernel.
    Ready,
}

/// Returns the spec of a BpfProgram that runs these programs on the node's root cgroup.
pub fn spec(programs: &[&str]) -> BpfProgramSpec {
    let program = |name: &&str| ProgramSpec { name: (*name).to_owned(), program_type: None, attach_type: None, attach: Vec::new() };
    BpfProgramSpec {
        bytecode: Bytecode { inline: Some(String::new()), ..Bytecode::default() },
        node_selector: None,
        attach: vec![AttachTarget::Node],
        programs: programs.iter().map(program).collect(),
        maps: Vec::new(),
        globals: BTreeMap::new(),
        priority: None,
        suspend: false,
    }
}

/// Returns a kernel's features: all, or none as on an old kernel.
pub fn features(all: bool) -> Features {
    let btf = BtfFeatures::new(all, all, all, all, all, all, all, all);
    Features::new(all, all, all, all, all, all, all, Some(btf))
}

/// Takes an object through, with the programs to run, the kernel's types if it has any, and the kernel's features.
pub fn roundtrip(bytes: &[u8], programs: &[&str], kernel: Option<&Btf>, features: &Features) -> Outcome {
    let checked = check(&spec(programs), bytes);
    let linked = linked(bytes, programs, kernel, features);
    match &linked {
        Err(LinkError::Refused(ObjectError::Defect(panicked))) => panic!("the reader gave up: {panicked}"),
        Err(LinkError::Refused(error)) => {
            let refusal = checked.as_ref().err();
            let same =
                refusal.is_some_and(|r| r.reason == Reason::InvalidObject && r.message.ends_with(&error.to_string()));
            assert!(same, "the agent refuses what the operator accepts: {error}");
        }
        Err(error @ LinkError::Step { .. }) => assert_line(&error.to_string()),
        Ok(()) => {}
    }
    match checked {
        Err(refusal) => {
            assert_line(&refusal.message);
            let expected = [Reason::InvalidObject, Reason::ProgramNotFound, Reason::Unsupported];
            let no_programs = programs.is_empty() && refusal.reason == Reason::InvalidSpec;
            assert!(expected.contains(&refusal.reason) || no_programs, "{refusal:?}");
            Outcome::Refused(refusal.reason)
        }
        Ok(accepted) => {
            assert_shown(&accepted);
            encode_settings(bytes, &accepted.object);
            linked.map_or_else(Outcome::Unlinked, |()| Outcome::Ready)
        }
    }
}

/// Does the same with all programs of the object that sockeye can run.
pub fn roundtrip_all_programs(bytes: &[u8], kernel: Option<&Btf>, features: &Features) -> Outcome {
    let object = Object::read(bytes).map(Object::into_info).unwrap_or_default();
    let runs = |program: &&ProgramInfo| section::find(&program.section).is_some_and(|s| s.target == Target::Cgroup);
    let programs: Vec<&str> =
        object.programs.iter().filter(runs).map(|program| program.name.as_str()).take(32).collect();
    roundtrip(bytes, &programs, kernel, features)
}

/// Links the object as an agent does, with made-up descriptors.
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

/// Encodes a value for a global variable and for a map entry. The bytes determine which.
fn encode_settings(bytes: &[u8], object: &ObjectInfo) {
    let chosen = bytes.iter().fold(0, |sum, byte| sum + usize::from(*byte));
    let values = [
        Value::from(1),
        "10.0.0.1".into(),
        "[[1], 2]".into(),
        r#"{"limits": {"bytes": 1}, "count": 1, "text": ["a"]}"#.into(),
        r#"{"limits": {"bytes": 1e99, "bytes": null}}"#.into(),
    ];
    let globals = ["step", "start", "total", "zeroed", "rate", "label", "limits"];
    let value = &values[chosen % values.len()];
    assert_settings(bytes, &BTreeMap::from([(globals[chosen % globals.len()].to_owned(), value.clone())]), &[]);
    if let Some(map) = object.maps.get(chosen % object.maps.len().max(1)) {
        let entries = vec![Entry { key: Some(value.clone()), value: value.clone() }];
        assert_settings(bytes, &BTreeMap::new(), &[MapSpec { entries, ..MapSpec::named(&map.name) }]);
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

/// Asserts that every string of the object that reaches a status, a log or a path is fit for it.
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
