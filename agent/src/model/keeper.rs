//! Keepers: the targets that go on selecting a running pod whose labels, or whose namespace's labels, no longer match
//! (`whenUnselected: KeepUntilPodEnds`). Pure.

use serde_json::json;
use sockeye_crds::{names, target::PodsTarget};

/// The number of hexadecimal digits of an identity.
const DIGITS: usize = 16;

/// Returns the identity of a keeper, sixteen hexadecimal digits over its selectors; `None` if the target keeps nothing.
pub fn identity(target: &PodsTarget) -> Option<String> {
    let PodsTarget { pod_selector, namespace_selector, containers, start_policy: _, when_unselected: _ } = target;
    if !target.keeps_unselected() {
        return None;
    }
    let selectors = json!([pod_selector, namespace_selector, containers]).to_string();
    let digest = names::digest(selectors.as_bytes());
    let digits = digest.strip_prefix(names::DIGEST_PREFIX).unwrap_or(&digest);
    Some(digits.chars().take(DIGITS).collect())
}

/// Returns whether a text has the form of an identity.
pub fn is_identity(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use sockeye_crds::target::{StartPolicy, WhenUnselected};

    use super::*;

    #[test]
    fn a_keepers_identity_is_that_of_its_selectors() {
        let id = |edit: fn(&mut PodsTarget)| {
            let keeps = Some(WhenUnselected::KeepUntilPodEnds);
            let mut target = PodsTarget { when_unselected: keeps, ..PodsTarget::default() };
            edit(&mut target);
            identity(&target)
        };
        let same = id(|_| ());
        assert!(same.as_deref().is_some_and(is_identity), "{same:?}");
        assert_eq!(id(|target| target.start_policy = Some(StartPolicy::Immediate)), same);
        assert_ne!(id(|target| target.namespace_selector = Some(Default::default())), same);
        assert_ne!(id(|target| target.containers = vec!["app".to_owned()]), same);
        assert_ne!(id(|target| target.pod_selector.match_labels = Some([("a".into(), "b".into())].into())), same);
        assert_eq!(id(|target| target.when_unselected = Some(WhenUnselected::Detach)), None);
        assert_eq!(id(|target| target.when_unselected = None), None);
    }
}
