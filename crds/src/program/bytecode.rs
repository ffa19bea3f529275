//! `Bytecode`: the source of the ELF object, and the signatures that come with it.

use std::borrow::Cow;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::config_map::ConfigMapKeyRef;
use crate::Builtin;

/// The source of the ELF object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.inline), has(self.configMapRef), has(self.builtin), has(self.image)]\
            .exists_one(given, given)")
        .message("exactly one of inline, configMapRef, image and builtin must be set"),
    // 174764 characters encode 131072 bytes with padding, and 131073 bytes without.
    validation = Rule::new("!has(self.inline) || self.inline.size() < 174764 || self.inline.endsWith('=')")
        .message("inline may hold 131072 bytes: put the object into a ConfigMap, or strip it (llvm-strip -g)")
        .field_path(".inline")
)]
pub struct Bytecode {
    /// The ELF object itself, in base64. Decoded, it has at most 128 KiB: `kubectl apply` keeps a second copy in an
    /// annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Not `format: byte`: a CEL rule beside it then decodes the value as URL-safe base64 and refuses every '/' and '+'.
    #[schemars(length(min = 1, max = 174764), regex(pattern = r"^[A-Za-z0-9+/\s]+={0,2}\s*$"))]
    pub inline: Option<String>,
    /// A ConfigMap in the namespace of sockeye that holds the object in its binaryData.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<ConfigMapKeyRef>")]
    pub config_map_ref: Option<ConfigMapKeyRef>,
    /// An image in an OCI registry that holds the object. The operator pulls it; nodes talk to no registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<ImageSource>")]
    pub image: Option<ImageSource>,
    /// The name of a program that ships with sockeye.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<Builtin>")]
    pub builtin: Option<Builtin>,
    /// Signatures of the object's bytes, whatever their source, or of the image's manifest. Those that the registry has
    /// beside the image count too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub signatures: Vec<Signature>,
}

/// The grammar of references of github.com/distribution/reference, but with a host that can't be left out.
const REFERENCE: &str = concat!(
    r"^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]+)?",
    r"(/[a-z0-9]+([._-]+[a-z0-9]+)*)+",
    r"(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@sha256:[0-9a-f]{64})?$"
);

/// An image in an OCI registry that holds the object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The reference: the registry's host, the repository, and a tag, a digest or both, as in
    /// `registry.example/team/guard:v1`. With neither, the tag is `latest`. A digest wins over a tag.
    #[schemars(
        length(min = 3, max = 512),
        regex(pattern = REFERENCE)
    )]
    pub reference: String,
    /// The time at which a tag is resolved: once, or again at intervals. If absent, IfNotPresent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<PullPolicy>")]
    pub pull_policy: Option<PullPolicy>,
    /// The credentials for the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::of::<PullSecretRef>")]
    pub pull_secret_ref: Option<PullSecretRef>,
}

/// The time at which a tag is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// A tag is resolved once for a BpfProgram, until its reference is edited.
    IfNotPresent,
    /// A tag is resolved again at intervals (the chart's `images.resolveInterval`). Other content is a new revision.
    Always,
}

/// The credentials for a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullSecretRef {
    /// The name of a Secret of type kubernetes.io/dockerconfigjson in the namespace of sockeye. Only those that the
    /// chart's `images.pullSecrets` lists can be used.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

impl ImageSource {
    /// Returns whether the tag is resolved again at intervals. A digest never means something else.
    pub fn follows_tag(&self) -> bool {
        self.pull_policy == Some(PullPolicy::Always) && !self.reference.contains('@')
    }
}

/// A signature of an object's bytes. In JSON, `type` names the one member that is present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", try_from = "Members")]
pub enum Signature {
    /// A sigstore bundle.
    Bundle {
        /// The bundle's JSON text.
        bundle: String,
    },
    /// A signature alone.
    Detached {
        /// The signature.
        detached: DetachedSignature,
    },
}

/// A signature alone, by a public key that the policy lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DetachedSignature {
    /// The signature, in base64, as `cosign sign-blob` prints it.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^[A-Za-z0-9+/\s]+={0,2}\s*$"))]
    pub signature: String,
    /// The name of the key, as the policy lists it. If absent, every key is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key_hint: Option<String>,
}

impl JsonSchema for Signature {
    fn schema_name() -> Cow<'static, str> {
        "Signature".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Members::json_schema(generator)
    }
}

impl TryFrom<Members> for Signature {
    type Error = &'static str;

    fn try_from(Members { type_, bundle, detached }: Members) -> Result<Self, Self::Error> {
        match (type_, bundle, detached) {
            (SignatureType::Bundle, Some(bundle), None) => Ok(Self::Bundle { bundle }),
            (SignatureType::Detached, None, Some(detached)) => Ok(Self::Detached { detached }),
            _ => Err("of bundle and detached, only the one that type names must be set"),
        }
    }
}

// `Signature` is read from it, and has its schema, as `AttachTarget` has.
/// A signature of an object's bytes. `type` names the one member that is present.
#[derive(Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.type == 'Bundle') == has(self.bundle)")
        .message("bundle must be set with type Bundle, and with no other type").field_path(".bundle"),
    validation = Rule::new("(self.type == 'Detached') == has(self.detached)")
        .message("detached must be set with type Detached, and with no other type").field_path(".detached")
)]
struct Members {
    /// The kind of signature. The member of the same name is present.
    #[serde(rename = "type")]
    type_: SignatureType,
    /// A sigstore bundle, as `cosign sign-blob --bundle` writes it.
    #[schemars(length(min = 2, max = 32768))]
    bundle: Option<String>,
    /// A signature alone, by a public key that the policy lists.
    detached: Option<DetachedSignature>,
}

/// The kinds of [`Signature`].
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
enum SignatureType {
    /// A sigstore bundle.
    Bundle,
    /// A signature alone.
    Detached,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(signature: Value) -> Result<Signature, String> {
        serde_json::from_value(signature).map_err(|error| error.to_string())
    }

    #[test]
    fn a_signature_is_read_as_it_is_written() {
        let detached = DetachedSignature { signature: "AA==".into(), key_hint: Some("release".into()) };
        for signature in [Signature::Bundle { bundle: "{}".into() }, Signature::Detached { detached }] {
            assert_eq!(read(serde_json::to_value(&signature).unwrap()).as_ref(), Ok(&signature));
        }
    }

    #[test]
    fn a_signature_with_another_types_member_is_refused() {
        let detached = json!({"signature": "AA=="});
        for signature in [
            json!({"type": "Bundle"}),
            json!({"type": "Bundle", "detached": detached}),
            json!({"type": "Detached", "detached": detached, "bundle": "{}"}),
        ] {
            assert!(read(signature.clone()).unwrap_err().starts_with("of bundle and detached"), "{signature}");
        }
    }

    #[test]
    fn only_a_tag_is_followed() {
        let image = |reference: &str, pull_policy| ImageSource {
            reference: reference.to_owned(),
            pull_policy,
            ..ImageSource::default()
        };
        assert!(image("r.example/a:v1", Some(PullPolicy::Always)).follows_tag());
        assert!(!image("r.example/a:v1", Some(PullPolicy::IfNotPresent)).follows_tag());
        assert!(!image("r.example/a:v1", None).follows_tag());
        assert!(!image(&format!("r.example/a:v1@sha256:{:064}", 0), Some(PullPolicy::Always)).follows_tag());
    }
}
