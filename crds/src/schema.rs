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

/// Values of variables, by name. What each takes, its BTF type says, which no schema knows.
pub(crate) fn globals(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Values of global variables (.rodata, .data, .bss) by name, encoded by their BTF types, instead of what the object says.",
        "type": "object",
        "maxProperties": 256,
        "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true}
    })
}

/// An entry's key.
pub(crate) fn key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The key; absent for maps without keys (Queue, Stack, BloomFilter).",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

/// An entry's value.
pub(crate) fn value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The value; in a per-CPU map, every processor's.",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

/// What Kubernetes takes for a label's value.
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// And for its key, but for how long the parts may be.
const LABEL_KEY: &str = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";

/// A `metav1.LabelSelector` with its bounds written out. Its keys in matchLabels no schema can check.
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
                "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE}
            },
            "matchExpressions": {
                "description": "Requirements the labels must meet, all of them.",
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
                            "description": "The label's key.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 317,
                            "pattern": LABEL_KEY
                        },
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
                            "items": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE}
                        }
                    }
                }
            }
        }
    })
}
