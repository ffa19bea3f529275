//! [`Extractor`]: takes the object out of a layer as the layer arrives. IO: none.
//!
//! Memory is bounded by the object, the part of the layer that is kept, and 64 KiB for unpacking.

use crate::{Error, Hasher, Limits, error::shown, format::ObjectLayer, gzip::Gzip, tar::Tar};

/// A layer's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// The layer as it was served, unless it is larger than is kept.
    pub layer: Option<Vec<u8>>,
    /// The ELF object.
    pub object: Vec<u8>,
}

/// Takes the object out of a layer.
pub struct Extractor {
    layer: ObjectLayer,
    what: String,
    limits: Limits,
    hasher: Hasher,
    received: u64,
    /// The layer, while it is not larger than is kept.
    kept: Option<Vec<u8>>,
    unpacker: Option<Box<Unpacker>>,
    /// The fault in the layer's content. A wrong digest says more, so that is found out first.
    problem: Option<Error>,
}

struct Unpacker {
    gzip: Gzip,
    tar: Tar,
    unpacked: u64,
}

impl Extractor {
    /// Returns one for this layer.
    pub fn new(layer: ObjectLayer, limits: &Limits) -> Self {
        let unpacker = Unpacker { gzip: Gzip::default(), tar: Tar::new(limits.object, limits.entries), unpacked: 0 };
        Self {
            what: format!("the layer {}", layer.digest),
            unpacker: layer.format.is_packed().then(|| Box::new(unpacker)),
            layer,
            limits: *limits,
            hasher: Hasher::default(),
            received: 0,
            kept: Some(Vec::new()),
            problem: None,
        }
    }

    /// Handles more of the layer.
    ///
    /// # Errors
    /// Fails where more arrives than the manifest says.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.received += bytes.len() as u64;
        let expected = self.layer.descriptor.size;
        if self.received > expected {
            return Err(Error::WrongSize { what: self.what.clone(), expected, actual: self.received });
        }
        self.hasher.update(bytes);
        match &mut self.kept {
            Some(_) if self.received > self.limits.kept_layer.max(self.limits.object) => self.kept = None,
            Some(kept) => kept.extend_from_slice(bytes),
            None => {}
        }
        if let (Some(unpacker), None) = (&mut self.unpacker, &self.problem) {
            self.problem = unpacker.push(bytes, self.limits.unpacked).err().map(|problem| self.layer_error(problem));
        }
        Ok(())
    }

    /// Returns the object of a layer that has arrived whole.
    ///
    /// # Errors
    /// Fails where the digest or the size is another one than the manifest's, and where the layer has no object.
    pub fn finish(self) -> Result<Extracted, Error> {
        self.layer.descriptor.check_digest(&self.what, self.received, self.hasher.clone().finish())?;
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let digest = self.layer.digest;
        let wrong = |problem| Error::Layer { digest: digest.to_string(), problem };
        let Some(unpacker) = self.unpacker else {
            // Objects are not larger than what is kept.
            let object = self.kept.unwrap_or_default();
            return match object.starts_with(b"\x7fELF") {
                true => Ok(Extracted { layer: Some(object.clone()), object }),
                false => Err(wrong(format!("is no ELF object: it begins with \"{}\"", beginning(&object)))),
            };
        };
        unpacker.gzip.finish().map_err(|problem| wrong(problem.to_owned()))?;
        let object = unpacker.tar.finish().map_err(wrong)?;
        let layer = self.kept.filter(|kept| kept.len() as u64 <= self.limits.kept_layer);
        Ok(Extracted { layer, object })
    }

    fn layer_error(&self, problem: String) -> Error {
        Error::Layer { digest: self.layer.digest.to_string(), problem }
    }
}

fn beginning(object: &[u8]) -> String {
    shown(&String::from_utf8_lossy(object.get(..object.len().min(16)).unwrap_or_default()))
}

impl Unpacker {
    fn push(&mut self, bytes: &[u8], limit: u64) -> Result<(), String> {
        let Self { gzip, tar, unpacked } = self;
        gzip.push(bytes, &mut |piece: &[u8]| {
            *unpacked += piece.len() as u64;
            if *unpacked > limit {
                return Err(Problem(format!("unpacks to more than {limit} bytes, the most that sockeye takes")));
            }
            tar.push(piece).map_err(Problem)
        })
        .map_err(|Problem(problem)| problem)
    }
}

struct Problem(String);

impl From<&'static str> for Problem {
    fn from(problem: &'static str) -> Self {
        Self(problem.to_owned())
    }
}
