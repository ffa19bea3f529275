//! [`Architecture`]: a processor architecture, by Go's name. IO: none.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, shown};

/// A processor architecture by Go's name (GOARCH), which image indexes and Nodes use: `amd64`, `arm64`.
///
/// The empty name stands for any: that of an image which is no part of an index, or of an index's entry without a
/// platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Architecture(String);

impl Architecture {
    /// The longest name that is taken.
    const MAX: usize = 32;

    /// Returns the name that stands for any architecture.
    pub fn any() -> Self {
        Self::default()
    }

    /// Returns those that sockeye's agent is built for.
    pub fn supported() -> [Self; 2] {
        ["amd64", "arm64"].map(|name| Self(name.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this stands for any architecture.
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Architecture {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if text.len() > Self::MAX || !text.bytes().all(is_letter) {
            return Err(Error::Format(format!("\"{}\" is no name of an architecture, as amd64 is", shown(text))));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Architecture {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Architecture> for String {
    fn from(architecture: Architecture) -> Self {
        architecture.0
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_any() { "any architecture" } else { &self.0 })
    }
}
