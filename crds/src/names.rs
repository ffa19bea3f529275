//! Names: labels, the finalizer, names derived from others, names that may become paths, and text that is safe to show.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

/// The API group.
pub const GROUP: &str = "sockeye.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// The finalizer that the operator puts on a BpfProgram.
pub const FINALIZER: &str = "sockeye.dev/detach";
/// The label of a BpfRevision with the name of its BpfProgram.
pub const LABEL_PROGRAM: &str = "sockeye.dev/program";
/// The label of a ConfigMap that is "true" if the operator stored an object's bytes in it.
pub const LABEL_OBJECT: &str = "sockeye.dev/object";
/// The key of an object's bytes in a ConfigMap's `binaryData`.
pub const OBJECT_KEY: &str = "object";
/// The name of the ConfigMap in the release namespace that, while it exists, detaches everything on every node.
pub const SUSPENSION: &str = "sockeye-suspend";
/// The key of the reason in that ConfigMap.
pub const SUSPENSION_REASON: &str = "reason";
/// The prefix of a digest.
pub const DIGEST_PREFIX: &str = "sha256:";
/// The maximum size of an ELF object in bytes.
pub const MAX_OBJECT_BYTES: usize = 1 << 20;
/// The maximum size of an inline object in bytes, decoded.
pub const MAX_INLINE_BYTES: usize = 128 << 10;

/// Returns the digest of an object's bytes: `sha256:` and 64 hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    format!("{DIGEST_PREFIX}{}", hex(&Sha256::digest(bytes)))
}

/// Returns the name of the ConfigMap for the bytes with a digest.
pub fn object_config_map(digest: &str) -> String {
    format!("sockeye-object-{}", digest.strip_prefix(DIGEST_PREFIX).unwrap_or(digest))
}

/// Returns the name of a revision: the BpfProgram's name and the sequence.
pub fn revision_name(program: &str, sequence: i64) -> String {
    format!("{program}-{sequence}")
}

/// Returns bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// Returns the bytes that hexadecimal digits stand for, two each.
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).map(|n| n as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Returns text from an object quoted, shortened and without control characters, so that it is safe to show.
pub fn printable(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(128).collect();
    format!("{clean:?}")
}

/// Returns whether a name is a DNS label (RFC 1123), as a BpfProgram's name must be: it names a directory on bpffs,
/// which refuses dots.
pub fn is_dns_label(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|&b| alnum(b) || b == b'-')
        && bytes.first().is_some_and(|&b| alnum(b))
        && bytes.last().is_some_and(|&b| alnum(b))
}

/// The most bytes of a pin's name.
const MAX_PIN_NAME: usize = 128;

/// Returns whether a program's or map's name may become a file name on bpffs: `[A-Za-z0-9_]{1,128}`.
pub fn is_pin_name(name: &str) -> bool {
    (1..=MAX_PIN_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Returns the file name of a map's pin. bpffs refuses dots, so `.rodata` becomes `_rodata`.
pub fn pin_name(map: &str) -> String {
    map.replace('.', "_")
}

/// Returns the file names of the pins of an object's maps. Two maps may differ only where bpffs allows no dot, as
/// `.data.a.b` and `.data.a_b` do: of these the first in the order of names has the name that it has alone, and the
/// others end in a number. A map without a dot always has its own name.
pub fn pin_names<'a>(maps: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, String> {
    let (plain, dotted): (BTreeSet<&str>, BTreeSet<&str>) = maps.into_iter().partition(|map| !map.contains('.'));
    let mut names: BTreeMap<&str, String> = plain.iter().map(|map| (*map, (*map).to_owned())).collect();
    let mut taken: BTreeSet<String> = names.values().cloned().collect();
    for map in dotted {
        let alone = pin_name(map);
        let numbered = |number: usize| {
            let end = format!("_{number}");
            let room = MAX_PIN_NAME.saturating_sub(end.len());
            format!("{}{end}", &alone[..alone.floor_char_boundary(room)])
        };
        // There are fewer maps than numbers.
        let mut free = (2..).map(numbered).filter(|name| !taken.contains(name));
        let name = if taken.contains(&alone) { free.next().unwrap_or_default() } else { alone.clone() };
        taken.insert(name.clone());
        names.insert(map, name);
    }
    names
}

/// Returns the first `max` bytes of a text, cut between characters, with `…` at the end if something was cut.
pub fn clip(text: &str, max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max.saturating_sub(MARK.len()));
    format!("{}{MARK}", &text[..end])
}

/// Lists names as part of a sentence: the first `most`, then the number of the others.
pub fn list(names: &[&str], most: usize) -> String {
    let (named, others) = names.split_at(names.len().min(most));
    let named = named.join(", ");
    if others.is_empty() { named } else { format!("{named} and {} more", others.len()) }
}

/// Returns text as one line of at most `max` bytes for a status or a log. Unprintable characters, which could control a
/// terminal, become `?`.
pub fn line(text: &str, max: usize) -> String {
    replace_unprintable(&clip(text, max), |_| false)
}

/// Returns text for a status or a log. Line breaks and tabs stay; other unprintable characters become `?`.
pub fn lines(text: &str) -> String {
    replace_unprintable(text, |c| matches!(c, '\n' | '\t'))
}

fn replace_unprintable(text: &str, keep: impl Fn(char) -> bool) -> String {
    let prints = |c: char| keep(c) || matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
    text.chars().map(|c| if prints(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_labels_are_accepted_and_other_names_refused() {
        for good in ["a", "tcp-events", "0", &"x".repeat(63)] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "A", "a_b", "..", &"x".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }

    #[test]
    fn pin_names_have_no_separator_and_no_dot() {
        for good in ["my_map", "_rodata", "A9"] {
            assert!(is_pin_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a.b", "a b", "\u{7f}", &"m".repeat(129)] {
            assert!(!is_pin_name(bad), "{bad}");
        }
        assert!(is_pin_name(&pin_name(".rodata")));
    }

    #[test]
    fn maps_that_differ_only_by_a_dot_have_pins_of_their_own() {
        let names = pin_names([".data.a_b", "_rodata", ".data.a.b", ".rodata", "m", ".data.a_b_2", ".bss"]);
        let expected = [
            (".bss", "_bss"),
            (".data.a.b", "_data_a_b"),
            (".data.a_b", "_data_a_b_2"),
            (".data.a_b_2", "_data_a_b_2_2"),
            (".rodata", "_rodata_2"),
            ("_rodata", "_rodata"),
            ("m", "m"),
        ];
        assert_eq!(names, expected.map(|(map, pin)| (map, pin.to_owned())).into());
        let long = |middle: &str| format!(".data.{}{middle}x", "y".repeat(120));
        let (one, other) = (long("."), long("_"));
        let names = pin_names([one.as_str(), &other]);
        assert!(names.values().all(|name| is_pin_name(name)), "{names:?}");
        assert_eq!(names.values().collect::<BTreeSet<_>>().len(), 2);
    }

    #[test]
    fn a_list_names_the_first_and_counts_the_others() {
        assert_eq!((list(&[], 2), list(&["a", "b"], 2)), (String::new(), "a, b".to_owned()));
        assert_eq!(list(&["a", "b", "c", "d"], 2), "a, b and 2 more");
    }

    #[test]
    fn clip_cuts_between_characters() {
        assert_eq!(clip("abc", 3), "abc");
        assert_eq!(clip("abcdef", 5), "ab…");
        assert!(clip("ééééé", 6).len() <= 6);
    }

    #[test]
    fn unprintable_characters_become_question_marks() {
        assert_eq!(line("it's \"é\" \\ \u{1b}[2J\r\n\u{202e}x", 64), "it's \"é\" \\ ?[2J???x");
        assert_eq!(lines("0: r0 = 0\n\t; a\u{1b}b\n"), "0: r0 = 0\n\t; a?b\n");
        assert!(line(&"\u{1b}".repeat(5000), 100).len() <= 100);
    }
}
