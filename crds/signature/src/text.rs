//! Strangers' text, made fit for a message: printable, and of bounded length.

/// The most characters of one quotation.
const MAX_QUOTED: usize = 120;

/// Returns a text with its control characters escaped, cut off after 120 characters.
pub fn quote(text: &str) -> String {
    line(text, MAX_QUOTED)
}

/// Returns a text with its control characters escaped, cut off after some characters.
pub fn line(text: &str, most: usize) -> String {
    bounded(&text.chars().take(most + 1).flat_map(printable).collect::<String>(), most)
}

/// Returns the first characters of a text, with an ellipsis if there are more.
pub fn bounded(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn printable(char: char) -> Vec<char> {
    // Besides control characters, those that reverse or hide what stands beside them.
    let hides =
        matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if char.is_control() || hides { char.escape_unicode().collect() } else { vec![char] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_escapes_what_strangers_wrote() {
        assert_eq!(quote("a\nb\u{202e}c"), "a\\u{a}b\\u{202e}c");
        assert_eq!(quote(&"ä".repeat(200)).chars().count(), MAX_QUOTED + 1);
        assert_eq!(quote(&"\n".repeat(200)).chars().count(), MAX_QUOTED + 1);
        assert_eq!((bounded("abc", 3), line("abc", 2)), ("abc".to_owned(), "ab…".to_owned()));
    }
}
