//! Signatures by identity, made by cosign with the real services on loopback, and the same with one thing altered.
//!
//! `tests/signatures/keyless.sh` makes the material.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use sockeye_signature::{Evidence, Policy, Signer, Source, Subject, Trust, TrustError, Verdict};

const ISSUER: &str = "http://localhost:7000";

/// The evidence on which this crate and cosign differ on purpose, with a part of the refusal.
const DIFFERENCES: [(&str, &str); 2] = [
    // Every time that a bundle has must be right. cosign is content with one.
    ("altered-timestamps-one-late", "certificate"),
    // cosign does not compare the time with that of the log's key.
    ("log-of-the-past", "its transparency log is not one that the trust root trusts at the time of the signature"),
];

struct Material {
    folder: PathBuf,
    object: Vec<u8>,
    manifest: String,
}

/// The folder of the material: the committed one, or one that was made anew.
fn material() -> PathBuf {
    let committed = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/signatures/material");
    std::env::var_os("SOCKEYE_SIGNATURES").map_or_else(committed, PathBuf::from)
}

impl Material {
    fn read() -> Self {
        let folder = material().join("keyless");
        let manifest = std::fs::read_to_string(folder.join("manifest.digest")).unwrap();
        Self { object: std::fs::read(folder.join("object")).unwrap(), manifest, folder }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap()
    }

    fn evidence(&self, name: &str) -> Evidence {
        serde_json::from_str(&self.text(&format!("{name}.json"))).unwrap()
    }

    fn bundle(&self, name: &str) -> Value {
        let Evidence::Bundle(text) = self.evidence(name) else { panic!("{name} is no bundle") };
        serde_json::from_slice(&text).unwrap()
    }

    fn root(&self) -> Value {
        serde_json::from_str(&self.text("trusted_root.json")).unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::from_trusted_root(&self.text("trusted_root.json")).unwrap()
    }

    /// Asks for a signature by identities, at the time when the material was made: this machine's clock may be wrong.
    fn ask(&self, identities: Value, trust: &Trust, evidence: &Evidence) -> Result<Vec<Signer>, String> {
        let time = self.text("time").trim().parse().unwrap();
        self.ask_at(SystemTime::UNIX_EPOCH + Duration::from_secs(time), identities, trust, evidence)
    }

    fn ask_at(
        &self,
        now: SystemTime,
        identities: Value,
        trust: &Trust,
        evidence: &Evidence,
    ) -> Result<Vec<Signer>, String> {
        let policy: Policy = serde_json::from_value(json!({
            "mode": "Enforce",
            "default": {"type": "Signature", "signature": {"identities": identities}},
        }))
        .unwrap();
        let subject = Subject {
            source: Source::Image { repository: "registry.example.com/guard" },
            object: &self.object,
            object_digest: "sha256:",
            image_digests: &[&self.manifest],
        };
        match policy.decide(&subject, std::slice::from_ref(evidence), trust, now).verdict {
            Verdict::Allowed { signed_by } => Ok(signed_by),
            Verdict::Refused { message } => Err(message),
        }
    }
}

fn by(person: &str) -> Value {
    json!([{"subject": format!("{person}@example.com"), "issuer": ISSUER}])
}

fn bundle(json: &Value) -> Evidence {
    Evidence::Bundle(json.to_string().into_bytes())
}

#[test]
fn an_image_and_a_file_signed_by_an_identity_count() {
    let material = Material::read();
    let trust = material.trust();
    for name in ["image-by-release", "blob-by-release", "image-by-other", "blob-by-other"] {
        let person = name.rsplit('-').next().unwrap();
        let signer = Signer::Identity { subject: format!("{person}@example.com"), issuer: ISSUER.into() };
        assert_eq!(material.ask(by(person), &trust, &material.evidence(name)), Ok(vec![signer]), "{name}");
    }
}

#[test]
fn cosign_and_this_crate_agree_but_for_what_is_listed() {
    let material = Material::read();
    let differences = BTreeMap::from(DIFFERENCES);
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for line in material.text("verdicts.tsv").lines() {
        let [name, root, said, ..] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let file = if root == "trusted_root" { "trusted_root.json".into() } else { format!("roots/{root}.json") };
        seen.insert(name.to_owned());
        let answer = match Trust::from_trusted_root(&material.text(&file)) {
            Ok(trust) => material.ask(by("release"), &trust, &material.evidence(name)),
            Err(error) => Err(error.to_string()),
        };
        let case = if root == "trusted_root" { name } else { root };
        let as_expected = match (differences.get(case), &answer) {
            (Some(part), Err(message)) => message.contains(part),
            (Some(_), Ok(_)) => false,
            (None, answer) => answer.is_ok() == (said == "accepted"),
        };
        println!("{case}: cosign {said}; here {answer:?}");
        if !as_expected {
            wrong.push(format!("{case}: cosign {said}; here: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.len() > 25, "{seen:?}");
}

#[test]
fn each_altered_bundle_is_refused_for_its_own_reason() {
    let material = Material::read();
    let trust = material.trust();
    for (name, expected) in [
        ("entries-none", "it has no proof that a transparency log includes it"),
        ("proof-missing", "it has no proof that a transparency log includes it"),
        ("entry-twice-one-without-proof", "it has no proof that a transparency log includes it"),
        ("timestamps-none", "timestamp"),
        ("timestamp-strange", "timestamp"),
        ("timestamp-late", "certificate"),
        ("timestamps-one-late", "certificate"),
        ("checkpoint-flipped", "checkpoint"),
        ("checkpoint-unsigned", "checkpoint"),
        ("proof-with-another-hash", "inclusion proof"),
    ] {
        let evidence = material.evidence(&format!("altered-{name}"));
        let error = material.ask(by("release"), &trust, &evidence).unwrap_err();
        assert!(error.to_lowercase().contains(expected), "{name}: {error:?} lacks {expected:?}");
    }
}

#[test]
fn subject_and_issuer_must_both_be_named() {
    let material = Material::read();
    let (trust, evidence) = (material.trust(), material.evidence("image-by-release"));
    for identities in [
        json!([{"subjectPattern": ".*@example\\.com", "issuer": ISSUER}]),
        json!([{"subject": "release@example.com", "issuerPattern": "http://localhost:[0-9]+"}]),
        json!([{"subject": "nobody", "issuer": ISSUER}, {"subject": "release@example.com", "issuer": ISSUER}]),
    ] {
        material.ask(identities.clone(), &trust, &evidence).unwrap_or_else(|error| panic!("{identities}: {error}"));
    }
    for identities in [
        json!([{"subject": "other@example.com", "issuer": ISSUER}]),
        json!([{"subject": "release@example.com", "issuer": "https://accounts.example.com"}]),
        json!([{"subjectPattern": "example", "issuer": ISSUER}]),
        json!([{"subject": "release@example.com", "issuerPattern": "http://local"}]),
        json!([{"subject": "release@example.com", "issuer": "x"}, {"subject": "x", "issuer": ISSUER}]),
    ] {
        let error = material.ask(identities.clone(), &trust, &evidence).unwrap_err();
        let expected =
            "it is signed by release@example.com (issuer http://localhost:7000), which the rule does not name";
        assert!(error.contains(expected), "{identities}: {error}");
    }
}

#[test]
fn without_a_trust_root_no_identity_counts() {
    let material = Material::read();
    let error = material.ask(by("release"), &Trust::none(), &material.evidence("image-by-release")).unwrap_err();
    assert!(error.contains("there is no trust root to check that against"), "{error}");
}

#[test]
fn a_signature_of_tomorrow_does_not_count() {
    let material = Material::read();
    let earlier = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    let evidence = material.evidence("image-by-release");
    let error = material.ask_at(earlier, by("release"), &material.trust(), &evidence).unwrap_err();
    assert!(error.contains("which lies ahead of this machine's clock"), "{error}");
}

#[test]
fn a_signature_of_another_image_or_file_does_not_count() {
    let mut material = Material::read();
    let trust = material.trust();
    material.object.push(0);
    material.ask(by("release"), &trust, &material.evidence("image-by-release")).unwrap();
    material.ask(by("release"), &trust, &material.evidence("blob-by-release")).unwrap_err();
    material.object.pop();
    material.manifest = format!("sha256:{}", "1".repeat(64));
    material.ask(by("release"), &trust, &material.evidence("blob-by-release")).unwrap();
    material.ask(by("release"), &trust, &material.evidence("image-by-release")).unwrap_err();
}

#[test]
fn a_trust_root_without_a_part_is_refused_by_the_name_of_the_part() {
    let root = Material::read().root();
    for part in ["certificateAuthorities", "tlogs", "ctlogs"] {
        let mut less = root.clone();
        less[part] = json!([]);
        let error = Trust::from_trusted_root(&less.to_string()).unwrap_err();
        assert_eq!(error, TrustError::Lacks(part));
    }
    for text in ["", "{}", "[]", "not JSON"] {
        assert!(
            matches!(Trust::from_trusted_root(text), Err(TrustError::Syntax(_) | TrustError::Lacks(_))),
            "{text:?}"
        );
    }
    let mut twice = root.clone();
    let log = twice["tlogs"][0].clone();
    twice["tlogs"] = json!([log, log]);
    assert!(matches!(Trust::from_trusted_root(&twice.to_string()), Err(TrustError::Material(_))));
}

/// Changes each value of a bundle, one at a time. Nothing panics, and what still verifies is known.
#[test]
fn no_value_of_a_bundle_can_be_changed_but_what_is_a_copy() {
    let material = Material::read();
    let trust = material.trust();
    for name in ["image-by-release", "blob-by-release"] {
        let original = material.bundle(name);
        let mut accepted = Vec::new();
        for pointer in pointers(&original, String::new()) {
            for value in others(original.pointer(&pointer).unwrap()) {
                let mut changed = original.clone();
                *changed.pointer_mut(&pointer).unwrap() = value.clone();
                if material.ask(by("release"), &trust, &bundle(&changed)).is_ok() {
                    accepted.push((pointer.clone(), value));
                }
            }
        }
        // What Rekor v2 has twice is not looked at, and neither is an empty line behind a checkpoint's signatures.
        let copies =
            ["inclusionProof/logIndex", "inclusionProof/rootHash", "inclusionProof/treeSize", "integratedTime"];
        accepted.retain(|(pointer, value)| {
            let is_line = pointer.ends_with("checkpoint/envelope") && value.as_str().unwrap().ends_with("\n\n");
            !is_line && !copies.iter().any(|copy| pointer.ends_with(copy))
        });
        assert_eq!(accepted, Vec::new(), "{name}");
    }
}

proptest! {
    /// Bytes are changed within what a bundle or a trust root has as base64: certificates, keys, timestamps, log
    /// entries. Nothing panics, and no signature becomes another signer's.
    #[test]
    fn no_bytes_within_a_bundle_or_a_trust_root_panic(
        field in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<u8>()), 1..4),
    ) {
        let material = Material::read();
        let trust = material.trust();
        for file in ["image-by-release", "trusted_root"] {
            let is_root = file == "trusted_root";
            let mut json = if is_root { material.root() } else { material.bundle(file) };
            let mut fields = pointers(&json, String::new());
            fields.retain(|at| bytes_at(&json, at).is_some());
            let at = field.get(&fields);
            let mut bytes = bytes_at(&json, at).unwrap();
            for (at, kind, byte) in &edits {
                let at = at.index(bytes.len().max(1)).min(bytes.len());
                match kind {
                    0 if at < bytes.len() => bytes[at] = *byte,
                    1 => bytes.insert(at, *byte),
                    2 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.truncate(at),
                }
            }
            *json.pointer_mut(at).unwrap() = json!(STANDARD.encode(&bytes));
            let answer = if is_root {
                match Trust::from_trusted_root(&json.to_string()) {
                    Ok(trust) => material.ask(by("release"), &trust, &material.evidence("image-by-release")),
                    Err(error) => Err(error.to_string()),
                }
            } else {
                material.ask(by("release"), &trust, &bundle(&json))
            };
            if let Ok(signers) = answer {
                let signer = Signer::Identity { subject: "release@example.com".into(), issuer: ISSUER.into() };
                prop_assert_eq!(signers, vec![signer], "{} {}", file, at);
            }
        }
    }
}

/// Returns the bytes of a text in base64, if it is one of some length.
fn bytes_at(json: &Value, pointer: &str) -> Option<Vec<u8>> {
    let text = json.pointer(pointer)?.as_str()?;
    STANDARD.decode(text).ok().filter(|bytes| bytes.len() > 8)
}

/// Returns the JSON pointers of all texts and numbers.
fn pointers(json: &Value, at: String) -> Vec<String> {
    match json {
        Value::Object(members) => {
            members.iter().flat_map(|(name, value)| pointers(value, format!("{at}/{name}"))).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, value)| pointers(value, format!("{at}/{index}"))).collect()
        }
        _ => vec![at],
    }
}

/// Returns other values of the same type: a bit changed, cut, empty.
fn others(value: &Value) -> Vec<Value> {
    let Value::String(text) = value else { return vec![json!("1"), json!(null), json!(-1)] };
    let chars: Vec<char> = text.chars().collect();
    let half: String = chars[..chars.len() / 2].iter().collect();
    let mut others = vec![json!(""), json!("AAAA"), json!(format!("{text}\n")), json!(half)];
    for at in [0, chars.len() / 3, chars.len() / 2, chars.len().saturating_sub(4)] {
        let other = |(index, char): (usize, &char)| match (index == at, *char) {
            (true, 'A') => 'B',
            (true, _) => 'A',
            (false, char) => char,
        };
        others.push(json!(chars.iter().enumerate().map(other).collect::<String>()));
    }
    others.retain(|other| other != value);
    others
}
