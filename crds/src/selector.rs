//! Label selectors: matching and validation. No IO.
//!
//! Kubernetes validates the selectors of its own kinds (apimachinery, `ValidateLabelSelector`), but not those of custom
//! resources. Without validation, a misspelt selector would silently select nothing, or too much.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::names::printable;

/// Returns whether a selector matches labels. An absent selector matches all labels, an invalid one none.
///
/// The operator and the agents call this for each pair of a selector and a node or pod, so it allocates nothing.
pub fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(LabelSelector { match_labels, match_expressions }) = selector else { return true };
    match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && match_expressions.iter().flatten().all(|requirement| meets(requirement, labels))
}

fn meets(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    let label = labels.get(key);
    match (operator.as_str(), values) {
        ("In", Some(values)) => label.is_some_and(|value| values.contains(value)),
        ("NotIn", Some(values)) => label.is_none_or(|value| !values.contains(value)),
        ("Exists", _) => label.is_some(),
        ("DoesNotExist", _) => label.is_none(),
        _ => false,
    }
}

/// Returns what is wrong with a selector, if anything, with the path of the faulty field below `field`.
pub fn fault(field: &str, selector: &LabelSelector) -> Option<String> {
    let LabelSelector { match_labels, match_expressions } = selector;
    let labels = match_labels.iter().flatten().find_map(|(key, value)| {
        let field = format!("{field}.matchLabels");
        key_fault(&field, key).or_else(|| value_fault(&format!("{field}[{key}]"), value))
    });
    let mut expressions = match_expressions.iter().flatten().enumerate();
    labels
        .or_else(|| expressions.find_map(|(i, one)| requirement_fault(&format!("{field}.matchExpressions[{i}]"), one)))
}

fn requirement_fault(
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
    key_fault(&format!("{field}.key"), key)
        .or_else(|| values.find_map(|(i, value)| value_fault(&format!("{field}.values[{i}]"), value)))
}

fn key_fault(field: &str, key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_key = is_name(name) && prefix.is_none_or(is_subdomain);
    (!is_key).then(|| {
        format!(
            "{field}: {} is no label's key: at most 63 letters, digits, '-', '_' and '.', first and last a letter or \
             digit; before it, if anything, a DNS name and '/'",
            printable(key)
        )
    })
}

fn value_fault(field: &str, value: &str) -> Option<String> {
    (!value.is_empty() && !is_name(value)).then(|| {
        format!(
            "{field}: {} is no label's value: at most 63 letters, digits, '-', '_' and '.', first and last a letter or \
             digit, or nothing",
            printable(value)
        )
    })
}

/// Returns whether a name is valid as a label's value, and as its key without the prefix.
fn is_name(name: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Returns whether a name is a DNS subdomain (RFC 1123).
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(crate::names::is_dns_label)
}

#[cfg(test)]
mod tests {
    use kube::core::{Selector, SelectorExt as _};
    use serde_json::{Value, json};

    use super::*;

    /// Every combination of an operator, values and labels, alone and beside a label that matches.
    #[test]
    fn selectors_match_as_kubes_own_do() {
        let all_labels =
            [json!({}), json!({"a": "1"}), json!({"a": ""}), json!({"b": "1"}), json!({"a": "2", "b": "1"})];
        for operator in ["In", "NotIn", "Exists", "DoesNotExist", "Near"] {
            for values in [json!(null), json!([]), json!(["1"]), json!(["", "2"])] {
                let requirement = json!({"key": "a", "operator": operator, "values": values});
                for match_labels in [json!(null), json!({}), json!({"b": "1"})] {
                    let selector = json!({"matchLabels": match_labels, "matchExpressions": [requirement]});
                    let selector: LabelSelector = serde_json::from_value(selector).unwrap();
                    for labels in &all_labels {
                        let labels = serde_json::from_value(labels.clone()).unwrap();
                        let kube = Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(&labels));
                        assert_eq!(selects(Some(&selector), &labels), kube, "{selector:?} {labels:?}");
                    }
                }
            }
        }
        assert!(selects(None, &BTreeMap::new()));
    }

    fn faults(selector: Value) -> Option<String> {
        fault("s", &serde_json::from_value(selector).unwrap())
    }

    #[test]
    fn selectors_that_kubernetes_accepts_have_no_fault() {
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
    fn each_fault_names_its_field() {
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
