//! Prints what sockeye would pass to bpf(2) for an object, in the text that tests/oracle/README.md describes.
//!
//! `plan OBJECT --features TABLE --kernel-btf FILE [PROGRAM|SETTING]...`
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fmt::Write as _, fs, process::ExitCode};

use sockeye_crds::Value;
use sockeye_ebpf::{
    kinds::{foreign, section},
    link::{MapAttributes, MapRequest, Plan, PlannedMap, PlannedProgram, PlannedSlot, ProgramKind, Request, link},
    object::{Object, ObjectError},
    values::settings::Settings,
};
use sockeye_ebpf_testing::kernel::TableKernel;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut object, mut table, mut btf, mut wanted) = (None, None, None, Wanted::default());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--features" => table = arguments.next(),
            "--kernel-btf" => btf = arguments.next(),
            _ if object.is_none() => object = Some(argument),
            _ => wanted.add(argument),
        }
    }
    let (Some(object), Some(table), Some(btf)) = (object, table, btf) else {
        eprintln!("plan OBJECT --features TABLE --kernel-btf FILE [PROGRAM|SETTING]...");
        return ExitCode::from(2);
    };
    let read = |path: &str| fs::read(path).map_err(|error| format!("{path}: {error}"));
    let text = read(&object).and_then(|bytes| {
        let table = String::from_utf8_lossy(&read(&table)?).into_owned();
        let kernel = TableKernel::read(&table, btf.as_ref())?;
        Ok(print(&bytes, &wanted, &kernel))
    });
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What is asked of an object.
#[derive(Default)]
struct Wanted {
    programs: Vec<String>,
    /// The values of global variables.
    globals: BTreeMap<String, Value>,
    /// The numbers of entries of maps.
    entries: BTreeMap<String, u32>,
}

impl Wanted {
    /// Adds what an argument says: `global:VARIABLE=VALUE:HEX`, of which HEX is for libbpf, `entries:MAP=NUMBER`, or a
    /// program.
    fn add(&mut self, argument: String) {
        if let Some((name, value)) = argument.strip_prefix("global:").and_then(|text| text.split_once('=')) {
            let value = value.rsplit_once(':').map_or(value, |(value, _)| value);
            let value = value.parse().map_or_else(|_| Value::Text(value.to_owned()), Value::Integer);
            self.globals.insert(name.to_owned(), value);
        } else if let Some((name, number)) = argument.strip_prefix("entries:").and_then(|text| text.split_once('=')) {
            self.entries.insert(name.to_owned(), number.parse().unwrap());
        } else {
            self.programs.push(argument);
        }
    }
}

/// Prints the plan for an object, or why there is none.
fn print(bytes: &[u8], wanted: &Wanted, kernel: &TableKernel) -> String {
    let refused = |why: &dyn std::fmt::Display| format!("refused {why}\n");
    let object = match Object::read(bytes) {
        Ok(object) => object,
        Err(error) => return refused(&error),
    };
    let mut request = match request(&object, &wanted.programs) {
        Ok(request) => request,
        Err(error) => return refused(&error),
    };
    for (name, request) in &mut request.maps {
        request.max_entries = wanted.entries.get(*name).copied();
    }
    let settings = match Settings::read(&object, &wanted.globals, &[]) {
        Ok(settings) => settings,
        Err(error) => return refused(&error),
    };
    match link(&object, &request, &settings, kernel) {
        Ok(plan) => text(&plan),
        Err(error) => refused(&error),
    }
}

/// Asks for the programs, by default all, and all maps that can be created.
fn request<'o>(object: &'o Object<'_>, programs: &[String]) -> Result<Request<'o>, ObjectError> {
    let mut request = Request::default();
    for (name, section) in object.programs().filter(|(name, _)| programs.is_empty() && !object.is_optional(name)) {
        request.programs.insert(name, kind(section));
    }
    for program in programs {
        // NAME=SECTION: libbpf is told the type that this section stands for.
        let (name, section) = program.split_once('=').map_or((program.as_str(), None), |(name, of)| (name, Some(of)));
        let (name, own) = object
            .programs()
            .find(|(there, _)| *there == name)
            .ok_or_else(|| ObjectError::NoProgram(name.to_owned()))?;
        request.programs.insert(name, kind(section.unwrap_or(own)));
    }
    let mut selection = object.select(request.programs.keys().copied(), [])?;
    let held = object.info(&mut selection);
    // The programs that their arrays hold.
    for name in held.maps.iter().filter(|map| map.map_type == "ProgArray").flat_map(|map| &map.holds) {
        if let Some((name, section)) = object.programs().find(|(there, _)| there == name) {
            request.programs.entry(name).or_insert_with(|| kind(section));
        }
    }
    for name in object.maps() {
        // What only others use is created by libbpf too, if it can be.
        let is_needed = held.maps.iter().any(|map| map.name == name);
        if is_needed || object.select([], [name]).is_ok() {
            request.maps.insert(name, MapRequest::default());
        }
    }
    Ok(request)
}

/// Returns the kind of a section's programs, as libbpf finds it.
fn kind(name: &str) -> ProgramKind {
    if let Some(row) = section::find(name) {
        return ProgramKind { prog_type: row.prog_type, attach_type: row.attach_type };
    }
    let undirected = section::type_of(name).and_then(|of| section::SECTIONS.iter().find(|row| row.program_type == of));
    match (undirected, foreign::find(name)) {
        (Some(row), _) => ProgramKind { prog_type: row.prog_type, attach_type: 0 },
        (None, Some((foreign, attach_type))) => ProgramKind { prog_type: foreign.prog_type, attach_type },
        (None, None) => ProgramKind::default(),
    }
}

/// Prints a plan.
fn text(plan: &Plan<'_>) -> String {
    let mut out = String::new();
    if let Some(btf) = &plan.btf {
        writeln!(out, "btf {}", hex(btf)).unwrap();
    }
    for map in &plan.maps {
        print_map(&mut out, map, plan.btf.is_some());
    }
    for program in &plan.programs {
        print_program(&mut out, program, plan);
    }
    for note in &plan.notes {
        writeln!(out, "# {note}").unwrap();
    }
    out
}

fn print_map(out: &mut String, map: &PlannedMap<'_>, has_btf: bool) {
    writeln!(out, "map {}", map.name).unwrap();
    field(out, "name", &name(map.name));
    attributes(out, "", &map.attributes, has_btf);
    if let Some(inner) = &map.inner {
        field(out, "inner.name", &name(&format!("{}.inner", map.name)));
        attributes(out, "inner.", inner, has_btf);
    }
    for (i, chunk) in map.data.iter().flat_map(|data| data.chunks(16)).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            writeln!(out, "  data {} {}", 16 * i, hex(chunk)).unwrap();
        }
    }
    if map.is_frozen {
        writeln!(out, "  frozen").unwrap();
    }
    for (slot, held) in &map.slots {
        match held {
            PlannedSlot::Map(name) => writeln!(out, "  slot {slot} map {name}").unwrap(),
            PlannedSlot::Program(name) => writeln!(out, "  slot {slot} prog {name}").unwrap(),
        }
    }
}

fn attributes(out: &mut String, prefix: &str, attributes: &MapAttributes, has_btf: bool) {
    let MapAttributes { map_type, key_size, value_size, max_entries, flags, numa_node, extra, types } = *attributes;
    let (key_type, value_type) = types.filter(|_| has_btf).unwrap_or_default();
    let numbers: BTreeMap<&str, u64> = [
        ("type", map_type.into()),
        ("key_size", key_size.into()),
        ("value_size", value_size.into()),
        ("max_entries", max_entries.into()),
        ("flags", flags.into()),
        ("numa_node", numa_node.into()),
        ("extra", extra),
        ("btf_key_type_id", key_type.into()),
        ("btf_value_type_id", value_type.into()),
    ]
    .into();
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        field(out, &format!("{prefix}{name}"), &number.to_string());
    }
    if types.is_some() && has_btf {
        writeln!(out, "  {prefix}btf").unwrap();
    }
}

fn print_program(out: &mut String, program: &PlannedProgram<'_>, plan: &Plan<'_>) {
    writeln!(out, "prog {}", program.name).unwrap();
    field(out, "name", &name(program.name));
    for (name, number) in
        [("type", program.prog_type), ("attach", program.attach_type), ("kern_version", plan.kernel_version)]
    {
        if number != 0 {
            field(out, name, &number.to_string());
        }
    }
    let licence = String::from_utf8_lossy(plan.license);
    if !licence.is_empty() {
        field(out, "licence", &licence);
    }
    if plan.btf.is_some() {
        writeln!(out, "  btf").unwrap();
    }
    let maps: BTreeMap<usize, &str> =
        program.maps.iter().filter_map(|(at, map)| Some((*at, plan.maps.get(*map)?.name))).collect();
    for (at, bytes) in program.code.chunks_exact(8).enumerate() {
        let [code, registers, low, high, ..] = bytes[..] else { continue };
        let offset = i16::from_le_bytes([low, high]);
        let number = i32::from_le_bytes(bytes[4..].try_into().unwrap()).to_string();
        let immediate = maps.get(&at).map_or(number, |map| format!("map:{map}"));
        writeln!(out, "  insn {code:02x} {} {} {offset} {immediate}", registers & 15, registers >> 4).unwrap();
    }
    let word = |record: &[u8], i: usize| u32::from_le_bytes(record[4 * i..4 * i + 4].try_into().unwrap());
    if plan.btf.is_some() {
        for record in program.functions.bytes.chunks_exact(program.functions.size.max(1)) {
            writeln!(out, "  func {} {}", word(record, 0), word(record, 1)).unwrap();
        }
        for record in program.lines.bytes.chunks_exact(program.lines.size.max(1)) {
            let [at, file, line, column] = [0, 1, 2, 3].map(|i| word(record, i));
            writeln!(out, "  line {at} {file} {line} {column}").unwrap();
        }
    }
    for map in program.bound.iter().filter_map(|map| plan.maps.get(*map)) {
        writeln!(out, "  bind {}", map.name).unwrap();
    }
}

fn field(out: &mut String, name: &str, value: &str) {
    writeln!(out, "  {name} {value}").unwrap();
}

/// Returns a name as the kernel takes it: at most 15 characters.
fn name(name: &str) -> String {
    name.chars().take(15).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
