//! Schemas of foreign types, bounded: CEL's cost estimate needs a limit on every string and list.

use schemars::{Schema, SchemaGenerator, json_schema};

/// `serde(skip_serializing_if)` for counts whose absence means zero.
pub(crate) fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// `serde(skip_serializing_if)` for switches whose absence means off.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) const fn is_false(on: &bool) -> bool {
    !*on
}

/// Over Nodes.
pub(crate) fn node_selector(_: &mut SchemaGenerator) -> Schema {
    label_selector("A label selector over Nodes; absent means every node.")
}

/// Over Pods.
pub(crate) fn pod_selector(_: &mut SchemaGenerator) -> Schema {
    label_selector("For scope Pods: the pods, by their labels; absent means all.")
}

/// Over Namespaces.
pub(crate) fn namespace_selector(_: &mut SchemaGenerator) -> Schema {
    label_selector("For scope Pods: the namespaces whose pods they are, by the namespaces' labels; absent means all.")
}

/// A `metav1.LabelSelector` with its bounds written out.
fn label_selector(description: &str) -> Schema {
    json_schema!({
        "description": description,
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "nullable": true,
        "properties": {
            "matchLabels": {
                "description": "Labels that must be there, all of them.",
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": {"type": "string", "maxLength": 63}
            },
            "matchExpressions": {
                "description": "Requirements the labels must meet, all of them.",
                "type": "array",
                "maxItems": 32,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"description": "The label's key.", "type": "string", "maxLength": 317},
                        "operator": {
                            "description": "How the label relates to the values.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"]
                        },
                        "values": {
                            "description": "Values for In and NotIn.",
                            "type": "array",
                            "maxItems": 64,
                            "x-kubernetes-list-type": "atomic",
                            "items": {"type": "string", "maxLength": 63}
                        }
                    }
                }
            }
        }
    })
}
