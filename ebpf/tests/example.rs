//! The manifests in `deploy/examples` contain the objects that `ebpf/programs` compiles to, and their specs fit the
//! objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sockeye_crds::BpfProgram;
use sockeye_ebpf::{
    check::{check, decode_inline},
    kinds::section::{SECTIONS, find},
    programs::{TCP_EVENTS, types},
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");

fn all() -> impl Iterator<Item = (String, &'static [u8])> {
    let of_types = types::ALL.iter().map(|(name, object)| (format!("{EXAMPLES}/types/{name}.yaml"), *object));
    std::iter::once((format!("{EXAMPLES}/bpfprogram.yaml"), TCP_EVENTS)).chain(of_types)
}

/// Returns the paths of all manifests in a folder and the folders below.
fn manifests(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(manifests(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    Ok(found)
}

fn manifest(path: &str) -> Result<BpfProgram> {
    serde_saphyr::from_str(&fs::read_to_string(path).context(path.to_owned())?).context(path.to_owned())
}

/// Returns the compiler's version, which clang writes into the object.
fn compiler(object: &[u8]) -> Option<&[u8]> {
    object.split(|byte| *byte == 0).find(|text| text.windows(14).any(|words| words == b"clang version "))
}

#[test]
fn the_committed_examples_have_the_objects_that_the_sources_compile_to() -> Result<()> {
    for (path, object) in all() {
        let committed = decode_inline(&manifest(&path)?.spec.bytecode.inline.unwrap_or_default())?;
        assert!(compiler(&committed).is_some(), "the object in {path} does not say who compiled it");
        // Another version of clang compiles the same source to other bytes, so only objects of the same version are
        // compared.
        if compiler(&committed) == compiler(object) {
            assert!(
                committed == object,
                "{path} is not what ebpf/programs compiles to: run `make example` and commit it"
            );
        }
    }
    Ok(())
}

/// Compares the table in `docs/program-types.md` with the rows in the code.
#[test]
fn the_documented_program_types_are_those_in_the_code() -> Result<()> {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/program-types.md"))?;
    let rows = docs.lines().skip_while(|line| !line.starts_with("| section | type |")).skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    let expected: Vec<String> = SECTIONS
        .iter()
        .map(|row| {
            let target = format!("{:?}", row.target).to_lowercase();
            let (major, minor) = row.least_kernel;
            format!("| `{}` | {} | `{}` | {target} | {major}.{minor} |", row.name, row.program_type, row.attach_name)
        })
        .collect();
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.into_iter().zip(expected) {
        assert!(row.starts_with(&expected), "docs/program-types.md: {row}\nshould begin with: {expected}");
        let example = row.rsplit_once("](../deploy/examples/").and_then(|(_, rest)| rest.split_once(')'));
        let example = example.with_context(|| format!("no example: {row}"))?.0;
        let text = fs::read_to_string(format!("{EXAMPLES}/{example}"))?;
        assert!(text.contains("kind: BpfProgram"), "{example}");
    }
    assert!(SECTIONS.iter().all(|row| row.capabilities == ["CAP_BPF", "CAP_NET_ADMIN"]), "docs say so of all");
    Ok(())
}

/// Whoever applies one example after another would otherwise change the first one's BpfProgram.
#[test]
fn no_two_examples_have_one_name() -> Result<()> {
    let mut places = BTreeMap::new();
    for path in manifests(Path::new(EXAMPLES))? {
        let path = path.display().to_string();
        let name = manifest(&path)?.metadata.name.context(path.clone())?;
        if let Some(other) = places.insert(name.clone(), path.clone()) {
            panic!("{other} and {path} both have the name {name}");
        }
    }
    assert!(places.len() >= 17, "only {} examples", places.len());
    Ok(())
}

#[test]
fn every_program_type_has_an_example_whose_spec_fits() -> Result<()> {
    let mut shown = BTreeSet::new();
    for (path, object) in all() {
        let manifest = manifest(&path)?;
        let accepted = check(&manifest.spec, object).with_context(|| path.clone())?;
        assert_eq!(accepted.programs.len(), accepted.object.programs.len(), "{path} runs all that the object has");
        let sections = accepted.object.programs.iter().filter_map(|program| find(&program.section));
        shown.extend(sections.map(|row| (row.prog_type, row.attach_type)));
    }
    for row in SECTIONS {
        assert!(shown.contains(&(row.prog_type, row.attach_type)), "no example has a program in {}", row.name);
    }
    Ok(())
}
