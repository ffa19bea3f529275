//! Schemas of types from other crates, with the bounds on every string and list that CEL's cost estimate needs.

use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// For `serde(skip_serializing_if)`: a count whose absence means zero.
pub(crate) fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// For `serde(skip_serializing_if)`: a switch whose absence means off.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) const fn is_false(on: &bool) -> bool {
    !*on
}

/// The schema of an optional field's type, for the field to add its own description. For an `Option` without it, kube
/// takes the type's.
pub(crate) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// A selector of Nodes.
pub(crate) fn node_selector(_: &mut SchemaGenerator) -> Schema {
    label_selector("The nodes to run on, selected by their labels. If absent, every node.")
}

/// A selector of Pods.
pub(crate) fn pod_selector(_: &mut SchemaGenerator) -> Schema {
    label_selector("The pods, selected by their labels. An empty selector selects every pod.")
}

/// A selector of Namespaces.
pub(crate) fn namespace_selector(_: &mut SchemaGenerator) -> Schema {
    label_selector("The namespaces of the pods, selected by their labels. If absent, every namespace.")
}

/// The values that Kubernetes accepts for a label.
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// The keys that Kubernetes accepts for a label. The pattern does not bound the parts' lengths.
const LABEL_KEY: &str = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";

/// A `metav1.LabelSelector` with bounds. A schema cannot check the keys of matchLabels. An empty `matchLabels` is
/// refused: it is what remains of `matchLabels: {app: }`, whose null the API server drops, and would select everything.
fn label_selector(description: &str) -> Schema {
    json_schema!({
        "description": description,
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "The labels that an object must have, all of them.",
                "type": "object",
                "minProperties": 1,
                "maxProperties": 32,
                "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE}
            },
            "matchExpressions": {
                "description": "The requirements that an object's labels must meet, all of them.",
                "type": "array",
                "maxItems": 32,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                        "message": "operators In and NotIn need at least one value, Exists and DoesNotExist take none"
                    }],
                    "properties": {
                        "key": {
                            "description": "The key of the label.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 317,
                            "pattern": LABEL_KEY
                        },
                        "operator": {
                            "description": "The relation of the label to the values.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"]
                        },
                        "values": {
                            "description": "The values for In and NotIn.",
                            "type": "array",
                            "maxItems": 64,
                            "x-kubernetes-list-type": "atomic",
                            "items": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE}
                        }
                    }
                }
            }
        }
    })
}

/// The rule that bounds the keys of `globals`. It checks no pattern: CEL's cost estimate takes keys for as long as a
/// request may be.
pub(crate) fn names_of_globals() -> Rule {
    Rule::new("self.all(name, name.size() > 0 && name.size() <= 256)")
        .message("the names of global variables have 1 to 256 characters")
}
