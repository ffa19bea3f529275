//! Keepers: the targets that keep their links to a running pod which they no longer select, because its labels or its
//! namespace's changed (`whenUnselected: KeepUntilPodEnds`). Pure. `resolve/kept` says which links they keep.

use serde_json::json;
use sockeye_crds::{names, target::PodsTarget};

/// Returns the identity of a keeper, sixteen hexadecimal digits over its selectors; `None` if the target keeps nothing.
pub fn identity(target: &PodsTarget) -> Option<String> {
    let PodsTarget { pod_selector, namespace_selector, containers, start_policy: _, when_unselected: _ } = target;
    let selectors = json!([pod_selector, namespace_selector, containers]).to_string();
    let digest = names::digest(selectors.as_bytes());
    let digits = digest.strip_prefix(names::DIGEST_PREFIX).unwrap_or(&digest);
    target.keeps_unselected().then(|| digits.chars().take(16).collect())
}
