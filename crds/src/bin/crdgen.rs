//! Prints the CustomResourceDefinitions as YAML, one document each, for `deploy/chart/files/crds.yaml`.

use sockeye_crds::definitions::definitions;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for crd in definitions() {
        print!("---\n{}", serde_saphyr::to_string(&crd)?);
    }
    Ok(())
}
