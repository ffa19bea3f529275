//! [`Error`]: why bytes are not an image that sockeye can use. IO: none.

/// Says what is wrong with a reference or an image, and what to do about it. Nothing of this passes by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no reference.
    #[error("the reference {reference:?} {problem}")]
    Reference {
        /// The text, shortened.
        reference: String,
        /// The mistake, and the text to write instead.
        problem: String,
    },
    /// The text is no SHA-256 digest.
    #[error("{0:?} is no digest that can be checked here: write sha256: and 64 hexadecimal digits in lower case")]
    Digest(String),
    /// Something is larger than sockeye takes.
    #[error("{what} is too large: it has {} bytes, and sockeye takes {limit} at most", size_text(*.size, *.limit))]
    TooLarge {
        /// The part that is too large.
        what: String,
        /// Its size, if it is known.
        size: Option<u64>,
        /// The largest that is taken.
        limit: u64,
    },
    /// The bytes are others than those that were asked for.
    #[error("{what} should have the digest {expected}, and has {actual}: the registry or the store has changed it")]
    WrongDigest {
        /// The part that was asked for.
        what: String,
        /// Its digest, as the reference, index or manifest has it.
        expected: String,
        /// The digest of the bytes.
        actual: String,
    },
    /// The bytes are more or fewer than the descriptor says.
    #[error("{what} should have {expected} bytes, and has {actual}")]
    WrongSize {
        /// The part that was asked for.
        what: String,
        /// Its size, as the manifest or index has it.
        expected: u64,
        /// The number of bytes.
        actual: u64,
    },
    /// A manifest or index can't be read.
    #[error("{what} is no image manifest or index that sockeye reads: {problem}")]
    Manifest {
        /// Which one.
        what: String,
        /// The problem, in words.
        problem: String,
    },
    /// The image is of none of the formats, or of several.
    #[error("the image is of no format that sockeye knows (docs/images.md): {0}")]
    Format(String),
    /// An index has no image for the processors.
    #[error("the image index has nothing for linux on {wanted}; it has {present}")]
    Architecture {
        /// The architectures that were asked for.
        wanted: String,
        /// Those that the index has.
        present: String,
    },
    /// A layer can't be unpacked, or it has no object.
    #[error("the layer {digest} {problem}")]
    Layer {
        /// The layer's digest, as the manifest has it.
        digest: String,
        /// The problem, in words.
        problem: String,
    },
}

fn size_text(size: Option<u64>, limit: u64) -> String {
    size.map_or_else(|| format!("more than {limit}"), |size| size.to_string())
}

/// The longest piece of foreign text in a message.
const SHOWN: usize = 128;

/// Returns a stranger's text as it can be shown: short, in one line, without control characters.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
