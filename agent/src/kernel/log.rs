//! The kernel's logs as text.

use sockeye_crds::names;

/// Returns the text of a log, fit to be shown.
pub(super) fn text(log: &[u8]) -> String {
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    // The log quotes lines of the object's source, which may hold control characters.
    names::lines(String::from_utf8_lossy(log.get(..end).unwrap_or_default()).trim())
}
