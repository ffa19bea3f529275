//! The three CustomResourceDefinitions of this version, each annotated with the version. No IO.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use crate::{BpfNode, BpfProgram, BpfRevision};

/// The annotation with the version of sockeye that a definition belongs to.
pub const ANNOTATION_VERSION: &str = "sockeye.dev/crd-version";

/// This version of sockeye.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the definitions, BpfProgram first.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = vec![BpfProgram::crd(), BpfRevision::crd(), BpfNode::crd()];
    for definition in &mut all {
        let metadata = &mut definition.metadata;
        metadata.annotations.get_or_insert_default().insert(ANNOTATION_VERSION.to_owned(), VERSION.to_owned());
        let labels = metadata.labels.get_or_insert_default();
        for (key, value) in [("name", "sockeye"), ("component", "crds"), ("part-of", "sockeye")] {
            labels.insert(format!("app.kubernetes.io/{key}"), value.to_owned());
        }
    }
    all
}
