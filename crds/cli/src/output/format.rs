//! [`Format`]: the choice of `-o`.

use std::str::FromStr;

use super::jsonpath::{self, Template};

/// The form of what a command prints.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// The values that a template takes from the JSON.
    JsonPath(Template),
    /// `KIND.GROUP/NAME` of each object.
    Name,
}

/// The text after `-o` is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It is none of the formats.
    #[error("{0:?} is no output format: table, wide, json, yaml, name or jsonpath=TEMPLATE")]
    Unknown(String),
    /// Its template can't be read.
    #[error(transparent)]
    JsonPath(#[from] jsonpath::ParseError),
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "table" => Ok(Self::Table),
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            _ => match text.strip_prefix("jsonpath=") {
                Some(template) => Ok(Self::JsonPath(template.parse()?)),
                None => Err(FormatError::Unknown(text.to_owned())),
            },
        }
    }
}

impl Format {
    /// Returns whether it is for people: columns, and not for programs.
    pub const fn is_table(&self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }

    /// Returns whether it has the further columns.
    pub const fn is_wide(&self) -> bool {
        matches!(self, Self::Wide)
    }
}
