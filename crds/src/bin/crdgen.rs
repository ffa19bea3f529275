//! Prints the CustomResourceDefinitions as YAML, one document each: what `deploy/` commits.

use kube::CustomResourceExt as _;
use sockeye_crds::{BpfNode, BpfProgram, BpfRevision};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for crd in [BpfProgram::crd(), BpfRevision::crd(), BpfNode::crd()] {
        print!("---\n{}", serde_saphyr::to_string(&crd)?);
    }
    Ok(())
}
