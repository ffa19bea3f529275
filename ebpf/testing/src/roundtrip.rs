//! Takes an object through everything that the operator and an agent do with it before the kernel sees it. Tests and
//! the fuzz target fail if this panics: it asserts that a status can report every outcome, and that what reaches the
//! kernel is whole.

use std::collections::BTreeMap;

use sockeye_crds::{
    BpfProgramSpec, ObjectInfo, Reason, Value,
    names::{is_pin_name, line, lines, pin_name},
    program::{Bytecode, Entry, MapSpec, ProgramSpec},
    target::AttachTarget,
};
use sockeye_ebpf::{
    Accepted, Object, check,
    kinds::section::{self, Target},
    link::{Kernel, LinkError, MapRequest, Plan, ProgramKind, Request, link},
    values::settings::Settings,
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
    let program = |name: &&str| ProgramSpec {
        name: (*name).to_owned(),
        program_type: None,
        attach_type: None,
        attach: Vec::new(),
    };
    BpfProgramSpec {
        bytecode: Bytecode { inline: Some(String::new()), ..Bytecode::default() },
        node_selector: None,
        attach: vec![AttachTarget::Node],
        programs: programs.iter().map(program).collect(),
        maps: Vec::new(),
        globals: BTreeMap::new(),
        priority: None,
        suspend: false,
        revision_history_limit: None,
        force_detach: false,
        accepted_regressions: Vec::new(),
    }
}

/// Takes an object through, with the programs to run, and the facts of a kernel.
pub fn roundtrip(bytes: &[u8], programs: &[&str], kernel: &dyn Kernel) -> Outcome {
    match check(&spec(programs), bytes) {
        Err(refusal) => {
            assert_line(&refusal.message);
            let expected = [Reason::InvalidObject, Reason::InvalidSpec, Reason::ProgramNotFound, Reason::Unsupported];
            assert!(expected.contains(&refusal.reason), "{refusal:?}");
            Outcome::Refused(refusal.reason)
        }
        Ok(accepted) => {
            assert_shown(&accepted);
            encode_settings(bytes, &accepted.object);
            linked(bytes, &accepted.object, programs, kernel)
        }
    }
}

/// Does the same with all programs of the object that sockeye can run.
pub fn roundtrip_all_programs(bytes: &[u8], kernel: &dyn Kernel) -> Outcome {
    let object = Object::read(bytes);
    let runs = |section: &str| section::find(section).is_some_and(|row| row.target == Target::Cgroup);
    let programs: Vec<&str> = match &object {
        Ok(object) => object.programs().filter(|(_, section)| runs(section)).map(|(name, _)| name).take(32).collect(),
        Err(_) => Vec::new(),
    };
    roundtrip(bytes, &programs, kernel)
}

/// Links the object as an agent does.
fn linked(bytes: &[u8], info: &ObjectInfo, programs: &[&str], kernel: &dyn Kernel) -> Outcome {
    let object = Object::read(bytes).unwrap();
    let held = info.maps.iter().filter(|map| map.map_type == "ProgArray").flat_map(|map| &map.holds);
    let names = programs.iter().copied().chain(held.map(String::as_str));
    let kind = ProgramKind { prog_type: 13, attach_type: 3 };
    let request = Request {
        programs: names.map(|name| (name, kind)).collect(),
        maps: info.maps.iter().map(|map| (map.name.as_str(), MapRequest::default())).collect(),
    };
    let settings = Settings::default();
    match link(&object, &request, &settings, kernel) {
        Ok(plan) => {
            assert_whole(&plan, &request);
            Outcome::Ready
        }
        Err(error) => {
            assert!(!matches!(error, LinkError::Object(_)), "the agent refuses what the operator accepts: {error}");
            assert_line(&line(&error.to_string(), 2048));
            Outcome::Unlinked(error)
        }
    }
}

/// Asserts that the plan has all that was asked for, and refers to nothing outside it.
fn assert_whole(plan: &Plan<'_>, request: &Request<'_>) {
    assert_eq!(plan.programs.len(), request.programs.len());
    assert_eq!(plan.maps.len(), request.maps.len());
    for program in &plan.programs {
        let count = program.code.len() / 8;
        assert!(count > 0 && program.code.len().is_multiple_of(8) && count <= 1 << 20);
        assert!(program.maps.iter().all(|(at, map)| at + 1 < count && *map < plan.maps.len()));
        assert!(program.poisoned.places().all(|at| at < count));
        assert!(program.poisoned.places().last().is_none_or(|at| program.poisoned.get(at).is_some()));
        assert!(program.bound.iter().all(|map| *map < plan.maps.len()));
        for records in [&program.functions, &program.lines] {
            assert!(records.size > 0 || records.is_empty());
            assert!(records.bytes.len().is_multiple_of(records.size.max(1)));
        }
    }
    for map in &plan.maps {
        let size = map.attributes.value_size as usize;
        assert!(map.data.as_ref().is_none_or(|data| data.len() == size), "{}", map.name);
    }
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
    let object = Object::read(bytes).unwrap();
    if let Err(error) = Settings::read(&object, globals, maps) {
        assert_line(&line(&error.to_string(), 2048));
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
        assert!(program.section.len() <= 256);
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
