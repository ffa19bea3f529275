//! Signatures by cosign itself, and the same with one thing altered, against cosign's own verdict.
//!
//! `tests/signatures/make.sh` makes the material.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::json;
use sockeye_signature::{Evidence, Policy, Signer, Source, Subject, Trust, Verdict};

/// The evidence on which this crate and cosign differ on purpose, with a part of the refusal, or nothing where this
/// crate accepts.
const DIFFERENCES: [(&str, &str); 8] = [
    // The gap that a policy here must not have: what is in an image is not who vouches for it.
    ("p256-sbom", "it is an attestation of type \"https://cyclonedx.org/bom\", not a signature"),
    // One text has one meaning.
    ("altered-payload-not-canonical", "`dsseEnvelope.payload` is not base64"),
    ("altered-statement-of-unknown-type", "is no in-toto statement"),
    ("altered-statement-with-a-digest-in-capitals", "which is not this object"),
    // cosign can't verify what it signs with Ed25519.
    ("ed25519-bundle", ""),
    ("ed25519-blob", ""),
    // The signature is over the object's bytes, whether or not the bundle repeats their digest.
    ("altered-blob-digest-missing", ""),
    ("altered-blob-digest-of-sha1", "its message's digest is \"SHA1\""),
];

struct Material {
    folder: PathBuf,
    object: Vec<u8>,
    manifest: String,
    index: String,
}

/// The folder of the material: the committed one, or one that was made anew.
fn material() -> PathBuf {
    let committed = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/signatures/material");
    std::env::var_os("SOCKEYE_SIGNATURES").map_or_else(committed, PathBuf::from)
}

impl Material {
    fn read() -> Self {
        let folder = material().join("keys");
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let (manifest, index) = (text("manifest.digest"), text("index.digest"));
        Self { object: std::fs::read(folder.join("object")).unwrap(), manifest, index, folder }
    }

    fn evidence(&self, name: &str) -> Evidence {
        serde_json::from_slice(&std::fs::read(self.folder.join(format!("{name}.json"))).unwrap()).unwrap()
    }

    /// The names of all evidence.
    fn names(&self) -> BTreeSet<String> {
        let files = std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().file_name());
        files.filter_map(|name| name.to_str()?.strip_suffix(".json").map(str::to_owned)).collect()
    }

    /// The key and the verdict of cosign by the name of the evidence.
    fn verdicts(&self) -> BTreeMap<String, (String, bool)> {
        let text = std::fs::read_to_string(self.folder.join("verdicts.tsv")).unwrap();
        let line = |line: &str| {
            let fields: Vec<_> = line.split('\t').collect();
            (fields[0].to_owned(), (fields[1].to_owned(), fields[2] == "accepted"))
        };
        text.lines().map(line).collect()
    }

    /// Asks for a signature by one key over this object, in an image with these digests.
    fn ask(&self, key: &str, object: &[u8], digests: &[&str], evidence: Evidence) -> Result<(), String> {
        let pem = std::fs::read_to_string(self.folder.join(format!("{key}.pub"))).unwrap();
        let policy: Policy = serde_json::from_value(json!({
            "mode": "Enforce",
            "keys": {"key": pem},
            "default": {"type": "Signature", "signature": {"keys": ["key"]}},
        }))
        .unwrap();
        let subject = Subject {
            source: Source::Image { repository: "registry.example.com/guard" },
            object,
            // That of a file is not asked for here but by the object itself.
            object_digest: "sha256:",
            image_digests: digests,
        };
        match policy.decide(&subject, &[evidence], &Trust::none(), SystemTime::now()).verdict {
            Verdict::Allowed { signed_by } => {
                assert_eq!(signed_by, [Signer::Key { hint: "key".into() }]);
                Ok(())
            }
            Verdict::Refused { message } => Err(message),
        }
    }

    fn ask_as_it_is(&self, key: &str, evidence: Evidence) -> Result<(), String> {
        self.ask(key, &self.object, &[&self.manifest, &self.index], evidence)
    }
}

/// The key that made a piece of evidence, by its name.
fn signer_of(name: &str) -> &str {
    let first = name.split('-').next().unwrap();
    if first == "altered" { "p256" } else { first }
}

#[test]
fn cosign_and_this_crate_agree_but_for_what_is_listed() {
    let material = Material::read();
    let differences = BTreeMap::from(DIFFERENCES);
    let mut wrong = Vec::new();
    for (name, (key, cosign_accepts)) in material.verdicts() {
        let answer = material.ask_as_it_is(&key, material.evidence(&name));
        let as_expected = match (differences.get(name.as_str()), &answer) {
            (Some(&""), answer) => answer.is_ok(),
            (Some(part), Err(message)) => message.contains(part),
            (Some(_), Ok(())) => false,
            (None, answer) => answer.is_ok() == cosign_accepts,
        };
        if !as_expected {
            wrong.push(format!("{name}: cosign accepts: {cosign_accepts}; here: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_piece_of_evidence_is_compared_with_cosign_or_a_bare_signature() {
    let material = Material::read();
    let compared = material.verdicts();
    let names = material.names();
    assert!(names.len() > 50, "{}", names.len());
    for name in names {
        assert!(compared.contains_key(&name) || name.ends_with("-detached"), "{name}");
    }
}

#[test]
fn openssl_signs_bare_signatures_that_count() {
    let material = Material::read();
    let names: Vec<_> = material.names().into_iter().filter(|name| name.ends_with("-detached")).collect();
    // By each algorithm, and by each curve over SHA-256 too.
    assert_eq!(names.len(), 4 + 3);
    for name in names {
        let key = signer_of(&name);
        material.ask_as_it_is(key, material.evidence(&name)).unwrap();
        let error = material.ask(key, b"another object", &[], material.evidence(&name)).unwrap_err();
        assert!(error.contains("it is signed by none of the rule's keys"), "{error}");
    }
}

#[test]
fn an_ed25519_sig_tag_is_refused_by_name_with_what_to_do() {
    let material = Material::read();
    let error = material.ask_as_it_is("ed25519", material.evidence("ed25519-sig")).unwrap_err();
    assert!(error.contains("Ed25519ph") && error.contains("sign again without `--new-bundle-format=false`"), "{error}");
}

#[test]
fn what_counts_does_not_count_for_another_object_or_another_key() {
    let material = Material::read();
    let mut accepted = 0;
    let other = format!("sha256:{}", "1".repeat(64));
    let (digests, elsewhere): (&[&str], &[&str]) = (&[&material.manifest, &material.index], &[&other]);
    for name in material.names() {
        let ask = |key, object: &[u8], digests| material.ask(key, object, digests, material.evidence(&name));
        let signer = signer_of(&name);
        if ask(signer, &material.object, digests).is_err() {
            continue;
        }
        accepted += 1;
        ask(signer, b"another object", elsewhere).unwrap_err();
        let other_key = if signer == "other" { "p256" } else { "other" };
        ask(other_key, &material.object, digests).unwrap_err();
        // Each form is of the image or of the object, and not of both.
        let of_image = ask(signer, b"another object", digests).is_ok();
        let of_object = ask(signer, &material.object, elsewhere).is_ok();
        assert!(of_image != of_object, "{name}");
    }
    assert!(accepted >= 25, "{accepted}");
}

#[test]
fn no_beginning_of_a_bundle_counts() {
    let material = Material::read();
    for name in ["p256-bundle", "p256-blob", "ed25519-bundle"] {
        let Evidence::Bundle(text) = material.evidence(name) else { panic!("{name}") };
        for end in 0..text.len() {
            let cut = Evidence::Bundle(text[..end].to_vec());
            material.ask_as_it_is(signer_of(name), cut).unwrap_err();
        }
        let longer = Evidence::Bundle([&text[..], b"\n"].concat());
        material.ask_as_it_is(signer_of(name), longer).unwrap();
    }
}
