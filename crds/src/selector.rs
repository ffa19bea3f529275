//! Label selectors: what one selects, and what is wrong with one. Pure.
//!
//! Kubernetes validates the selectors of its own kinds (apimachinery, `ValidateLabelSelector`), and those of others not: one
//! that no label can meet would select nothing, and one that is half written too much.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt as _};

use crate::names::printable;

/// Whether a selector matches labels; an absent one matches all, and one that can't be read nothing.
pub fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| Selector::try_from(selector.clone()).is_ok_and(|s| s.matches(labels)))
}

/// What is wrong with a selector, and where, from a field on.
pub fn fault(field: &str, selector: &LabelSelector) -> Option<String> {
    let LabelSelector { match_labels, match_expressions } = selector;
    let labels = match_labels.iter().flatten().find_map(|(key, value)| {
        let field = format!("{field}.matchLabels");
        no_key(&field, key).or_else(|| no_value(&format!("{field}[{key}]"), value))
    });
    let mut expressions = match_expressions.iter().flatten().enumerate();
    labels.or_else(|| expressions.find_map(|(i, one)| requirement(&format!("{field}.matchExpressions[{i}]"), one)))
}

fn requirement(
    field: &str,
    LabelSelectorRequirement { key, operator, values }: &LabelSelectorRequirement,
) -> Option<String> {
    let values = values.as_deref().unwrap_or_default();
    match (operator.as_str(), values.is_empty()) {
        ("In" | "NotIn", false) | ("Exists" | "DoesNotExist", true) => {}
        ("In" | "NotIn", true) => return Some(format!("{field}.values: operator {operator} needs at least one value")),
        ("Exists" | "DoesNotExist", false) => {
            return Some(format!(
                "{field}.values: operator {operator} takes no values: leave them out, or use In or NotIn"
            ));
        }
        _ => {
            let operator = printable(operator);
            return Some(format!("{field}.operator: {operator} is none of In, NotIn, Exists and DoesNotExist"));
        }
    }
    let mut values = values.iter().enumerate();
    no_key(&format!("{field}.key"), key)
        .or_else(|| values.find_map(|(i, value)| no_value(&format!("{field}.values[{i}]"), value)))
}

fn no_key(field: &str, key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_key = is_name(name) && prefix.is_none_or(is_subdomain);
    (!is_key).then(|| {
        format!(
            "{field}: {} is no label's key: at most 63 letters, digits, '-', '_' and '.', first and last a letter or digit; \
             before it, if anything, a DNS name and '/'",
            printable(key)
        )
    })
}

fn no_value(field: &str, value: &str) -> Option<String> {
    (!value.is_empty() && !is_name(value)).then(|| {
        format!(
            "{field}: {} is no label's value: at most 63 letters, digits, '-', '_' and '.', first and last a letter or digit, \
             or nothing",
            printable(value)
        )
    })
}

/// What a label's value is, and its key without a prefix.
fn is_name(name: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// A DNS subdomain (RFC 1123).
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(crate::names::is_dns_label)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn faults(selector: Value) -> Option<String> {
        fault("s", &serde_json::from_value(selector).unwrap())
    }

    #[test]
    fn what_kubernetes_takes_is_taken() {
        for good in [
            json!({}),
            json!({"matchLabels": {"a": "b", "a.b/c_d": "", "kubernetes.io/os": "Linux-1.0"}}),
            json!({"matchExpressions": [
                {"key": "a", "operator": "In", "values": ["", "b"]}, {"key": "a", "operator": "NotIn", "values": ["b"]},
                {"key": "a", "operator": "Exists"}, {"key": "a", "operator": "DoesNotExist", "values": []},
            ]}),
        ] {
            assert_eq!(faults(good.clone()), None, "{good}");
        }
    }

    #[test]
    fn a_fault_is_named_by_its_place() {
        let key = |key: &str| json!({"matchLabels": {key: "b"}});
        let one = |one: Value| json!({"matchExpressions": [{"key": "a", "operator": "Exists"}, one]});
        for (bad, place) in [
            (key("a b"), "s.matchLabels: \"a b\" is no label's key"),
            (key(""), "s.matchLabels: "),
            (key("-a"), "s.matchLabels: "),
            (key("/a"), "s.matchLabels: "),
            (key("a/"), "s.matchLabels: "),
            (key("A.b/c"), "s.matchLabels: "),
            (key("a/b/c"), "s.matchLabels: "),
            (key(&"a".repeat(64)), "s.matchLabels: "),
            (json!({"matchLabels": {"a": "b c"}}), "s.matchLabels[a]: \"b c\" is no label's value"),
            (one(json!({"key": "a b", "operator": "Exists"})), "s.matchExpressions[1].key: "),
            (one(json!({"key": "a", "operator": "Near"})), "s.matchExpressions[1].operator: \"Near\" is none of"),
            (one(json!({"key": "a", "operator": "In"})), "s.matchExpressions[1].values: operator In needs"),
            (one(json!({"key": "a", "operator": "NotIn", "values": []})), "s.matchExpressions[1].values: "),
            (
                one(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
                "s.matchExpressions[1].values: operator Exists",
            ),
            (one(json!({"key": "a", "operator": "In", "values": ["b", "c "]})), "s.matchExpressions[1].values[1]: "),
        ] {
            let said = faults(bad.clone()).unwrap_or_default();
            assert!(said.starts_with(place), "{bad}: {said}");
        }
    }
}
