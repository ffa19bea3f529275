//! Judgements of the operator on bytes and their signatures.

use std::{fs, sync::Arc};

use serde_json::{Value, json};
use sockeye_crds::{
    BpfProgramSpec, Reason, Refusal, names,
    provenance::{RevisionImage, SignedBy, SourceType},
};
use sockeye_crds_testing::provoked;
use sockeye_ebpf::values::list::Lists;
use sockeye_operator::{
    images::pulled::{PulledImage, PulledObject},
    reconcile::{
        check::{Checked, ReadBytes, check},
        image_content::{ImageContent, StoredBytes},
    },
    signing::{PolicyFiles, Signing},
};
use sockeye_provenance::{
    Archive,
    fixtures::{Image, Key, image, index, packed_image, policy},
};
use sockeye_signature::Evidence;

use crate::{object, other_object};

const REPOSITORY: &str = "registry.example/team/guard";

fn signing(mode: &str, nodes_verify: bool) -> Signing {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    fs::write(&path, policy(mode, REPOSITORY, &Key::new(1))).unwrap();
    Signing::read(&PolicyFiles { policy: Some(path), trust_root: None, nodes_verify }).unwrap()
}

fn spec(bytecode: Value) -> BpfProgramSpec {
    let programs = json!([{"name": "measure", "attach": [{"type": "Node"}]}]);
    serde_json::from_value(json!({"bytecode": bytecode, "programs": programs})).unwrap()
}

fn of_image() -> BpfProgramSpec {
    spec(json!({"image": {"reference": format!("{REPOSITORY}:v1")}}))
}

fn revision_image(image: &Image) -> RevisionImage {
    RevisionImage { reference: format!("{REPOSITORY}:v1"), digest: image.digest.clone() }
}

/// Returns an image as it is pulled, with a signature by a key.
fn pulled(image: &Image, objects: &[(&str, &[u8])], key: &Key) -> ReadBytes {
    let Evidence::Bundle(bundle) = key.sign_image(&image.digest) else { panic!("no bundle") };
    let signature = sockeye_image::SignatureManifest {
        subject: image.digest.parse().unwrap(),
        kind: sockeye_image::SignatureKind::Bundle(bundle),
    };
    let objects = objects.iter().map(|(architecture, bytes)| PulledObject {
        architecture: (*architecture).to_owned(),
        digest: names::digest(bytes),
        bytes: (*bytes).into(),
        manifest: image.archive.manifest.clone().into(),
        layer: image.archive.layer.clone().map(Arc::from),
    });
    let pulled = PulledImage {
        repository: REPOSITORY.to_owned(),
        digest: image.digest.clone(),
        index: image.archive.index.clone().map(Arc::from),
        objects: objects.collect(),
        signatures: vec![signature],
    };
    ReadBytes::Image(ImageContent::Pulled(revision_image(image), Arc::new(pulled)))
}

fn judge(spec: &BpfProgramSpec, read: ReadBytes, signing: &Signing) -> Result<Checked, Refusal> {
    check(spec, read, &Lists::new(), signing)
}

#[test]
fn a_signed_image_is_accepted_with_a_proof_from_which_it_is_accepted_again() {
    let image = packed_image(object());
    let signing = signing("Enforce", true);
    let checked = judge(&of_image(), pulled(&image, &[("", object())], &Key::new(1)), &signing).unwrap();
    let origin = &checked.accepted.origin;
    assert_eq!(origin.image, Some(revision_image(&image)));
    assert_eq!(origin.signed_by, [SignedBy::key("release")]);
    let proof = origin.proof.clone().unwrap();
    assert_eq!((proof.source, proof.digests.len()), (SourceType::Image, checked.further.len()));
    assert!(checked.further.iter().all(|(digest, part)| *digest == names::digest(part)));
    // A restarted operator has what it stored, and no registry.
    let part = |digest: &String| checked.further.iter().find(|(other, _)| other == digest).unwrap().1.clone();
    let stored = StoredBytes {
        architecture: String::new(),
        object: checked.bytes.clone(),
        proof: proof.digests.iter().map(part).collect(),
    };
    let stored = ReadBytes::Image(ImageContent::Stored(revision_image(&image), vec![stored]));
    let again = judge(&of_image(), stored, &signing).unwrap();
    assert_eq!(again.accepted, checked.accepted, "so it is no new revision");
}

fn refused(spec: &BpfProgramSpec, read: ReadBytes, signing: &Signing) -> Refusal {
    let refusal = judge(spec, read, signing).unwrap_err();
    provoked(refusal.reason, &refusal.message);
    refusal
}

#[test]
fn an_image_that_nobody_signed_is_refused_and_nothing_is_stored_or_it_runs_with_a_warning() {
    let image = image(object());
    let read = || pulled(&image, &[("", object())], &Key::new(2));
    let refusal = refused(&of_image(), read(), &signing("Enforce", false));
    assert_eq!(refusal.reason, Reason::SignatureRequired);
    assert!(refusal.message.starts_with("spec.bytecode: rule \"images\""), "{}", refusal.message);
    let warned = judge(&of_image(), read(), &signing("Warn", false)).unwrap().accepted.origin;
    assert!(warned.warning.unwrap().starts_with("rule \"images\"") && warned.signed_by.is_empty());
    let unasked = judge(&of_image(), read(), &Signing::default()).unwrap();
    assert_eq!((unasked.accepted.origin.proof, unasked.further.len()), (None, 0));
}

#[test]
fn a_source_that_no_rule_allows_is_denied() {
    let config_map = json!({"configMapRef": {"name": "n", "key": "k", "digest": names::digest(object())}});
    let read = ReadBytes::Fetched(object().to_vec());
    let refusal = refused(&spec(config_map), read, &signing("Enforce", false));
    assert_eq!(refusal.reason, Reason::SourceDenied, "{}", refusal.message);
}

#[test]
fn signatures_in_the_spec_count_whatever_the_source() {
    let signing = signing("Enforce", true);
    let Evidence::Detached { signature, .. } = Key::new(1).sign_object(object()) else { panic!("no signature") };
    let base64 = |bytes: &[u8]| sockeye_ebpf::check::encode_inline(bytes);
    let inline = |signatures: Value| spec(json!({"inline": base64(object()), "signatures": signatures}));
    let signed = json!([{"type": "Detached", "detached": {"signature": base64(&signature), "keyHint": "release"}}]);
    let checked = judge(&inline(signed), ReadBytes::InSpec, &signing).unwrap();
    assert_eq!(checked.accepted.origin.signed_by, [SignedBy::key("release")]);
    assert_eq!(checked.accepted.origin.proof.unwrap().source, SourceType::Inline);
    let refusal = refused(&inline(json!([])), ReadBytes::InSpec, &signing);
    assert_eq!(refusal.reason, Reason::SignatureRequired);
    let damaged = json!([{"type": "Detached", "detached": {"signature": "%"}}]);
    let refusal = refused(&inline(damaged), ReadBytes::InSpec, &signing);
    assert!(refusal.message.contains("spec.bytecode.signatures[0].detached.signature"), "{}", refusal.message);
}

#[test]
fn a_builtin_that_a_rule_allows_is_accepted_with_a_proof_of_its_name() {
    let checked = judge(&spec(json!({"builtin": "tcp-rtt"})), ReadBytes::InSpec, &signing("Enforce", true)).unwrap();
    let proof = checked.accepted.origin.proof.unwrap();
    assert_eq!((proof.source, proof.builtin), (SourceType::Builtin, Some(sockeye_crds::Builtin::TcpRtt)));
}

#[test]
fn a_layer_that_nodes_could_not_verify_is_refused_only_if_they_do() {
    let mut image = packed_image(object());
    image.archive.layer = None;
    let read = || pulled(&image, &[("", object())], &Key::new(1));
    assert!(judge(&of_image(), read(), &signing("Enforce", false)).is_ok());
    let refusal = refused(&of_image(), read(), &signing("Enforce", true));
    assert_eq!(refusal.reason, Reason::InvalidImage);
    assert!(refusal.message.contains("policy.nodes.verify"), "{}", refusal.message);
}

#[test]
fn objects_that_differ_by_architecture_are_variants_with_a_proof_each() {
    let (one, other) = (image(object()), image(object()));
    let image = index(&[("amd64", &one), ("arm64", &other)], 0);
    // Another section's name makes no other program of it, but other bytes.
    let mut second = object().to_vec();
    second.extend_from_slice(b"trailing");
    let read = pulled(&image, &[("amd64", object()), ("arm64", &second)], &Key::new(1));
    let checked = judge(&of_image(), read, &signing("Enforce", false)).unwrap();
    let variants = &checked.accepted.origin.variants;
    let named: Vec<_> = variants.iter().map(|variant| (&*variant.architecture, variant.digest.clone())).collect();
    assert_eq!(named, [("amd64", names::digest(object())), ("arm64", names::digest(&second))]);
    assert_eq!(checked.accepted.digest, names::digest(object()));
    let to_store: Vec<&String> = checked.further.iter().map(|(digest, _)| digest).collect();
    for digest in checked.accepted.digests().filter(|digest| *digest != checked.accepted.digest) {
        assert!(to_store.contains(&&digest.to_owned()), "{digest} is not stored");
    }
    let spec = checked.accepted.into_revision_spec(Default::default(), 1, 1);
    assert!(spec.template.requires.contains(&"Variants".to_owned()));
}

#[test]
fn an_object_for_one_architecture_is_a_variant_that_no_other_node_runs() {
    let one = image(object());
    let image = index(&[("amd64", &one)], 0);
    let read = pulled(&image, &[("amd64", object())], &Key::new(1));
    let checked = judge(&of_image(), read, &signing("Enforce", false)).unwrap();
    let named: Vec<_> = checked.accepted.origin.variants.iter().map(|variant| &*variant.architecture).collect();
    assert_eq!(named, ["amd64"]);
}

#[test]
fn objects_with_different_programs_are_refused_by_architecture() {
    let one = image(object());
    let read = pulled(&one, &[("amd64", object()), ("arm64", other_object())], &Key::new(1));
    let refusal = refused(&of_image(), read, &signing("Enforce", false));
    assert_eq!(refusal.reason, Reason::ProgramNotFound);
    assert!(refusal.message.starts_with("on arm64: "), "{}", refusal.message);
}

#[test]
fn a_damaged_proof_is_an_error() {
    let one = image(object());
    let stored = StoredBytes { architecture: String::new(), object: object().to_vec(), proof: vec![b"x".to_vec()] };
    let read = ReadBytes::Image(ImageContent::Stored(revision_image(&one), vec![stored]));
    let refusal = refused(&of_image(), read, &signing("Enforce", false));
    assert_eq!(refusal.reason, Reason::InvalidImage);
    assert_eq!(Archive::default().encode(), Ok(vec![]));
}
