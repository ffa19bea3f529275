//! [`Format`]: the kinds of images that hold an ELF object, told by the manifest alone. IO: none.
//!
//! Each node decides the same again from the stored manifest, so nothing else counts: not a tag, not a header of the
//! registry, not the configuration.
//!
//! | format | told by | the layer |
//! |---|---|---|
//! | [`Artifact`](Format::Artifact) | one layer of [`OBJECT`] | the object |
//! | [`InspektorGadget`](Format::InspektorGadget) | one layer of [`GADGET_OBJECT`] | the object |
//! | [`Bpfman`](Format::Bpfman) | the configuration of a container image, and one layer | tar+gzip, with one object |

use crate::{
    Digest, Limits,
    error::Error,
    manifest::{Descriptor, Manifest},
};

/// The media type of the layer that is an ELF object, in artifacts of sockeye's own.
pub const OBJECT: &str = "application/vnd.sockeye.bpf.object.v1";
/// The artifact type of sockeye's own artifacts. It is for people and registries; the layer's type decides.
pub const ARTIFACT: &str = "application/vnd.sockeye.bpf.v1";
/// The media type of a gadget's eBPF layer (Inspektor Gadget, pkg/oci/build.go, `eBPFObjectMediaType`).
pub const GADGET_OBJECT: &str = "application/vnd.gadget.ebpf.program.v1+binary";

/// The configurations of container images, of OCI (config.md) and Docker.
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// The layers that bpfman's specification allows (docs/developer-guide/shipping-bytecode.md, "Image Layers").
const TAR_GZIP: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"];

/// The kinds of images that hold an ELF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// An OCI artifact of sockeye's own: a layer that is the object.
    Artifact,
    /// A container image as bpfman's specification has it: one packed layer, and labels `io.ebpf.*`.
    Bpfman,
    /// A gadget: a layer that is the object, beside others.
    InspektorGadget,
}

impl Format {
    /// Returns whether the layer is an archive with the object in it, and not the object.
    pub fn is_packed(self) -> bool {
        matches!(self, Self::Bpfman)
    }
}

/// The layer that has the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLayer {
    /// The format of the image.
    pub format: Format,
    /// The layer's digest.
    pub digest: Digest,
    /// The layer as the manifest describes it.
    pub descriptor: Descriptor,
}

impl ObjectLayer {
    /// Finds the layer that has the object.
    ///
    /// # Errors
    /// Fails where no layer has one, several may, or the layer is too large.
    pub fn of(manifest: &Manifest, limits: &Limits) -> Result<Self, Error> {
        let (format, layer) = choose(manifest)?;
        let limit = if format.is_packed() { limits.layer } else { limits.object };
        let digest = layer.digest()?;
        if layer.size > limit {
            let what = format!("the {} {digest}", if format.is_packed() { "layer" } else { "object" });
            return Err(Error::TooLarge { what, size: Some(layer.size), limit });
        }
        Ok(Self { format, digest, descriptor: layer.clone() })
    }
}

fn choose(manifest: &Manifest) -> Result<(Format, &Descriptor), Error> {
    let of_type = |format, media_type| {
        manifest.layers.iter().filter(move |layer| layer.media_type == media_type).map(move |layer| (format, layer))
    };
    let objects: Vec<_> =
        of_type(Format::Artifact, OBJECT).chain(of_type(Format::InspektorGadget, GADGET_OBJECT)).collect();
    match (objects.as_slice(), manifest.layers.as_slice()) {
        ([object], _) => Ok(*object),
        ([], [layer]) if CONFIGS.contains(&manifest.config.media_type.as_str()) => {
            if TAR_GZIP.contains(&layer.media_type.as_str()) {
                return Ok((Format::Bpfman, layer));
            }
            let layers = manifest.layer_types();
            Err(Error::Format(format!("its layer is {layers}; the layer of a container image has to be tar+gzip")))
        }
        ([], layers) if CONFIGS.contains(&manifest.config.media_type.as_str()) => {
            Err(Error::Format(format!("it is a container image with {} layers, and has to have one", layers.len())))
        }
        ([], _) => Err(Error::Format(format!(
            "its layers are {}; push the object as `oras push REFERENCE --artifact-type {ARTIFACT} FILE:{OBJECT}`",
            manifest.layer_types()
        ))),
        (several, _) => {
            Err(Error::Format(format!("{} of its layers are objects; an image has one object", several.len())))
        }
    }
}
