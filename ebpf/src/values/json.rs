//! `Json`: what the text of a composite value says. No IO.
//!
//! serde_json's own type takes the last of two fields of one name and rounds large integers, both in silence.

use std::{collections::BTreeMap, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use sockeye_crds::{Value, names::printable};

/// The maximum depth of nested lists and objects.
pub(crate) const MAX_LEVELS: usize = 16;
/// The way to write an integer that JSON readers round.
pub(crate) const AS_TEXT: &str = ": write an integer beyond 64 bits as text, in quotes";

/// A value, also within another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// An integer of at most 64 bits.
    Integer(i128),
    /// A number with a fraction or an exponent, or a rounded integer.
    Real(f64),
    Text(String),
    List(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

impl Json {
    /// Parses a text that holds one value and nothing else. An error says the line and the column.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let json = Level(0).deserialize(&mut reader).and_then(|json| reader.end().map(|()| json));
        json.map_err(|error| {
            let error = error.to_string();
            let hint = if error.starts_with("number out of range") { AS_TEXT } else { "" };
            format!("{error}{hint}")
        })
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        match value {
            Value::Integer(integer) => Self::Integer((*integer).into()),
            Value::Text(text) => Self::Text(text.clone()),
        }
    }
}

/// Reads a value that is within so many lists and objects.
struct Level(usize);

impl Level {
    /// Returns the level of what a list or an object holds.
    fn deeper<E: Error>(self) -> Result<usize, E> {
        let too_deep = || E::custom(format!("lists and objects are nested deeper than {MAX_LEVELS}"));
        if self.0 < MAX_LEVELS { Ok(self.0 + 1) } else { Err(too_deep()) }
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Json, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Json, E> {
        Ok(Json::Bool(on))
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<Json, E> {
        Ok(Json::Integer(integer.into()))
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<Json, E> {
        Ok(Json::Integer(integer.into()))
    }

    fn visit_f64<E: Error>(self, real: f64) -> Result<Json, E> {
        Ok(Json::Real(real))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let level = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Level(level))? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
        let level = self.deeper()?;
        let mut object = BTreeMap::new();
        while let Some(name) = fields.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("field {} is there twice", printable(&name))));
            }
            object.insert(name, fields.next_value_seed(Level(level))?);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_json_is_read_as_it_is_written() {
        let object = [("a", Json::Null), ("b", Json::Bool(true)), ("c", Json::Text("é\n".to_owned()))];
        let object = object.map(|(name, value)| (name.to_owned(), value)).into();
        let numbers = vec![Json::Integer(i64::MIN.into()), Json::Integer(u64::MAX.into()), Json::Real(-1.5)];
        assert_eq!(
            Json::parse(" [-9223372036854775808, 18446744073709551615, -1.5]\n").as_ref(),
            Ok(&Json::List(numbers))
        );
        assert_eq!(Json::parse(r#"{"b": true, "a": null, "c": "\u00e9\n"}"#), Ok(Json::Object(object)));
    }

    #[test]
    fn lists_and_objects_are_nested_no_deeper_than_the_limit() {
        let lists = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        for nested in [lists, objects] {
            assert!(Json::parse(&nested(MAX_LEVELS)).is_ok());
            let error = Json::parse(&nested(MAX_LEVELS + 1)).unwrap_err();
            assert!(error.starts_with("lists and objects are nested deeper than 16 at line 1 column "), "{error}");
        }
        // No recursion follows the text, closed or not.
        for open in ["[", "{\"a\":", "[{\"a\":"] {
            assert!(Json::parse(&open.repeat(1 << 20)).unwrap_err().contains("nested deeper"));
        }
    }

    #[test]
    fn each_fault_is_refused_with_its_line_and_column() {
        for (text, fault) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\"a\": 1", "EOF while parsing an object at line 1 column 7"),
            ("{\n  a: 1}", "key must be a string at line 2 column 3"),
            ("[1, 2] x", "trailing characters at line 1 column 8"),
            ("{}{}", "trailing characters at line 1 column 3"),
            ("[1,]", "trailing comma at line 1 column 4"),
            ("[01]", "invalid number at line 1 column 3"),
            ("[NaN]", "expected value at line 1 column 2"),
            ("\"\u{1}\"", "control character (\\u0000-\\u001F) found while parsing a string at line 1 column 2"),
            ("\"\\ud800\"", "unexpected end of hex escape at line 1 column 8"),
            ("{\"a\": 1,\n \"a\": 1}", "field \"a\" is there twice at line 2 column "),
            ("{\"a\": 1, \"\\u0061\": 2}", "field \"a\" is there twice at line 1 column "),
            ("[{\"\u{1b}é\": 1, \"\u{1b}é\": 1}]", "control character"),
            ("{\"\\u001bé\": 1, \"\\u001bé\": 1}", "field \"?é\" is there twice at line 1 column "),
        ] {
            let error = Json::parse(text).unwrap_err();
            assert!(error.starts_with(fault), "{text}: {error}");
        }
        let huge = Json::parse(&format!("[{}]", "9".repeat(400))).unwrap_err();
        assert!(huge.starts_with("number out of range at line 1 column ") && huge.ends_with(AS_TEXT), "{huge}");
    }
}
