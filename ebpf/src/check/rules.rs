//! The rules that many fields share, and the refusals that they make.

use std::collections::BTreeSet;

use sockeye_crds::{
    Reason, Refusal,
    names::{self, printable},
};

pub(super) fn refuse(reason: Reason, message: String) -> Refusal {
    Refusal { reason, message: names::line(&message, 2048) }
}

pub(super) fn invalid(message: String) -> Refusal {
    refuse(Reason::InvalidSpec, message)
}

pub(super) fn check_count(field: &str, count: usize, least: usize, most: usize) -> Result<(), Refusal> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(invalid(format!("{field} has {count} items; it must have {least} to {most}")))
}

pub(super) fn check_distinct<'a>(field: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            return Err(invalid(format!("{field}[{i}].name: {} is there twice", printable(name))));
        }
    }
    Ok(())
}

/// The names of what there is, for a message.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names::clip(&names.join(", "), 512) }
}
