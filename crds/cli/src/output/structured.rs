//! Objects as JSON, YAML, JSONPath and names.

use serde_json::{Value, json};

use super::{Format, jsonpath};

/// The reason why an object can't be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// It can't be written as JSON.
    #[error("the answer can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It can't be written as YAML.
    #[error("the answer can't be written as YAML: {0}")]
    Yaml(String),
    /// The template finds nothing, or can't be applied.
    #[error(transparent)]
    JsonPath(#[from] jsonpath::EvaluateError),
    /// It has no name.
    #[error("-o name is for objects of the API; use json, yaml or jsonpath")]
    Nameless,
}

/// Returns a value in a form for programs; with a form for people, as JSON.
///
/// # Errors
/// Fails where a template finds nothing, or what is to be named has no name.
pub fn render(value: &Value, format: &Format) -> Result<String, PrintError> {
    match format {
        Format::Table | Format::Wide | Format::Json => Ok(indented(value)? + "\n"),
        Format::Yaml => serde_saphyr::to_string(value).map_err(|error| PrintError::Yaml(error.to_string())),
        Format::JsonPath(template) => Ok(template.evaluate(value)?),
        Format::Name => names(value),
    }
}

/// Returns JSON as kubectl indents it, by four spaces.
fn indented(value: &Value) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(jsonpath::as_go(&String::from_utf8_lossy(&bytes)))
}

/// Returns several objects as one, as kubectl does.
pub fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
}

/// Returns `kind.group/name` of an object or of each item of a list, a line each.
fn names(value: &Value) -> Result<String, PrintError> {
    let one = |object: &Value| {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let kind = text(&object["kind"])?.to_lowercase();
        let group = text(&object["apiVersion"])?.split_once('/').map(|(group, _)| group.to_owned());
        let name = text(&object["metadata"]["name"])?;
        Some(format!("{kind}{}/{name}\n", group.map(|group| format!(".{group}")).unwrap_or_default()))
    };
    let objects = value["items"].as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    objects.iter().map(|object| one(object).ok_or(PrintError::Nameless)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kubectls() {
        let program = |name: &str| {
            json!({
                "apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name},
            })
        };
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}});
        let all = render(&list(vec![program("a"), program("b"), pod]), &Format::Name).unwrap();
        assert_eq!(all, "bpfprogram.sockeye.dev/a\nbpfprogram.sockeye.dev/b\npod/web\n");
        assert_eq!(render(&program("a"), &Format::Name).unwrap(), "bpfprogram.sockeye.dev/a\n");
        assert!(matches!(render(&json!({"a": 1}), &Format::Name), Err(PrintError::Nameless)));
    }

    #[test]
    fn json_is_indented_by_four_and_escaped_as_go_does() {
        assert_eq!(render(&json!("<"), &Format::Json).unwrap(), "\"\\u003c\"\n");
        assert_eq!(render(&json!({"a": [1]}), &Format::Json).unwrap(), "{\n    \"a\": [\n        1\n    ]\n}\n");
    }
}
