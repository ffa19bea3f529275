use super::*;

#[test]
fn a_member_that_occurs_twice_is_refused_at_any_depth() {
    for text in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"a":2}]}"#, r#"{"a":1,"\u0061":2}"#] {
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("`a` occurs twice"), "{text}: {error}");
    }
    assert!(parse(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
}

#[test]
fn depth_values_and_trailing_text_are_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(nested(24).as_bytes()).is_ok());
    for text in
        [nested(26), nested(100_000), format!("[{}0]", "0,".repeat(20_000)), "{} {}".into(), "".into(), "nul".into()]
    {
        assert!(matches!(parse(text.as_bytes()), Err(JsonError::Syntax(_))), "{}", &text[..text.len().min(20)]);
    }
}

#[test]
fn errors_name_the_path() {
    let json = parse(br#"{"a":{"b":[{"c":1},{"c":"!"}]},"n":null}"#).unwrap();
    let root = Node::root(&json);
    let items: Vec<_> = root.require("a").unwrap().require("b").unwrap().items().unwrap().collect();
    assert_eq!(items[0].require("c").unwrap().text().unwrap_err().to_string(), "`a.b[0].c` is not text");
    assert_eq!(items[1].require("c").unwrap().base64().unwrap_err().to_string(), "`a.b[1].c` is not base64");
    assert_eq!(root.require("n").unwrap_err().to_string(), "it has no `n`");
}

#[test]
fn base64_has_one_form() {
    let base64 = |text: &str| Node::root(&Json::Text(text.into())).base64();
    assert_eq!(base64("AQ==").unwrap(), [1]);
    for other in ["AQ", "AR==", "AQ=", "AQ==\n", "A-__", " AQ=="] {
        assert!(base64(other).is_err(), "{other:?}");
    }
}
