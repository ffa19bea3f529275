//! The four CustomResourceDefinitions of this version, each annotated with the version. No IO.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::{BpfNode, BpfProgram, BpfRevision, ConditionType, Reason, node::BpfNodeDetail};

/// The annotation with the version of sockeye that a definition belongs to.
pub const ANNOTATION_VERSION: &str = "sockeye.dev/crd-version";

/// This version of sockeye.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the definitions, BpfProgram first.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = vec![BpfProgram::crd(), BpfRevision::crd(), BpfNode::crd(), BpfNodeDetail::crd()];
    for definition in &mut all {
        let metadata = &mut definition.metadata;
        metadata.annotations.get_or_insert_default().insert(ANNOTATION_VERSION.to_owned(), VERSION.to_owned());
        let labels = metadata.labels.get_or_insert_default();
        for (key, value) in [("name", "sockeye"), ("component", "crds"), ("part-of", "sockeye")] {
            labels.insert(format!("app.kubernetes.io/{key}"), value.to_owned());
        }
        schemas(definition).for_each(drop_nulls_and_defaults);
    }
    schemas(&mut all[0]).for_each(|schema| default_status(schema, pending()));
    all
}

/// Returns the schema of each version.
fn schemas(definition: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    definition.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
}

/// Takes `nullable` and `default` out of a schema. What is absent has no field, so that null means nothing: the API
/// server drops it. A default would be added to objects on the server, and client-side diffs would show it again and
/// again.
fn drop_nulls_and_defaults(schema: &mut JSONSchemaProps) {
    (schema.nullable, schema.default) = (None, None);
    schema.properties.iter_mut().flatten().for_each(|(_, property)| drop_nulls_and_defaults(property));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        drop_nulls_and_defaults(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        drop_nulls_and_defaults(values);
    }
}

fn default_status(schema: &mut JSONSchemaProps, default: Value) {
    if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
        status.default = Some(JSON(default));
    }
}

/// Returns the status of a BpfProgram that the operator has not looked at yet, as Gateway API has it. Without it
/// kstatus takes a new object for one that is complete.
fn pending() -> Value {
    let pending = |condition: ConditionType| {
        json!({
            "type": condition,
            "status": "Unknown",
            "reason": Reason::Pending,
            "message": "waiting for sockeye's operator; if this stays, see whether its pod runs",
            "lastTransitionTime": "1970-01-01T00:00:00Z"
        })
    };
    json!({"conditions": [pending(ConditionType::Accepted), pending(ConditionType::Ready)]})
}
