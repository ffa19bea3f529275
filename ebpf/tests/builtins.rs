//! The builtins: each has an example that fits it, and a page that names its programs and maps.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use sockeye_crds::{BpfProgram, Builtin};
use sockeye_ebpf::{
    Object,
    check::{check, embedded_bytes},
    programs::builtin,
};

fn read(path: &str) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn each_builtin_has_an_example_that_fits() -> Result<()> {
    for name in Builtin::ALL {
        let example: BpfProgram = serde_saphyr::from_str(&read(&format!("deploy/examples/{name}.yaml"))?)?;
        assert_eq!(example.spec.bytecode.builtin, Some(name));
        let bytes = embedded_bytes(&example.spec.bytecode)?.context("no bytes")?;
        let accepted = check(&example.spec, &bytes).with_context(|| name.to_string())?;
        assert_eq!(accepted.programs.len(), accepted.object.programs.len(), "{name}: the example runs all programs");
        // Only sock-redirect is attached to a map, so only it has a note on sockets in maps.
        assert_eq!(accepted.notes.is_empty(), name != Builtin::SockRedirect, "{name}: {:?}", accepted.notes);
    }
    Ok(())
}

#[test]
fn each_builtin_has_a_page_that_names_its_programs_and_maps() -> Result<()> {
    let table = read("docs/programs/README.md")?;
    for name in Builtin::ALL {
        let page = read(&format!("docs/programs/{name}.md"))?;
        assert!(table.contains(&format!("[{name}]({name}.md)")), "docs/programs/README.md lacks {name}");
        let object = Object::read(builtin(name))?;
        let mut selection = object.select(object.programs().map(|(name, _)| name), [])?;
        let info = object.info(&mut selection);
        let maps = info.maps.iter().filter(|map| !map.definition.is_data()).map(|map| &map.name);
        for held in info.programs.iter().map(|program| &program.name).chain(maps) {
            assert!(page.contains(&format!("`{held}`")), "docs/programs/{name}.md lacks {held}");
        }
        assert!(info.btf, "{name}");
        assert!(!object.has_core_relocations(), "{name} loads on kernels without BTF, and leaves the agent small");
        assert_eq!(info.license, "Dual BSD/GPL");
    }
    Ok(())
}
