//! Images for tests: archives, layers, manifests and indexes, as tools build them. IO: none.

use serde_json::{Value, json};

pub use crate::pack::{entry, entry_of_size, gzip, tar};
use crate::{
    Digest,
    format::{ARTIFACT, GADGET_OBJECT, OBJECT},
    manifest::{OCI_INDEX, OCI_MANIFEST},
};

/// The configuration of a container image.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The layer of a container image.
pub const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Returns bytes that begin as an ELF object for BPF does, of which the rest is `filling`.
pub fn object(filling: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\xf7\0".to_vec();
    bytes.extend_from_slice(filling);
    bytes
}

/// Returns a pax record for the entry that follows.
pub fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len();
    // The length counts its own digits.
    while len != rest.len() + len.to_string().len() {
        len = rest.len() + len.to_string().len();
    }
    entry(b'x', "pax", format!("{len}{rest}").as_bytes())
}

/// Describes bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

/// Returns a manifest of these layers, each with its type.
pub fn manifest(config: (&str, &[u8]), layers: &[(&str, &[u8])]) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|(media_type, bytes)| descriptor(media_type, bytes)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config.0, config.1),
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

/// Returns an artifact of sockeye's own.
pub fn artifact(object: &[u8]) -> Vec<u8> {
    manifest((ARTIFACT, b"{}"), &[(OBJECT, object)])
}

/// Returns a gadget, which has metadata for a configuration and a program in WebAssembly beside the object.
pub fn gadget(object: &[u8]) -> Vec<u8> {
    let wasm: (&str, &[u8]) = ("application/vnd.gadget.wasm.program.v1+binary", b"\0asm");
    manifest(("application/vnd.gadget.config.v1+yaml", b"name: x"), &[(GADGET_OBJECT, object), wasm])
}

/// Returns a configuration with labels of bpfman's.
pub fn bpfman_config() -> Vec<u8> {
    let labels = json!({"io.ebpf.programs": "{\"pass\":\"xdp\"}", "io.ebpf.maps": "{}"});
    json!({"architecture": "amd64", "os": "linux", "config": {"Labels": labels}}).to_string().into_bytes()
}

/// Returns an image of bpfman's whose layer these bytes are.
pub fn bpfman(layer: &[u8]) -> Vec<u8> {
    manifest((CONFIG, &bpfman_config()), &[(TAR_GZIP, layer)])
}

/// Returns an index of manifests, each with its platform, such as `linux/arm64`; of an empty one, without.
pub fn index(manifests: &[(&str, &[u8])]) -> Vec<u8> {
    let described = manifests.iter().map(|(platform, bytes)| {
        let mut described = descriptor(OCI_MANIFEST, bytes);
        if let (Some((os, architecture)), Some(fields)) = (platform.split_once('/'), described.as_object_mut()) {
            fields.insert("platform".to_owned(), json!({"os": os, "architecture": architecture}));
        }
        described
    });
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described.collect::<Vec<_>>()});
    index.to_string().into_bytes()
}
