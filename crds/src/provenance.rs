//! [`Origin`]: where the bytes of a revision come from, and what proves it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Builtin, ObjectInfo, names};

/// The origin of the object of a revision, and the proof of it: the fields of a template of the same names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The image that the object comes from.
    pub image: Option<RevisionImage>,
    /// The objects for architectures, if they differ.
    pub variants: Vec<Variant>,
    /// What lets a node verify who signed the object.
    pub proof: Option<Proof>,
    /// Who signed the object.
    pub signed_by: Vec<SignedBy>,
    /// The objection of the policy, though it lets the object run. No field of a template.
    pub warning: Option<String>,
}

impl Origin {
    /// Returns the digests of the variants' objects and of the proofs' parts.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        digests(&self.variants, self.proof.as_ref())
    }
}

/// Returns the digests of the variants' objects and of the proofs' parts.
pub(crate) fn digests<'a>(variants: &'a [Variant], proof: Option<&'a Proof>) -> impl Iterator<Item = &'a str> {
    let objects = variants.iter().map(|variant| variant.digest.as_str());
    let proofs = variants.iter().flat_map(|variant| &variant.proof_digests);
    let proofs = proofs.chain(proof.into_iter().flat_map(|proof| &proof.digests));
    objects.chain(proofs.map(String::as_str))
}

/// The image that the object comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionImage {
    /// The reference, as the spec has it.
    #[schemars(length(min = 1, max = 512))]
    pub reference: String,
    /// The digest that the reference was resolved to: of an image manifest, or of an image index.
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: String,
}

/// The object for one architecture, of an image that has different ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Variant {
    /// The architecture of the nodes, in Go's words: amd64, arm64.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z0-9]+(/[a-z0-9]+)?$"))]
    pub architecture: String,
    /// The SHA-256 digest of the object's bytes.
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: String,
    /// The content of the object, as the operator read it.
    pub object: ObjectInfo,
    /// The digests of the stored parts of the proof, in order; as in `template.proof`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$")))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub proof_digests: Vec<String>,
}

/// What lets a node verify who signed the object. Present if the operator has a policy for signatures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// The source of the bytes, which the rules of a policy select.
    pub source: SourceType,
    /// The name of the builtin, if the source is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<Builtin>")]
    pub builtin: Option<Builtin>,
    /// The digests of the stored parts of the proof, in order: signatures, and for an image the manifest, the index and
    /// the layer. Each part is stored as an object's bytes are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$")))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub digests: Vec<String>,
}

/// The source of an object's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum SourceType {
    /// `bytecode.inline`.
    Inline,
    /// `bytecode.configMapRef`.
    ConfigMap,
    /// `bytecode.builtin`.
    Builtin,
    /// `bytecode.image`.
    Image,
}

/// Who signed an object. `type` names the one member that is present.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignedBy {
    /// The kind of signer.
    #[serde(rename = "type")]
    pub type_: SignerType,
    /// A public key of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<SignerKey>")]
    pub key: Option<SignerKey>,
    /// An identity that an OIDC issuer vouched for, in a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<SignerIdentity>")]
    pub identity: Option<SignerIdentity>,
}

/// The kind of signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum SignerType {
    /// A public key of the policy.
    Key,
    /// An identity in a certificate.
    Identity,
}

/// A public key of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignerKey {
    /// The key's name in the policy.
    #[schemars(length(max = 253))]
    pub hint: String,
}

/// An identity that an OIDC issuer vouched for, in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignerIdentity {
    /// The certificate's subject alternative name.
    #[schemars(length(max = 512))]
    pub subject: String,
    /// The OIDC issuer.
    #[schemars(length(max = 512))]
    pub issuer: String,
}

/// A list of signers has at most this many.
pub const MAX_SIGNERS: usize = 8;
/// The most bytes of a part of an identity.
const MAX_IDENTITY: usize = 512;

impl SignedBy {
    /// Returns the signer that a key of the policy stands for.
    pub fn key(hint: impl Into<String>) -> Self {
        Self { type_: SignerType::Key, key: Some(SignerKey { hint: hint.into() }), identity: None }
    }

    /// Returns the signer that a certificate names.
    pub fn identity(subject: &str, issuer: &str) -> Self {
        let part = |text: &str| names::line(text, MAX_IDENTITY);
        let identity = SignerIdentity { subject: part(subject), issuer: part(issuer) };
        Self { type_: SignerType::Identity, key: None, identity: Some(identity) }
    }
}
