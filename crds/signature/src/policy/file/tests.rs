use super::*;

const P256: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJCT2ikY8O8h4u4ziAQXdTKO7/m+4\n\
    KscgljtlGAmB0Uxh4T4OsYb6XHa4HVUqcU3nwDU101mKIrFNRwaf6D3A1A==\n\
    -----END PUBLIC KEY-----";

fn read(mut policy: serde_json::Value) -> Result<Policy, String> {
    policy.as_object_mut().unwrap().entry("mode").or_insert("Warn".into());
    serde_json::from_value(policy).map_err(|error| error.to_string())
}

fn with_rule(rule: serde_json::Value) -> Result<Policy, String> {
    read(serde_json::json!({"keys": {"release": P256}, "rules": [rule]}))
}

#[test]
fn a_policy_without_rules_refuses_everything_and_says_what_that_means() {
    for absent in [serde_json::json!({}), serde_json::json!({"mode": null})] {
        assert!(serde_json::from_value::<Policy>(absent).is_err());
    }
    let policy = read(serde_json::json!({})).unwrap();
    assert_eq!(policy.mode, Mode::Warn);
    assert!(matches!(policy.default, Require::Deny) && policy.rules.is_empty());
}

#[test]
fn a_whole_policy_is_read() {
    let policy = read(serde_json::json!({
        "mode": "Enforce",
        "keys": {"release": P256.trim().replace('\n', "\r\n  ")},
        "rules": [
            {"name": "ours", "match": {"builtins": ["*"]}, "require": {"type": "Allow"}},
            {"name": "team", "match": {"repositories": ["registry.example.com/team/**"], "sources": ["Image"]},
             "require": {"type": "Signature", "signature": {"keys": ["release"], "identities": [
                {"subject": "ci@example.com", "issuerPattern": "https://.*"}]}}},
        ],
        "default": {"type": "Deny"},
    }));
    let policy = policy.unwrap();
    assert_eq!(policy.mode, Mode::Enforce);
    assert!(policy.names_identities());
    assert_eq!(policy.rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["ours", "team"]);
}

#[test]
fn what_can_not_be_meant_is_refused_with_its_place() {
    let signature = |signature: serde_json::Value| {
        with_rule(serde_json::json!({"name": "team", "match": {"sources": ["Image"]},
            "require": {"type": "Signature", "signature": signature}}))
    };
    let matching = |matches: serde_json::Value| {
        with_rule(serde_json::json!({"name": "team", "match": matches, "require": {"type": "Allow"}}))
    };
    let keys = |pem: &str| read(serde_json::json!({"keys": {"release": pem}}));
    let rsa = "-----BEGIN PUBLIC KEY-----\n\
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQD9Wki+DAxYhhOT1C9twsg3MctN\n\
    pjyKq7GSF1gYSaSBm/REJEFgCN091bT2Gy+HzKeB7moGsUm1CUJf18FSAEMqMQIZ\n\
    5yUlAHwxyGOPMDZOMhA8rVqYI/ODaSvdoYv0y25uzLms/+81PlL4RljH5pZaqsuz\n\
    ed/PH1yH4Y+bReJBkwIDAQAB\n\
    -----END PUBLIC KEY-----";
    for (policy, expected) in [
        (read(serde_json::json!({"Mode": "Warn"})), "unknown field `Mode`"),
        (matching(serde_json::json!({})), "rules[0].match is empty"),
        (
            matching(serde_json::json!({"repositories": ["team/*"]})),
            "rules[0].match.repositories (team/*): it must begin",
        ),
        (matching(serde_json::json!({"digests": ["sha256:AB"]})), "rules[0].match.digests: \"sha256:AB\" is no digest"),
        (matching(serde_json::json!({"builtins": [""]})), "rules[0].match.builtins"),
        (matching(serde_json::json!({"builtins": ["a"], "repositories": ["a.b/c"]})), "write two rules"),
        (matching(serde_json::json!({"builtins": ["a"], "sources": ["Inline"]})), "`sources` lacks Builtin"),
        (matching(serde_json::json!({"repositories": ["a.b/c"], "sources": ["Inline"]})), "`sources` lacks Image"),
        (signature(serde_json::json!({})), "rules[0].require.signature names nobody"),
        (signature(serde_json::json!({"keys": ["relaese"]})), "names the key \"relaese\", which `keys` does not have"),
        (signature(serde_json::json!({"identities": [{"subject": "a"}]})), "identities[0] must have one of `issuer`"),
        (signature(serde_json::json!({"identities": [{"issuer": "a", "subject": ""}]})), "must have one of `subject`"),
        (
            signature(serde_json::json!({"identities": [{"issuer": "a", "subject": "a", "subjectPattern": "a"}]})),
            "must have one of `subject` and `subjectPattern`",
        ),
        (
            signature(serde_json::json!({"identities": [{"issuer": "a", "subjectPattern": "("}]})),
            "identities[0].subjectPattern ((): it is no regular expression",
        ),
        (
            with_rule(serde_json::json!({"name": "team", "match": {"sources": ["Image"]},
                "require": {"type": "Allow", "signature": {"keys": ["release"]}}})),
            "rules[0].require: `signature` must be given with `type: Signature`",
        ),
        (
            with_rule(
                serde_json::json!({"name": "default", "match": {"sources": ["Image"]}, "require": {"type": "Deny"}}),
            ),
            "\"default\" is no name, or is used twice",
        ),
        (keys("release"), "keys.release: it is no public key in PEM"),
        (keys("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"), "keys.release: it is a private key"),
        (keys(&P256.replace("MFkw", "MFkx")), "keys.release: it is no public key"),
        (keys(&P256.replace("ikY8", "AAAA")), "keys.release: its bytes are no key of its algorithm"),
        (keys(rsa), "keys.release: RSA keys are not supported"),
    ] {
        let error = policy.expect_err(expected);
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

#[test]
fn the_default_can_not_be_a_signature_by_nobody() {
    let default = |signature: serde_json::Value| {
        read(serde_json::json!({"default": {"type": "Signature", "signature": signature}})).unwrap_err()
    };
    for (signature, expected) in [
        (serde_json::Value::Null, "default: `signature` must be given with `type: Signature`"),
        (serde_json::json!({}), "default.signature names nobody"),
        (serde_json::json!({"keys": ["a"]}), "default.signature.keys names the key \"a\""),
    ] {
        let error = default(signature);
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}
