//! [`Packed`]: an image that holds an ELF object, ready to be pushed. The same object gives the same bytes. IO: none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    Digest,
    format::{ARTIFACT, OBJECT},
    manifest::OCI_MANIFEST,
    pack,
};

/// The configuration of an artifact that has none (OCI image specification, manifest.md, "Guidance for an Empty
/// Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The configuration and the layer of a container image.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image, ready to be pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The blobs, which have to be there before the manifest.
    pub blobs: Vec<Vec<u8>>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

impl Packed {
    /// The media type of the manifest.
    pub const MEDIA_TYPE: &'static str = OCI_MANIFEST;

    /// Returns an artifact of sockeye's own, as `oras push` makes it; `name` is the file's.
    pub fn artifact(object: &[u8], name: &str) -> Self {
        let config = b"{}".to_vec();
        let mut layer = descriptor(OBJECT, object);
        layer["annotations"] = json!({"org.opencontainers.image.title": name});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": ARTIFACT,
            "config": descriptor(EMPTY, &config),
            "layers": [layer],
        });
        Self { blobs: vec![config, object.to_vec()], manifest: manifest.to_string().into_bytes() }
    }

    /// Returns a container image as bpfman's specification has it: one packed layer with the object, and labels
    /// `io.ebpf.*` (docs/developer-guide/shipping-bytecode.md). BPF is the same for all little-endian processors; a
    /// container image has to name one.
    pub fn bpfman(object: &[u8], name: &str, labels: &BTreeMap<String, String>) -> Self {
        // A name in an ustar header has 100 bytes, and no folder of a stranger's machine belongs there.
        let name = if name.len() <= 100 && !name.contains('/') { name } else { "object.bpf.o" };
        let archive = pack::tar(&[pack::entry(b'0', name, object)]);
        let layer = pack::gzip(&archive);
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&archive)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(TAR_GZIP, &layer)],
        });
        Self { blobs: vec![config, layer], manifest: manifest.to_string().into_bytes() }
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Format, Limits, chain, fixtures,
        format::ObjectLayer,
        layer::{Extracted, Extractor},
        manifest::Document,
    };

    /// Reads an image back as nodes do.
    fn read(packed: &Packed) -> (Format, Vec<u8>) {
        let limits = Limits::default();
        let digest = Digest::of(&packed.manifest);
        let Ok(Document::Manifest(manifest)) = chain::read_document(&digest, &packed.manifest, &limits) else {
            panic!("no manifest");
        };
        let layer = ObjectLayer::of(&manifest, &limits).unwrap();
        let blob = packed.blobs.iter().find(|blob| Digest::of(blob) == layer.digest).unwrap();
        let format = layer.format;
        let mut extractor = Extractor::new(layer, &limits);
        extractor.push(blob).unwrap();
        let Extracted { object, .. } = extractor.finish().unwrap();
        (format, object)
    }

    #[test]
    fn what_is_packed_is_read_back() {
        let object = fixtures::object(b"guard");
        let labels = [("io.ebpf.programs".to_owned(), "{}".to_owned())].into();
        assert_eq!(read(&Packed::artifact(&object, "guard.bpf.o")), (Format::Artifact, object.clone()));
        for name in ["guard.bpf.o", "/etc/passwd", &"x".repeat(101)] {
            assert_eq!(read(&Packed::bpfman(&object, name, &labels)), (Format::Bpfman, object.clone()));
        }
    }
}
