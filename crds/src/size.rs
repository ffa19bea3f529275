//! The size of a value as the API server writes it: in JSON. No IO.

use std::io;

use serde::Serialize;

/// Returns the number of bytes that a value has as the API server's JSON, without writing them down.
pub fn json_len(value: &impl Serialize) -> usize {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).map_or(0, |()| length.0)
}

/// The bytes of an escaped character, as in `\u003c`.
const ESCAPED: usize = 6;

/// Counts what is written, and keeps none of it.
struct Length(usize);

/// Returns the number of bytes by which the API server's encoder, which is Go's, exceeds this one: it escapes `<`, `>`
/// and `&` for HTML, and the line separators U+2028 and U+2029 for JavaScript.
fn excess(bytes: &[u8]) -> usize {
    let html = bytes.iter().filter(|byte| matches!(byte, b'<' | b'>' | b'&')).count();
    let separators = bytes.windows(3).filter(|three| matches!(three, [0xe2, 0x80, 0xa8 | 0xa9])).count();
    html * (ESCAPED - 1) + separators * (ESCAPED - 3)
}

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() + excess(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_the_api_server_escapes_count_as_it_writes_them() {
        assert_eq!(json_len(&"a\"\n\u{1}é"), r#""a\"\n\u0001é""#.len());
        assert_eq!(json_len(&"a<b>&c"), r#""a\u003cb\u003e\u0026c""#.len());
        assert_eq!(json_len(&"\u{2028}\u{2029}\u{2030}"), r#""\u2028\u2029‰""#.len());
    }
}
