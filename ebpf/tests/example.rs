//! `deploy/examples/bpfprogram.yaml` holds the object that `programs/tcp-events.bpf.c` gives.

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sockeye_ebpf::programs::TCP_EVENTS;

/// What clang calls itself in the debug information of what it made.
fn compiler(object: &[u8]) -> Option<&[u8]> {
    object.split(|byte| *byte == 0).find(|text| text.windows(14).any(|words| words == b"clang version "))
}

#[test]
fn the_committed_example_is_what_the_source_compiles_to() -> Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/bpfprogram.yaml");
    let example = std::fs::read_to_string(path).context(path)?;
    let inline = example.lines().find_map(|line| line.trim().strip_prefix("inline: ")).context("no inline bytecode")?;
    let committed = BASE64_STANDARD.decode(inline)?;
    assert!(compiler(&committed).is_some(), "the committed object does not say who compiled it");
    // Another clang makes other bytes of the same source; only the same one's can be compared.
    if compiler(&committed) == compiler(TCP_EVENTS) {
        assert!(
            committed == TCP_EVENTS,
            "{path} is not what ebpf/programs compiles to: run `make example` and commit it"
        );
    }
    Ok(())
}
