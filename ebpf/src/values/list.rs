//! Lists of entries as text: one entry a line, each a JSON object as in `maps[].entries`, or the shorter list of a key
//! and a value. No IO.
//!
//! ```text
//! # who may be reached
//! {"key": "10.0.0.0/8", "value": 1}
//! ["192.0.2.7/32", 1]
//! ```

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use sockeye_crds::{Value, names::line, program::Entry};

use crate::values::mistake::Mistake;

/// The maximum number of entries in a list.
pub const MAX_ENTRIES: usize = 65_536;
/// The maximum size of a list in bytes, which is that of a ConfigMap.
pub const MAX_BYTES: usize = 1 << 20;

/// The texts of the lists that `maps[].entriesFrom` names, by map. They are not yet checked against their digests.
pub type Lists = BTreeMap<String, Arc<[u8]>>;

/// One line. A field of another name would be lost in silence.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Option<Value>,
    value: Value,
}

/// Reads a list; each entry comes with the number of its line.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<(usize, Entry)>, Mistake> {
    if bytes.len() > MAX_BYTES {
        return Err(Mistake::new(format!("the list has {} bytes; it may have {MAX_BYTES}", bytes.len())));
    }
    let text = str::from_utf8(bytes).map_err(|error| Mistake::new(format!("the list is not UTF-8: {error}")))?;
    let lines = text.lines().enumerate().map(|(i, text)| (i + 1, text.trim()));
    let mut entries = Vec::new();
    for (number, text) in lines.filter(|(_, text)| !(text.is_empty() || text.starts_with('#'))) {
        if entries.len() >= MAX_ENTRIES {
            return Err(Mistake::new(format!("the list has more than {MAX_ENTRIES} entries")));
        }
        let Line { key, value } = serde_json::from_str(text).map_err(|error| {
            let error = line(&error.to_string(), 200);
            let what = format!("expected an entry as {{\"key\": 1, \"value\": 2}}: {error}");
            Mistake::new(what).within(&format!("[line {number}]"))
        })?;
        entries.push((number, Entry { key, value }));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_entry_and_comments_are_skipped() {
        let text = "# list\n\n{\"key\": \"10.0.0.0/8\", \"value\": 1}\r\n  {\"value\": \"x\"}\n[7, \"y\"]";
        let entries = parse(text.as_bytes()).unwrap();
        let lines: Vec<usize> = entries.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 4, 5]);
        assert_eq!(entries[0].1, Entry { key: Some("10.0.0.0/8".into()), value: 1.into() });
        assert_eq!(entries[1].1.key, None);
        assert_eq!(entries[2].1, Entry { key: Some(7.into()), value: "y".into() });
    }

    #[test]
    fn a_mistake_names_the_line() {
        for (text, at) in [
            ("{\"value\": 1}\n{\"key\": 1}", "[line 2]"),
            ("{\"value\": 1, \"vlaue\": 2}", "[line 1]"),
            ("[1, 2, 3]", "[line 1]"),
            ("{\"key\": 1.5, \"value\": 1}", "[line 1]"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().at, at, "{text}");
        }
        assert!(parse(&[0xff]).unwrap_err().what.contains("UTF-8"));
        let long = "{\"value\":1}\n".repeat(MAX_ENTRIES + 1);
        assert!(parse(long.as_bytes()).unwrap_err().what.contains("65536"));
        assert!(parse(&vec![b'\n'; MAX_BYTES + 1]).unwrap_err().what.contains("1048576"));
    }
}
