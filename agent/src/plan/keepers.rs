//! The notes of links' keepers: each is there before its link, and goes with it. Pure.

use std::collections::BTreeSet;

use super::{desired_attachments::Attachment, step::Step};
use crate::model::observed::{LinkKey, Observed};

/// Notes the keepers of attachments; before these are made, so that an agent that is killed in between leaves no link
/// that the next one would not keep.
pub(super) fn note(attachments: &[Attachment<'_>], observed: &Observed) -> Vec<Step> {
    let kept = attachments.iter().filter_map(|Attachment { key, keeper, .. }| Some((key, (*keeper)?)));
    let new = kept.filter(|(key, keeper)| observed.keepers.get(*key).is_none_or(|noted| noted != keeper));
    new.map(|(key, keeper)| Step::SetKeeper { key: key.clone(), keeper: Some(keeper.to_owned()) }).collect()
}

/// Forgets the keepers of links that have none any more. With a link that is detached its keeper is forgotten, so that
/// only links that stay, and those that are not there, are left: `stays` says which stay.
pub(super) fn forget(observed: &Observed, kept: &BTreeSet<LinkKey>, stays: impl Fn(&LinkKey) -> bool) -> Vec<Step> {
    let noted = observed.keepers.keys().filter(|key| !kept.contains(*key));
    let forgotten = noted.filter(|key| stays(key) || !observed.links.contains_key(*key));
    forgotten.map(|key| Step::SetKeeper { key: key.clone(), keeper: None }).collect()
}
