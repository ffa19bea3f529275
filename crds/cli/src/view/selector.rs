//! Label selectors in the words of `kubectl get -l` (apimachinery, `FormatLabelSelector`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Returns a selector as text.
pub fn text(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().flatten().map(|one| {
        let values = one.values.as_deref().unwrap_or_default().join(",");
        match one.operator.as_str() {
            "In" => format!("{} in ({values})", one.key),
            "NotIn" => format!("{} notin ({values})", one.key),
            "Exists" => one.key.clone(),
            "DoesNotExist" => format!("!{}", one.key),
            other => format!("{} {other} ({values})", one.key),
        }
    });
    let words: Vec<String> = labels.chain(expressions).collect();
    if words.is_empty() { "all".to_owned() } else { words.join(",") }
}
