//! Text that conditions, columns and placements share.

use super::placement::NodePlacement;
use crate::{Reason, names};

/// Joins the first few items and the number of further ones: "a, b, c, +4".
pub(super) fn join_few<'a>(items: impl IntoIterator<Item = &'a str>, most: usize, separator: &str) -> String {
    let mut items = items.into_iter();
    let mut text = items.by_ref().take(most).collect::<Vec<_>>().join(separator);
    let more = items.count();
    if more > 0 {
        text += &format!("{separator}+{more}");
    }
    text
}

/// Returns the message that a node reported, or the reason's name if it reported none.
pub(super) fn message_or_reason(placed: &NodePlacement<'_>, reason: Reason) -> String {
    match placed.message() {
        Some(message) if !message.trim().is_empty() => names::clip(message.trim(), 512),
        _ => reason.as_str().to_owned(),
    }
}
