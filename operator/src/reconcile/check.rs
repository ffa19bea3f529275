//! [`check`]: judges a spec, its bytes and their signatures. IO: none.

use std::borrow::Cow;

use sockeye_crds::{
    BpfProgramSpec, Reason, Refusal, names, program,
    provenance::{Origin, Proof, SignedBy, SourceType, Variant},
};
use sockeye_ebpf::{Accepted, values::list::Lists};
use sockeye_provenance::Source;

use crate::{
    reconcile::{
        image_content::ImageContent,
        material::{self, Material},
    },
    signing::Signing,
};

/// The bytes of a spec, as they were read.
#[derive(Clone, Debug)]
pub enum ReadBytes {
    /// In the spec itself.
    InSpec,
    /// From a ConfigMap.
    Fetched(Vec<u8>),
    /// From an image.
    Image(ImageContent),
}

/// A spec that is accepted, and the bytes to store for it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The spec.
    pub accepted: Accepted,
    /// The object's bytes.
    pub bytes: Vec<u8>,
    /// The other bytes, with their digests: objects of further architectures, and proofs.
    pub further: Vec<(String, Vec<u8>)>,
}

/// The part of a revision that one object adds.
struct CheckedMaterial {
    architecture: String,
    accepted: Accepted,
    bytes: Vec<u8>,
    proof: Vec<(String, Vec<u8>)>,
    signed_by: Vec<SignedBy>,
    warning: Option<String>,
}

/// Checks a spec, its bytes, and who signed them.
pub fn check(spec: &BpfProgramSpec, read: ReadBytes, lists: &Lists, signing: &Signing) -> Result<Checked, Refusal> {
    let (image, materials) = match read {
        ReadBytes::InSpec => (None, material::of_bytes(spec, bytes_in_spec(&spec.bytecode)?)?),
        ReadBytes::Fetched(bytes) => (None, material::of_bytes(spec, bytes)?),
        ReadBytes::Image(content) => (Some(content.image().clone()), material::of_image(spec, &content)?),
    };
    let (source_type, source) = material::source(&spec.bytecode, image.as_ref())?;
    let mut checked = Vec::with_capacity(materials.len());
    for material in materials {
        let named = name_architecture(&material.architecture);
        checked.push(check_material(spec, &source, material, (lists, signing)).map_err(named)?);
    }
    let origin = Origin { image, ..Origin::default() };
    combine(spec, origin, source_type, checked, signing)
}

/// Says which architecture's object a refusal is about.
fn name_architecture(architecture: &str) -> impl Fn(Refusal) -> Refusal + use<> {
    let prefix = if architecture.is_empty() { String::new() } else { format!("on {architecture}: ") };
    move |refusal| Refusal { message: format!("{prefix}{}", refusal.message), ..refusal }
}

fn check_material(
    spec: &BpfProgramSpec,
    source: &Source,
    Material { architecture, object, archive }: Material,
    (lists, signing): (&Lists, &Signing),
) -> Result<CheckedMaterial, Refusal> {
    // Before the bytes are read: nobody vouches for those that are refused here.
    let signed = signing.judge(source, &object, &archive)?;
    let accepted = sockeye_ebpf::check::check_with(spec, &object, lists)?;
    let parts = if signing.has_policy() { archive.encode() } else { Ok(Vec::new()) };
    let parts =
        parts.map_err(|error| Refusal { reason: Reason::InvalidImage, message: format!("spec.bytecode: {error}") })?;
    let proof = parts.into_iter().map(|part| (names::digest(&part), part)).collect();
    Ok(CheckedMaterial { architecture, accepted, bytes: object, proof, signed_by: signed.by, warning: signed.warning })
}

/// Makes one accepted spec of those of all architectures.
fn combine(
    spec: &BpfProgramSpec,
    mut origin: Origin,
    source: SourceType,
    mut checked: Vec<CheckedMaterial>,
    signing: &Signing,
) -> Result<Checked, Refusal> {
    let mut further: Vec<(String, Vec<u8>)> = Vec::new();
    // One that is for a single architecture must not run on others.
    let differ = checked.len() > 1 || checked.iter().any(|one| !one.architecture.is_empty());
    for one in &mut checked {
        let proof_digests: Vec<String> = one.proof.iter().map(|(digest, _)| digest.clone()).collect();
        further.append(&mut one.proof);
        if differ {
            let Accepted { digest, object, .. } = one.accepted.clone();
            let architecture = one.architecture.clone();
            origin.variants.push(Variant { architecture, digest: digest.clone(), object, proof_digests });
            further.push((digest, one.bytes.clone()));
        } else if signing.has_policy() {
            origin.proof = Some(Proof { source, builtin: spec.bytecode.builtin, digests: proof_digests });
        }
    }
    if differ && signing.has_policy() {
        origin.proof = Some(Proof { source, builtin: None, digests: Vec::new() });
    }
    let mut all = checked.into_iter();
    let first = all.next().ok_or_else(|| Refusal {
        reason: Reason::InvalidImage,
        message: "spec.bytecode.image has no object".to_owned(),
    })?;
    (origin.signed_by, origin.warning) = (first.signed_by, first.warning);
    for other in all {
        if other.accepted.programs != first.accepted.programs {
            let message = format!(
                "spec.bytecode.image: the objects for {} and {} have the programs in different sections",
                first.architecture, other.architecture
            );
            return Err(Refusal { reason: Reason::InvalidImage, message });
        }
        // What nobody signed on one architecture is not signed.
        origin.signed_by.retain(|signer| other.signed_by.contains(signer));
        origin.warning = origin.warning.or(other.warning);
    }
    further.sort();
    further.dedup();
    let digest = &first.accepted.digest;
    further.retain(|(other, _)| other != digest);
    Ok(Checked { accepted: Accepted { origin, ..first.accepted }, bytes: first.bytes, further })
}

fn bytes_in_spec(bytecode: &program::Bytecode) -> Result<Vec<u8>, Refusal> {
    let not_read = || {
        let message = "spec.bytecode: the object has not been read".to_owned();
        Refusal { reason: Reason::BytecodeUnavailable, message }
    };
    sockeye_ebpf::check::embedded_bytes(bytecode)?.map(Cow::into_owned).ok_or_else(not_read)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sockeye_crds_testing::provoked;

    use super::*;

    fn refusal(spec: serde_json::Value, bytes: Option<&[u8]>) -> Refusal {
        let spec: BpfProgramSpec = serde_json::from_value(spec).unwrap();
        let source = bytes.map_or(ReadBytes::InSpec, |bytes| ReadBytes::Fetched(bytes.to_vec()));
        check(&spec, source, &Lists::new(), &Signing::default()).unwrap_err()
    }

    #[test]
    fn a_rejection_names_the_field() {
        let programs = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
        let config_map = |bytes| json!({"configMapRef": {"name": "n", "key": "k", "digest": names::digest(bytes)}});
        let selector = json!({"matchExpressions": [{"key": "disk", "operator": "Near"}]});
        for (spec, bytes, reason, field) in [
            (json!({"bytecode": {}, "programs": programs}), None, Reason::InvalidSpec, "spec.bytecode"),
            (
                json!({"bytecode": {"inline": "!"}, "programs": programs}),
                None,
                Reason::InvalidSpec,
                "spec.bytecode.inline",
            ),
            (
                json!({"bytecode": config_map(b"text"), "programs": programs}),
                Some(&b"text"[..]),
                Reason::InvalidObject,
                "spec.bytecode",
            ),
            (
                json!({"bytecode": config_map(b""), "programs": programs, "nodeSelector": selector}),
                Some(&b""[..]),
                Reason::InvalidSpec,
                "spec.nodeSelector",
            ),
            (
                json!({"bytecode": config_map(b"others"), "programs": programs}),
                Some(&b"text"[..]),
                Reason::DigestMismatch,
                "spec.bytecode.configMapRef.digest",
            ),
        ] {
            let refusal = refusal(spec, bytes);
            assert_eq!(refusal.reason, reason, "{}", refusal.message);
            assert!(refusal.message.starts_with(field), "{}", refusal.message);
            provoked(refusal.reason, &refusal.message);
        }
    }

    #[test]
    fn the_operator_has_the_bytes_of_a_builtin() {
        let programs = json!([{"name": "measure", "attach": [{"type": "Node"}]}]);
        let spec = serde_json::from_value(json!({"bytecode": {"builtin": "tcp-rtt"}, "programs": programs})).unwrap();
        let Checked { accepted, bytes, further } =
            check(&spec, ReadBytes::InSpec, &Lists::new(), &Signing::default()).unwrap();
        assert_eq!(bytes, sockeye_ebpf::programs::builtin(sockeye_crds::Builtin::TcpRtt));
        assert_eq!((accepted.digest, further.len()), (names::digest(&bytes), 0));
        assert_eq!(accepted.origin, Origin::default(), "nothing is proven where no policy asks");
    }
}
