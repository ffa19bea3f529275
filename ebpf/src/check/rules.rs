//! The rules that many fields share, and the construction of refusals.

use std::collections::BTreeSet;

use sockeye_crds::{
    Reason, Refusal,
    names::{self, printable},
};

/// The form of a DNS label, in a refusal.
pub(super) const DNS_LABEL: &str = "lower-case letters, digits and '-', at most 63";
/// The form of a pin's name, in a refusal.
pub(super) const PIN_NAME: &str = "letters, digits and '_', at most 128";

/// Returns a refusal whose message is one line that is safe to show.
pub(super) fn refuse(reason: Reason, message: String) -> Refusal {
    Refusal { reason, message: names::line(&message, 2048) }
}

/// Returns a refusal with the reason InvalidSpec.
pub(super) fn invalid(message: String) -> Refusal {
    refuse(Reason::InvalidSpec, message)
}

/// Checks the number of items in a list.
pub(super) fn check_count(field: &str, count: usize, least: usize, most: usize) -> Result<(), Refusal> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(invalid(format!("{field} has {count} items; it must have {least} to {most}")))
}

/// Checks that no name is listed twice.
pub(super) fn check_distinct<'a>(field: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            return Err(invalid(format!("{field}[{i}].name: {} is there twice: leave one out", printable(name))));
        }
    }
    Ok(())
}

/// Lists names for a message.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names::clip(&names.join(", "), 512) }
}
