use std::time::SystemTime;

use serde_json::{Value, json};

use super::*;
use crate::testing::{Image, OBJECT, REPOSITORY, TestKey, bundle, statement};

fn policy(rules: Value) -> Policy {
    let keys = json!({"release": TestKey::new(1).pem(), "spare": TestKey::new(2).pem()});
    serde_json::from_value(json!({"mode": "Enforce", "keys": keys, "rules": rules})).unwrap()
}

fn by_release(matches: Value) -> Policy {
    policy(json!([{"name": "team", "match": matches,
        "require": {"type": "Signature", "signature": {"keys": ["release"]}}}]))
}

fn decide(policy: &Policy, evidence: &[Evidence]) -> Decision {
    Image::new().with(|subject| policy.decide(subject, evidence, &Trust::none(), SystemTime::UNIX_EPOCH))
}

/// The rule and the message of a refusal.
fn refused(policy: &Policy, evidence: &[Evidence]) -> (String, String) {
    match decide(policy, evidence) {
        Decision { rule, verdict: Verdict::Refused { message } } => (rule, message),
        other => panic!("{other:?}"),
    }
}

fn signed_by(hint: &str) -> Verdict {
    Verdict::Allowed { signed_by: vec![Signer::Key { hint: hint.into() }] }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rule = |name: &str, about: Value, kind: &str| json!({"name": name, "match": about, "require": {"type": kind}});
    let image = Image::new();
    let policy = policy(json!([
        rule("revoked", json!({"digests": [digest("another")]}), "Deny"),
        rule("builtin", json!({"builtins": ["guard"]}), "Allow"),
        rule("inline", json!({"sources": ["Inline", "ConfigMap"]}), "Allow"),
        rule("elsewhere", json!({"repositories": ["registry.example.com/other/*"]}), "Allow"),
        rule("this", json!({"repositories": ["registry.example.com/**"], "digests": [image.index]}), "Allow"),
        rule("never", json!({"sources": ["Image"]}), "Deny"),
    ]));
    assert_eq!(decide(&policy, &[]), Decision { rule: "this".into(), verdict: Verdict::Allowed { signed_by: vec![] } });
    let of = |source, object_digest: &str| {
        let subject = Subject { source, object: OBJECT, object_digest, image_digests: &[] };
        policy.decide(&subject, &[], &Trust::none(), SystemTime::UNIX_EPOCH).rule
    };
    let other = digest("another");
    for (source, digest, rule) in [
        (Source::Image { repository: REPOSITORY }, image.object.as_str(), "never"),
        (Source::Image { repository: "registry.example.com/other/guard" }, &image.object, "elsewhere"),
        (Source::Builtin { name: "guard" }, &image.object, "builtin"),
        (Source::Builtin { name: "guard2" }, &image.object, DEFAULT_RULE),
        (Source::Inline, &image.object, "inline"),
        (Source::ConfigMap, &image.object, "inline"),
        (Source::Inline, &other, "revoked"),
    ] {
        assert_eq!(of(source, digest), rule, "{source:?}");
    }
}

fn digest(text: &str) -> String {
    crate::encoding::digest(text.as_bytes())
}

#[test]
fn each_form_of_signature_by_a_key_of_the_rule_counts() {
    let (image, key) = (Image::new(), TestKey::new(1));
    let policy = by_release(json!({"sources": ["Image"]}));
    let covered = [&image.manifest, &image.index];
    for evidence in
        covered.map(|digest| key.statement(digest)).into_iter().chain(covered.map(|digest| key.simple(digest)))
    {
        assert_eq!(decide(&policy, &[evidence]).verdict, signed_by("release"));
    }
    assert_eq!(decide(&policy, &[key.statement(&image.object)]).verdict, signed_by("release"));
    assert_eq!(decide(&policy, &[key.detached()]).verdict, signed_by("release"));
}

#[test]
fn evidence_that_does_not_count_hides_none_that_does() {
    let (image, key) = (Image::new(), TestKey::new(1));
    let policy = by_release(json!({"repositories": ["registry.example.com/team/*"]}));
    let junk = || Evidence::Bundle(b"{".to_vec());
    let evidence = [junk(), TestKey::new(2).statement(&image.manifest), key.statement(&image.manifest), junk()];
    assert_eq!(decide(&policy, &evidence).verdict, signed_by("release"));
    // Attestations by the same key are told apart without verifying anything; signatures by others are not.
    let sbom = statement("https://cyclonedx.org/bom", &image.manifest).to_string();
    let sbom = bundle(&key.envelope(sbom.as_bytes()));
    let strange = TestKey::new(2).detached();
    for (other, most) in [(sbom, MAX_EVIDENCE), (strange, MAX_VERIFIED)] {
        let with = |others: usize| [vec![other.clone(); others], vec![key.detached()]].concat();
        assert_eq!(decide(&policy, &with(most - 1)).verdict, signed_by("release"));
        refused(&policy, &with(most));
    }
}

#[test]
fn a_refusal_names_the_rule_what_it_asks_for_and_each_piece_found() {
    let (image, key, spare) = (Image::new(), TestKey::new(1), TestKey::new(2));
    let policy = by_release(json!({"repositories": ["registry.example.com/team/*"]}));
    let head = "rule \"team\" of the signature policy requires a signature by key release; ";
    let sbom = bundle(&key.envelope(statement("https://cyclonedx.org/bom", &image.manifest).to_string().as_bytes()));
    let other = digest("another image");
    for (evidence, found) in [
        (vec![], "none was found"),
        (vec![sbom.clone()], "bundle 1: it is an attestation of type \"https://cyclonedx.org/bom\", not a signature"),
        (vec![spare.statement(&image.manifest)], "bundle 1: it is signed by none of the rule's keys"),
        (vec![spare.detached()], "detached signature 1: it is signed by none of the rule's keys"),
        (vec![key.statement(&other)], &format!("bundle 1: it signs {other}, which is not this object")),
        (
            vec![sbom, key.simple(&other)],
            &format!(".sig signature 2: it signs {other} (named {REPOSITORY}), which is not this object"),
        ),
        // The `.sig` form is of images alone, so an object's own digest in it is another image's.
        (vec![key.simple(&image.object)], "which is not this object"),
        (vec![Evidence::Bundle(vec![b'['; 300_000])], "it has 300000 bytes: more than 262144 are not read"),
    ] {
        let (rule, message) = refused(&policy, &evidence);
        assert_eq!(rule, "team");
        assert!(message.starts_with(head) && message.contains(found), "{message:?} lacks {found:?}");
    }
}

#[test]
fn a_refusal_is_short_and_printable_whatever_strangers_wrote() {
    let (image, key) = (Image::new(), TestKey::new(1));
    let policy = by_release(json!({"sources": ["Image"]}));
    let loud = statement(&"\n\u{202e}".repeat(5000), &image.manifest).to_string();
    let evidence = vec![bundle(&key.envelope(loud.as_bytes())); 264];
    let (_, message) = refused(&policy, &evidence);
    assert!(message.chars().count() <= MAX_MESSAGE + 1 && message.chars().all(|char| !char.is_control()), "{message}");
    assert!(message.ends_with("; and 260 more, of which 8 were not looked at"), "{message}");
}

#[test]
fn a_refusal_tells_of_signatures_before_attestations() {
    let (image, key) = (Image::new(), TestKey::new(1));
    let sbom = statement("https://cyclonedx.org/bom", &image.manifest).to_string();
    let mut evidence = vec![bundle(&key.envelope(sbom.as_bytes())); 9];
    evidence.push(TestKey::new(2).detached());
    let (_, message) = refused(&by_release(json!({"sources": ["Image"]})), &evidence);
    let found = "key release; detached signature 10: it is signed by none of the rule's keys; bundle 1: it is an";
    assert!(message.contains(found), "{message}");
}

#[test]
fn denials_and_the_default_refuse_whoever_signed() {
    let image = Image::new();
    let evidence = [TestKey::new(1).statement(&image.manifest)];
    let deny = policy(json!([{"name": "revoked", "match": {"digests": [image.object]}, "require": {"type": "Deny"}}]));
    let (rule, message) = refused(&deny, &evidence);
    assert_eq!(
        (rule.as_str(), message.as_str()),
        ("revoked", "rule \"revoked\" of the signature policy denies this object")
    );
    let (rule, message) = refused(&policy(json!([])), &evidence);
    assert_eq!(rule, DEFAULT_RULE);
    assert!(message.starts_with("no rule of the signature policy allows this object"), "{message}");
}

#[test]
fn a_key_of_the_policy_that_the_rule_does_not_name_does_not_count() {
    let image = Image::new();
    let policy = policy(json!([{"name": "any", "match": {"sources": ["Image"]},
        "require": {"type": "Signature", "signature": {"keys": ["spare", "release"]}}}]));
    assert_eq!(decide(&policy, &[TestKey::new(1).statement(&image.index)]).verdict, signed_by("release"));
    let (_, message) = refused(&policy, &[TestKey::new(3).statement(&image.index)]);
    assert!(message.contains("a signature by one of the keys spare, release; "), "{message}");
}

#[test]
fn a_hint_changes_nothing_but_the_order() {
    let image = Image::new();
    let policy = by_release(json!({"sources": ["Image"]}));
    let (release, spare) = (TestKey::new(1), TestKey::new(2));
    for hint in ["release", "spare", "nobody", ""] {
        let signed = |key: &TestKey| Evidence::Detached { signature: key.sign(OBJECT), key_hint: Some(hint.into()) };
        assert_eq!(decide(&policy, &[signed(&release)]).verdict, signed_by("release"), "{hint}");
        refused(&policy, &[signed(&spare)]);
    }
    refused(&policy, &[Evidence::Detached { signature: vec![], key_hint: Some("release".into()) }]);
    drop(image);
}

#[test]
fn identities_are_told_apart_from_keys() {
    let image = Image::new();
    let policy = policy(json!([{"name": "people", "match": {"sources": ["Image"]}, "require": {"type": "Signature",
        "signature": {"identities": [{"subject": "a@example.com", "issuer": "https://accounts.example.com"}]}}}]));
    let (_, message) = refused(&policy, &[TestKey::new(1).statement(&image.index)]);
    assert!(message.contains("it is signed by a key, and the rule names no key"), "{message}");
}
