//! Writes the compiled objects into `spec.bytecode.inline` of the manifests in deploy/examples, as one line of base64.

use std::{fs, io, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sockeye_ebpf::programs::{TCP_EVENTS, types};

fn main() -> io::Result<()> {
    let examples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples"));
    put(&examples.join("bpfprogram.yaml"), TCP_EVENTS)?;
    types::ALL.iter().try_for_each(|(name, object)| put(&examples.join(format!("types/{name}.yaml")), object))
}

fn put(manifest: &Path, object: &[u8]) -> io::Result<()> {
    let line = |line: &str| match line.split_once("inline: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}inline: {}", BASE64_STANDARD.encode(object)),
        _ => line.to_owned(),
    };
    let lines: Vec<String> = fs::read_to_string(manifest)?.lines().map(line).collect();
    fs::write(manifest, lines.join("\n") + "\n")
}
