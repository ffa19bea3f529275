//! Names: labels, finalizer, the objects derived from others, and which names may reach a path.

use sha2::{Digest as _, Sha256};

/// The API group.
pub const GROUP: &str = "sockeye.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// The one finalizer, the operator's, on a BpfProgram.
pub const FINALIZER: &str = "sockeye.dev/detach";
/// On BpfRevisions: the BpfProgram it belongs to.
pub const LABEL_PROGRAM: &str = "sockeye.dev/program";
/// On BpfRevisions: "true" while agents are to consider it.
pub const LABEL_LIVE: &str = "sockeye.dev/live";
/// On ConfigMaps: "true" where they hold an object's bytes, written by the operator.
pub const LABEL_OBJECT: &str = "sockeye.dev/object";
/// The key under which an object's bytes stand in their ConfigMap's `binaryData`.
pub const OBJECT_KEY: &str = "object";
/// The ConfigMap in the release's namespace that, while it is there, has everything detached on every node.
pub const SUSPENSION: &str = "sockeye-suspend";
/// Its key that says why.
pub const SUSPENSION_REASON: &str = "reason";
/// What a digest starts with.
pub const DIGEST_PREFIX: &str = "sha256:";
/// An ELF object may have at most so many bytes.
pub const MAX_OBJECT_BYTES: usize = 1 << 20;
/// An inline object may have at most so many bytes, decoded.
pub const MAX_INLINE_BYTES: usize = 128 << 10;

/// The digest of an object's bytes: `sha256:` and 64 hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    format!("{DIGEST_PREFIX}{}", hex(&Sha256::digest(bytes)))
}

/// The name of the ConfigMap that holds the bytes of that digest.
pub fn object_config_map(digest: &str) -> String {
    format!("sockeye-object-{}", digest.strip_prefix(DIGEST_PREFIX).unwrap_or(digest))
}

/// The name of a revision: the program's, and ten hexadecimal digits over what the revision says.
pub fn revision_name(program: &str, content: &[u8]) -> String {
    format!("{program}-{}", &hex(&Sha256::digest(content))[..10])
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// Text from an object, fit to be shown: short, and without control characters.
pub fn printable(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(128).collect();
    format!("{clean:?}")
}

/// Whether a BpfProgram may have that name: a DNS label (RFC 1123), since it names a directory on bpffs, which refuses dots.
pub fn is_dns_label(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|&b| alnum(b) || b == b'-')
        && bytes.first().is_some_and(|&b| alnum(b))
        && bytes.last().is_some_and(|&b| alnum(b))
}

/// Whether a program's or a map's name may become a file's name on bpffs: `[A-Za-z0-9_]{1,128}`.
pub fn is_pin_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The file name under which a map of that ELF name is pinned: bpffs refuses dots, so `.rodata` becomes `_rodata`.
pub fn pin_name(map: &str) -> String {
    map.replace('.', "_")
}

/// The first `max` bytes of a text, cut at a character's boundary, with `…` at the end where something was cut.
pub fn clip(text: &str, max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", &text[..end])
}

/// One line of at most `max` bytes for a status or a log: what can't be printed, and so could steer a terminal, is shown as `?`.
pub fn line(text: &str, max: usize) -> String {
    legible(&clip(text, max), |_| false)
}

/// The same for lines, of any number.
pub fn lines(text: &str) -> String {
    legible(text, |c| matches!(c, '\n' | '\t'))
}

fn legible(text: &str, keep: impl Fn(char) -> bool) -> String {
    let prints = |c: char| keep(c) || matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
    text.chars().map(|c| if prints(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_what_bpffs_and_dns_take() {
        for good in ["a", "tcp-events", "0", &"x".repeat(63)] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "A", "a_b", "..", &"x".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }

    #[test]
    fn pin_names_hold_no_separator_or_dot() {
        for good in ["my_map", "_rodata", "A9"] {
            assert!(is_pin_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a.b", "a b", "\u{7f}", &"m".repeat(129)] {
            assert!(!is_pin_name(bad), "{bad}");
        }
        assert!(is_pin_name(&pin_name(".rodata")));
    }

    #[test]
    fn clipping_respects_characters() {
        assert_eq!(clip("abc", 3), "abc");
        assert_eq!(clip("abcdef", 5), "ab…");
        assert!(clip("ééééé", 6).len() <= 6);
    }
    #[test]
    fn lines_hold_what_can_be_printed() {
        assert_eq!(line("it's \"é\" \\ \u{1b}[2J\r\n\u{202e}x", 64), "it's \"é\" \\ ?[2J???x");
        assert_eq!(lines("0: r0 = 0\n\t; a\u{1b}b\n"), "0: r0 = 0\n\t; a?b\n");
        assert!(line(&"\u{1b}".repeat(5000), 100).len() <= 100);
    }
}
