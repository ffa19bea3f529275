//! The record of the last release that was built, published and checked (tests/release.sh): it is whole, and of
//! today's way to build one. That takes an hour, so every other run of the tests reads what it left.
#![allow(missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use sockeye_crds::{Builtin, names};
use sockeye_tests::repo;

const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
const BINARIES: [&str; 2] = ["sockeye-agent", "sockeye-operator"];
const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const SBOM: &str = "https://cyclonedx.org/bom";
/// Every node pulls the agent's image.
const MAX_IMAGE_BYTES: u64 = 16 << 20;

/// tests/release_record.py writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    version: String,
    commit: String,
    compilers: Vec<String>,
    packaging: BTreeMap<String, String>,
    images: BTreeMap<String, Image>,
    files: BTreeMap<String, File>,
    signed_files: BTreeSet<String>,
}

/// An image or a chart in an OCI layout.
#[derive(Deserialize)]
struct Image {
    digest: String,
    /// The types of the statements about it.
    statements: Vec<String>,
    /// The bytes of its layers and its configuration; absent for an index.
    bytes: Option<u64>,
    #[serde(default)]
    architectures: BTreeMap<String, Image>,
}

#[derive(Deserialize)]
struct File {
    sha256: String,
    bytes: u64,
}

fn record() -> Result<Record> {
    let text = fs::read_to_string(repo().join("tests/release.json"))?;
    serde_json::from_str(&text).context("tests/release.json")
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Image {
    fn check(&self, name: &str, statements: &[&str]) -> Result<()> {
        let digest = self.digest.strip_prefix("sha256:").unwrap_or_default();
        ensure!(is_hex(digest, 64), "{name} has digest {:?}", self.digest);
        ensure!(self.statements == statements, "{name} has {:?}, not {statements:?}", self.statements);
        Ok(())
    }
}

#[test]
fn the_record_is_of_todays_version_and_packaging() -> Result<()> {
    let record = record()?;
    ensure!(record.version == env!("CARGO_PKG_VERSION"), "the record is of version {}", record.version);
    ensure!(is_hex(&record.commit, 40), "{}", record.commit);
    let mut changed = Vec::new();
    for (path, recorded) in &record.packaging {
        let found = names::digest(&fs::read(repo().join(path)).with_context(|| path.clone())?);
        if found != format!("sha256:{recorded}") {
            changed.push(path);
        }
    }
    ensure!(record.packaging.contains_key("deploy/release/release.sh"));
    ensure!(changed.is_empty(), "{changed:?} changed since a release was built: run tests/release.sh and record it");
    Ok(())
}

#[test]
fn images_and_chart_are_signed_and_have_what_was_promised() -> Result<()> {
    let record = record()?;
    for name in BINARIES {
        let index = record.images.get(name).context(name)?;
        index.check(name, &[SIGNATURE, PROVENANCE])?;
        ensure!(index.architectures.keys().eq(&ARCHITECTURES), "{name} is for {:?}", index.architectures.keys());
        for (architecture, image) in &index.architectures {
            let named = format!("{name} for {architecture}");
            image.check(&named, &[SBOM, SIGNATURE])?;
            let bytes = image.bytes.unwrap_or_default();
            let binary = record.files.get(&format!("{name}-{architecture}")).with_context(|| named.clone())?.bytes;
            ensure!(bytes > binary / 10, "the image of {named} has {bytes} bytes, its binary {binary}");
            ensure!(bytes < MAX_IMAGE_BYTES, "the image of {named} has {bytes} bytes");
        }
    }
    record.images.get("charts/sockeye").context("the chart")?.check("the chart", &[SIGNATURE, PROVENANCE])?;
    let digests = record.images.values().flat_map(|image| [image].into_iter().chain(image.architectures.values()));
    let digests: Vec<&str> = digests.map(|image| image.digest.as_str()).collect();
    ensure!(digests.iter().collect::<BTreeSet<_>>().len() == digests.len(), "two are the same: {digests:?}");
    Ok(())
}

#[test]
fn all_files_are_there_and_those_that_stand_alone_are_signed() -> Result<()> {
    let record = record()?;
    let chart = format!("sockeye-{}.tgz", record.version);
    let mut expected = BTreeSet::from([chart, "provenance.json".to_owned(), "sockeye.yaml".to_owned()]);
    for (name, architecture) in BINARIES.iter().flat_map(|name| ARCHITECTURES.map(|one| (name, one))) {
        expected.extend([format!("{name}-{architecture}"), format!("{name}-{architecture}.cdx.json")]);
    }
    for name in ARCHITECTURES.map(|architecture| format!("sockeye-linux-{architecture}")) {
        expected.extend([format!("{name}.tar.gz"), format!("{name}.cdx.json")]);
    }
    let builtins: BTreeSet<String> = Builtin::ALL.iter().map(|name| format!("builtins/{name}.o")).collect();
    let (objects, others): (BTreeSet<_>, BTreeSet<_>) =
        record.files.keys().cloned().partition(|name| name.starts_with("builtins/"));
    ensure!(others == expected, "{others:?}, not {expected:?}");
    // One that came since is not in it; one that is gone was.
    ensure!(!objects.is_disjoint(&builtins), "{objects:?}");
    let signed: BTreeSet<String> = objects.into_iter().chain(["SHA256SUMS".to_owned()]).collect();
    ensure!(record.signed_files == signed, "{:?}, not {signed:?}", record.signed_files);
    for (name, file) in &record.files {
        ensure!(is_hex(&file.sha256, 64) && file.bytes > 0, "{name}: {} of {} bytes", file.sha256, file.bytes);
    }
    Ok(())
}

#[test]
fn the_compilers_are_named_with_their_versions() -> Result<()> {
    let record = record()?;
    for package in ["rustc@", "cargo@", "clang-", "libc6-dev@"] {
        ensure!(record.compilers.iter().any(|named| named.starts_with(package)), "{package} of {:?}", record.compilers);
    }
    for architecture in ARCHITECTURES {
        let libc = |named: &&String| named.starts_with("libc6-dev@") && named.ends_with(architecture);
        ensure!(record.compilers.iter().any(|named| libc(&named)), "no C library for {architecture}");
    }
    Ok(())
}
