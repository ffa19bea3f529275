//! The revision as it is on a node of one architecture.

use super::RevisionTemplate;

impl RevisionTemplate {
    /// Returns the template as a node of this architecture runs it: with the object and the proof of that architecture,
    /// and no variants. None if the variants have none for it.
    pub fn on_architecture(&self, architecture: &str) -> Option<Self> {
        if self.variants.is_empty() {
            return Some(self.clone());
        }
        let variant = self.variants.iter().find(|variant| variant.architecture == architecture)?.clone();
        let mut template = Self { variants: Vec::new(), ..self.clone() };
        (template.digest, template.object) = (variant.digest, variant.object);
        if let Some(proof) = &mut template.proof {
            proof.digests = variant.proof_digests;
        }
        Some(template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provenance::{Proof, SourceType, Variant};

    #[test]
    fn a_node_runs_the_object_of_its_architecture_and_no_other() {
        let variant = |architecture: &str| Variant {
            architecture: architecture.to_owned(),
            digest: format!("sha256:{architecture}"),
            proof_digests: vec![format!("sha256:proof-{architecture}")],
            ..Variant::default()
        };
        let proof = Proof { source: SourceType::Image, builtin: None, digests: Vec::new() };
        let of = |variants: Vec<Variant>| RevisionTemplate {
            digest: "sha256:amd64".into(),
            variants,
            proof: Some(proof.clone()),
            ..RevisionTemplate::default()
        };
        let both = of(vec![variant("amd64"), variant("arm64")]);
        let on_arm = both.on_architecture("arm64").unwrap();
        assert_eq!((&*on_arm.digest, on_arm.variants.len()), ("sha256:arm64", 0));
        assert_eq!(on_arm.proof.as_ref().unwrap().digests, ["sha256:proof-arm64"]);
        assert_ne!(on_arm.load_key(), both.on_architecture("amd64").unwrap().load_key());
        assert_eq!(both.on_architecture("riscv64"), None);
        assert_eq!(of(vec![]).on_architecture("riscv64"), Some(of(vec![])), "an object for every architecture");
    }
}
