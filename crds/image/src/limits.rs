//! [`Limits`]: bounds of what is read. IO: none.

const MIB: u64 = 1 << 20;

/// The most bytes of a packed layer that is kept as it was served, and so of one that the proof of an object can have.
pub const MAX_KEPT_LAYER: u64 = 4 * MIB;

/// Bounds the bytes of each part of an image. A part that has more is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A manifest or an index. The distribution specification has registries take 4 MiB at least (spec.md, "Pushing
    /// Manifests"), and none takes more.
    pub manifest: u64,
    /// A packed layer.
    ///
    /// An object has a MiB at most. A container image may hold more than its object, such as what else the build's
    /// folder had, and is read until the object is found and the digest is known. A layer is unpacked as it arrives,
    /// so this bounds time and not memory.
    pub layer: u64,
    /// A packed layer that is kept as it was served. etcd takes requests of 1.5 MiB, and the layer is stored in parts.
    pub kept_layer: u64,
    /// A layer once it is unpacked. A MiB of gzip can unpack to a GiB.
    pub unpacked: u64,
    /// The entries of a layer, links and folders among them.
    pub entries: u32,
    /// An ELF object.
    pub object: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest: 4 * MIB,
            layer: 64 * MIB,
            kept_layer: MAX_KEPT_LAYER,
            unpacked: 128 * MIB,
            entries: 4096,
            object: MIB,
        }
    }
}
