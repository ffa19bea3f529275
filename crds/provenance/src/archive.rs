//! [`Archive`]: the proof of one object, and its form as stored bytes. IO: none.
//!
//! The form is one line of JSON, with the signatures and the sizes of what follows, and then the bytes of the index,
//! the manifest and the layer. It is cut into parts, each of which is stored under its digest as an object is.

use serde::{Deserialize, Serialize};
use sockeye_signature::Evidence;

/// The version of the form that this code writes and reads.
const VERSION: u32 = 1;
/// The most bytes of a part. etcd takes requests of 1.5 MiB, and base64 makes four bytes of three.
pub const MAX_PART_BYTES: usize = 512 << 10;
/// The most parts: a layer, an index, a manifest, and signatures.
pub const MAX_PARTS: usize = 16;
/// The most bytes of all parts.
const MAX_BYTES: usize = MAX_PARTS * MAX_PART_BYTES;

/// The proof of who signed an object. Nothing in it is trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    /// The image index as served, if the image is one's.
    pub index: Option<Vec<u8>>,
    /// The image manifest as served. Empty if the object comes from no image.
    pub manifest: Vec<u8>,
    /// The layer as served, if the object is packed in it.
    pub layer: Option<Vec<u8>>,
    /// Signatures, and whatever else came with the object.
    pub evidence: Vec<Evidence>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    index: Option<usize>,
    manifest: usize,
    layer: Option<usize>,
    evidence: Vec<Evidence>,
}

/// Parts are no archive, or an archive is too large for its parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is more than fits into the parts.
    #[error("the signatures and manifests have {0} bytes; sockeye stores {max} at most", max = MAX_BYTES)]
    TooLarge(usize),
    /// The bytes have another form.
    #[error("the stored proof is damaged: {0}")]
    Damaged(String),
}

impl Archive {
    /// Returns the archive in parts. One that holds nothing has none.
    pub fn encode(&self) -> Result<Vec<Vec<u8>>, Error> {
        if *self == Self::default() {
            return Ok(Vec::new());
        }
        let Self { index, manifest, layer, evidence } = self;
        let header = Header {
            version: VERSION,
            index: index.as_ref().map(Vec::len),
            manifest: manifest.len(),
            layer: layer.as_ref().map(Vec::len),
            evidence: evidence.clone(),
        };
        let mut bytes = serde_json::to_vec(&header).map_err(|error| Error::Damaged(error.to_string()))?;
        bytes.push(b'\n');
        for blob in [index.as_deref(), Some(manifest.as_slice()), layer.as_deref()].into_iter().flatten() {
            bytes.extend_from_slice(blob);
        }
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLarge(bytes.len()));
        }
        Ok(bytes.chunks(MAX_PART_BYTES).map(<[u8]>::to_vec).collect())
    }

    /// Reads an archive from its parts, in order. No parts are an empty archive.
    pub fn decode<P: AsRef<[u8]>>(parts: &[P]) -> Result<Self, Error> {
        let size: usize = parts.iter().map(|part| part.as_ref().len()).sum();
        if parts.len() > MAX_PARTS || size > MAX_BYTES {
            return Err(Error::TooLarge(size));
        }
        if parts.is_empty() {
            return Ok(Self::default());
        }
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.as_ref()).copied().collect();
        let damaged = |why: &str| Error::Damaged(why.to_owned());
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it has no first line"))?;
        let header: Header =
            serde_json::from_slice(&bytes[..end]).map_err(|error| Error::Damaged(error.to_string()))?;
        if header.version != VERSION {
            return Err(Error::Damaged(format!("its form has version {}, not {VERSION}", header.version)));
        }
        let mut rest = &bytes[end + 1..];
        let mut take = |size: usize| {
            let (blob, others) = rest.split_at_checked(size).ok_or_else(|| damaged("it ends too early"))?;
            rest = others;
            Ok(blob.to_vec())
        };
        let index = header.index.map(&mut take).transpose()?;
        let manifest = take(header.manifest)?;
        let layer = header.layer.map(&mut take).transpose()?;
        if !rest.is_empty() {
            return Err(damaged("it goes on behind its end"));
        }
        Ok(Self { index, manifest, layer, evidence: header.evidence })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive() -> Archive {
        Archive {
            index: Some(b"{\"an\":\n\"index\"}".to_vec()),
            manifest: b"{}\n".to_vec(),
            layer: Some((0..MAX_PART_BYTES + 7).map(|n| (n * 31) as u8).collect()),
            evidence: vec![
                Evidence::Bundle(b"{\"a\": \"\xff\"}".to_vec()),
                Evidence::Detached { signature: vec![0, 10, 255], key_hint: Some("release".into()) },
                Evidence::SimpleSigning {
                    payload: b"p\n".to_vec(),
                    signature: "AA==".into(),
                    certificate: None,
                    chain: Some("c".into()),
                    bundle: None,
                },
            ],
        }
    }

    #[test]
    fn an_archive_is_read_as_it_is_written() {
        let parts = archive().encode().unwrap();
        assert_eq!(parts.len(), 2);
        assert!(parts.iter().all(|part| part.len() <= MAX_PART_BYTES));
        assert_eq!(Archive::decode(&parts), Ok(archive()));
        let only_signatures = Archive { evidence: archive().evidence, ..Archive::default() };
        assert_eq!(Archive::decode(&only_signatures.encode().unwrap()), Ok(only_signatures));
    }

    #[test]
    fn an_empty_archive_takes_no_part() {
        assert_eq!(Archive::default().encode(), Ok(vec![]));
        assert_eq!(Archive::decode::<&[u8]>(&[]), Ok(Archive::default()));
    }

    #[test]
    fn an_archive_that_does_not_fit_is_refused() {
        let large = Archive { layer: Some(vec![0; MAX_PARTS * MAX_PART_BYTES]), ..archive() };
        assert!(matches!(large.encode(), Err(Error::TooLarge(_))));
        let parts = vec![vec![b'{'; MAX_PART_BYTES]; MAX_PARTS + 1];
        assert!(matches!(Archive::decode(&parts), Err(Error::TooLarge(_))));
    }

    #[test]
    fn another_form_is_refused_with_the_cause() {
        let line = |text: &str| Archive::decode(&[text.as_bytes()]).unwrap_err().to_string();
        assert!(line("{}").contains("no first line"));
        assert!(line("{}\n").contains("missing field"));
        let header = |version, manifest| format!("{{\"version\":{version},\"manifest\":{manifest},\"evidence\":[]}}\n");
        assert!(line(&header(2, 0)).contains("version 2"));
        assert!(line(&header(1, 9)).contains("too early"));
        assert!(line(&header(1, usize::MAX)).contains("too early"));
        assert!(line(&(header(1, 0) + "x")).contains("behind its end"));
    }

    proptest! {
        #[test]
        fn damaged_parts_are_an_error_or_another_archive(at in 0usize..600, byte in any::<u8>()) {
            let mut parts = archive().encode().unwrap();
            parts[0][at] = byte;
            if let Ok(read) = Archive::decode(&parts) {
                prop_assert_eq!(Archive::decode(&read.encode().unwrap()), Ok(read));
            }
        }
    }
}
