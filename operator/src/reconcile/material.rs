//! [`Material`]: the bytes of a BpfProgram, wherever they come from, and what proves who signed them. IO: none.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sockeye_crds::{
    BpfProgramSpec, Reason, Refusal,
    program::{Bytecode, Signature},
    provenance::{RevisionImage, SourceType},
};
use sockeye_image::{Reference, SignatureKind, SignatureManifest};
use sockeye_provenance::{Archive, Source};
use sockeye_signature::Evidence;

use crate::{
    images::pulled::PulledImage,
    reconcile::image_content::{ImageContent, StoredBytes},
};

/// The bytes of a BpfProgram for one architecture.
#[derive(Clone, Debug)]
pub struct Material {
    /// The architecture; empty if the object is for all.
    pub architecture: String,
    /// The object's bytes.
    pub object: Vec<u8>,
    /// The proof of who signed them.
    pub archive: Archive,
}

/// Returns the material of bytes that a spec holds or that a ConfigMap does.
pub fn of_bytes(spec: &BpfProgramSpec, object: Vec<u8>) -> Result<Vec<Material>, Refusal> {
    let archive = Archive { evidence: evidence(&spec.bytecode)?, ..Archive::default() };
    Ok(vec![Material { architecture: String::new(), object, archive }])
}

/// Returns the material of an image.
pub fn of_image(spec: &BpfProgramSpec, content: &ImageContent) -> Result<Vec<Material>, Refusal> {
    match content {
        ImageContent::Pulled(_, pulled) => of_pulled(spec, pulled),
        ImageContent::Stored(_, stored) => stored.iter().map(|stored| of_stored(spec, stored)).collect(),
    }
}

fn of_pulled(spec: &BpfProgramSpec, pulled: &PulledImage) -> Result<Vec<Material>, Refusal> {
    let mut all = evidence(&spec.bytecode)?;
    all.extend(pulled.signatures.iter().cloned().map(of_registry));
    let materials = pulled.objects.iter().map(|object| Material {
        architecture: object.architecture.clone(),
        object: object.bytes.to_vec(),
        archive: Archive {
            index: pulled.index.as_ref().map(|index| index.to_vec()),
            manifest: object.manifest.to_vec(),
            layer: object.layer.as_ref().map(|layer| layer.to_vec()),
            evidence: all.clone(),
        },
    });
    Ok(materials.collect())
}

/// The signatures that were stored are the registry's and those of the spec then; those of the spec now come first.
fn of_stored(spec: &BpfProgramSpec, stored: &StoredBytes) -> Result<Material, Refusal> {
    let damaged = |error: sockeye_provenance::archive::Error| Refusal {
        reason: Reason::InvalidImage,
        message: format!("spec.bytecode.image: {error}"),
    };
    let mut archive = Archive::decode(&stored.proof).map_err(damaged)?;
    let mut all = evidence(&spec.bytecode)?;
    let others: Vec<Evidence> = archive.evidence.drain(..).filter(|other| !all.contains(other)).collect();
    all.extend(others);
    archive.evidence = all;
    Ok(Material { architecture: stored.architecture.clone(), object: stored.object.clone(), archive })
}

/// Reads the signatures of a spec.
fn evidence(bytecode: &Bytecode) -> Result<Vec<Evidence>, Refusal> {
    let read = |(i, signature): (usize, &Signature)| match signature {
        Signature::Bundle { bundle } => Ok(Evidence::Bundle(bundle.clone().into_bytes())),
        Signature::Detached { detached } => {
            let compact: String = detached.signature.split_ascii_whitespace().collect();
            let signature = STANDARD.decode(compact).map_err(|error| Refusal {
                reason: Reason::InvalidSpec,
                message: format!(
                    "spec.bytecode.signatures[{i}].detached.signature is not base64: {error} Encode the file (base64)"
                ),
            })?;
            Ok(Evidence::Detached { signature, key_hint: detached.key_hint.clone() })
        }
    };
    bytecode.signatures.iter().enumerate().map(read).collect()
}

fn of_registry(SignatureManifest { subject: _, kind }: SignatureManifest) -> Evidence {
    match kind {
        SignatureKind::Bundle(bundle) => Evidence::Bundle(bundle),
        SignatureKind::SimpleSigning { payload, signature, certificate, chain, bundle } => {
            Evidence::SimpleSigning { payload, signature, certificate, chain, bundle }
        }
    }
}

/// Returns the source of a spec's bytes, as the rules of a policy select it.
pub fn source(bytecode: &Bytecode, image: Option<&RevisionImage>) -> Result<(SourceType, Source), Refusal> {
    Ok(match (bytecode, image) {
        (_, Some(RevisionImage { reference, digest })) => {
            let reference: Reference = reference.parse().map_err(|error| invalid_reference(&error))?;
            let source = Source::Image { repository: reference.name(), digest: digest.clone() };
            (SourceType::Image, source)
        }
        (Bytecode { builtin: Some(builtin), .. }, None) => {
            (SourceType::Builtin, Source::Builtin { name: builtin.to_string() })
        }
        (Bytecode { config_map_ref: Some(_), .. }, None) => (SourceType::ConfigMap, Source::ConfigMap),
        _ => (SourceType::Inline, Source::Inline),
    })
}

/// Returns the refusal of a reference that is none.
pub fn invalid_reference(error: &sockeye_image::Error) -> Refusal {
    Refusal { reason: Reason::InvalidSpec, message: format!("spec.bytecode.image.reference: {error}") }
}
