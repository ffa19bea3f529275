//! A strict reader of JSON. Whoever reads a text after this one reads the same: no member occurs twice in an object,
//! and size and depth are bounded.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::encoding::from_base64;
use crate::text::quote;

/// The deepest nesting that is read. A bundle has six levels, and a statement as many.
const MAX_DEPTH: u8 = 24;

/// The most members and items of one text: each costs more memory than its few bytes of text.
const MAX_NODES: u32 = 16 * 1024;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, in the text's own digits or nearly so.
    Number(serde_json::Number),
    /// Text.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Object(BTreeMap<String, Json>),
}

/// Why a text can't be read, or lacks what is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is no JSON, or is not strict.
    #[error("it is not strict JSON: {0}")]
    Syntax(String),
    /// A member is missing.
    #[error("it has no `{0}`")]
    Missing(String),
    /// A member has no meaning there.
    #[error("`{0}` is no member of a bundle")]
    Unknown(String),
    /// A member has another type.
    #[error("`{path}` is not {expected}")]
    Type {
        /// The member.
        path: String,
        /// The expected type, with its article.
        expected: &'static str,
    },
}

/// Reads a text.
pub fn parse(text: &[u8]) -> Result<Json, JsonError> {
    let syntax = |error: serde_json::Error| JsonError::Syntax(error.to_string());
    let mut nodes = MAX_NODES;
    let mut from = serde_json::Deserializer::from_slice(text);
    let json = Reader { depth: MAX_DEPTH, nodes: &mut nodes }.deserialize(&mut from).map_err(syntax)?;
    from.end().map_err(syntax)?;
    Ok(json)
}

struct Reader<'n> {
    depth: u8,
    nodes: &'n mut u32,
}

impl Reader<'_> {
    fn inner<E: serde::de::Error>(&mut self) -> Result<Reader<'_>, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom(format!("more than {MAX_DEPTH} levels")))?;
        *self.nodes = self.nodes.checked_sub(1).ok_or_else(|| E::custom(format!("more than {MAX_NODES} values")))?;
        Ok(Reader { depth, nodes: self.nodes })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        serde_json::Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner()?)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Json, A::Error> {
        let mut object = BTreeMap::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("`{}` occurs twice", quote(&name))));
            }
            let value = members.next_value_seed(self.inner()?)?;
            object.insert(name, value);
        }
        Ok(Json::Object(object))
    }
}

/// A value and the path to it, for messages.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    path: String,
    json: &'a Json,
}

impl<'a> Node<'a> {
    /// The whole of a text.
    pub fn root(json: &'a Json) -> Self {
        Self { path: String::new(), json }
    }

    /// Returns a member of an object. A member that is null counts as absent, as in protobuf's JSON.
    pub fn get(&self, name: &str) -> Result<Option<Self>, JsonError> {
        let Json::Object(members) = self.json else { return Err(self.is_not("an object")) };
        let json = members.get(name).filter(|json| **json != Json::Null);
        Ok(json.map(|json| Self { path: self.member(name), json }))
    }

    /// Returns a member that must be there.
    pub fn require(&self, name: &str) -> Result<Self, JsonError> {
        self.get(name)?.ok_or_else(|| JsonError::Missing(self.member(name)))
    }

    /// Checks that an object has no other members than these, as protobuf's JSON does.
    pub fn only(&self, names: &[&str]) -> Result<(), JsonError> {
        let Json::Object(members) = self.json else { return Err(self.is_not("an object")) };
        match members.keys().find(|name| !names.contains(&name.as_str())) {
            Some(other) => Err(JsonError::Unknown(quote(&self.member(other)))),
            None => Ok(()),
        }
    }

    /// Returns the items of an array.
    pub fn items(&self) -> Result<impl Iterator<Item = Self> + use<'a>, JsonError> {
        let Json::List(list) = self.json else { return Err(self.is_not("an array")) };
        let path = self.path.clone();
        Ok(list.iter().enumerate().map(move |(at, json)| Self { path: format!("{path}[{at}]"), json }))
    }

    /// Returns a text.
    pub fn text(&self) -> Result<&'a str, JsonError> {
        let Json::Text(text) = self.json else { return Err(self.is_not("text")) };
        Ok(text)
    }

    /// Returns the bytes of a text in base64.
    pub fn base64(&self) -> Result<Vec<u8>, JsonError> {
        from_base64(self.text()?).ok_or_else(|| self.is_not("base64"))
    }

    /// An error that says what the value should be.
    pub fn is_not(&self, expected: &'static str) -> JsonError {
        JsonError::Type { path: self.path.clone(), expected }
    }

    fn member(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

#[cfg(test)]
mod tests;
