//! Garbage collection of stored bytes. IO: none; it says what to delete.
//!
//! BpfPrograms with the same bytes share a ConfigMap, so it belongs to none of them. A ConfigMap with another name than
//! stored bytes have is nobody's garbage, whatever its labels: it may be the kill switch.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use sockeye_crds::{BpfRevision, names};

use crate::{
    reconcile::{step::ObjectVersion, stored_object::digest_in},
    watch::stores::ConfigMapMeta,
};

/// Returns the stored bytes that no revision names and that are older than `grace`. Within that time the revision is
/// created for which they were stored.
///
/// While any revision cannot be read, nothing is garbage: that revision may name any bytes.
pub fn garbage<'a>(
    revisions: impl Iterator<Item = &'a DeserializeGuard<BpfRevision>>,
    config_maps: &[Arc<ConfigMapMeta>],
    grace: Duration,
    now: Timestamp,
) -> Vec<ObjectVersion> {
    let Some(named) = named_config_maps(revisions) else { return vec![] };
    let is_garbage = |config_map: &&Arc<ConfigMapMeta>| {
        let name = config_map.metadata.name.as_ref();
        name.is_some_and(|name| !named.contains(name)) && is_collectable(config_map, grace, now)
    };
    let garbage = config_maps.iter().filter(is_garbage);
    garbage.filter_map(|config_map| ObjectVersion::of(&config_map.metadata)).collect()
}

/// Lists the ConfigMaps that revisions name; nothing if a revision cannot be read.
fn named_config_maps<'a>(
    revisions: impl Iterator<Item = &'a DeserializeGuard<BpfRevision>>,
) -> Option<BTreeSet<String>> {
    let mut named = BTreeSet::new();
    for revision in revisions {
        let readable = revision.0.as_ref().ok()?;
        named.extend(readable.spec.template.digests().map(names::object_config_map));
    }
    Some(named)
}

/// Returns whether a ConfigMap holds stored bytes, for long enough, and nobody deletes it yet.
///
/// A creation time in the future is recent: the API server's clock may be ahead of this one.
fn is_collectable(config_map: &ConfigMapMeta, grace: Duration, now: Timestamp) -> bool {
    let meta = &config_map.metadata;
    let is_ours = meta.name.as_deref().and_then(digest_in).is_some();
    let is_marked = meta.labels.as_ref().is_some_and(|labels| labels.contains_key(names::LABEL_OBJECT));
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    let created = meta.creation_timestamp.as_ref();
    let is_old = created.is_some_and(|created| now.duration_since(created.0) > grace);
    is_ours && is_marked && is_old && meta.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const GRACE: Duration = Duration::from_secs(600);

    fn config_map(created: &str) -> Value {
        let (name, labels) = (names::object_config_map(&names::digest(b"elf")), json!({names::LABEL_OBJECT: "true"}));
        json!({"metadata": {"name": name, "uid": "u", "labels": labels, "creationTimestamp": created}})
    }

    fn is_collectable_at_noon(config_map: Value) -> bool {
        is_collectable(&serde_json::from_value(config_map).unwrap(), GRACE, "2026-01-01T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn only_the_operators_old_config_maps_are_collected() {
        let old = config_map("2026-01-01T11:49:59Z");
        assert!(is_collectable_at_noon(old.clone()));
        assert!(!is_collectable_at_noon(config_map("2026-01-01T11:50:00Z")), "within the grace time");
        let mut deleted = old.clone();
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T12:00:00Z");
        assert!(!is_collectable_at_noon(deleted));
        let mut others = old.clone();
        others["metadata"]["labels"] = json!({});
        assert!(!is_collectable_at_noon(others));
        for name in [names::SUSPENSION, "sockeye-object-", "sockeye-object-sha256", "mine"] {
            let mut renamed = old.clone();
            renamed["metadata"]["name"] = json!(name);
            assert!(!is_collectable_at_noon(renamed), "{name}");
        }
    }

    #[test]
    fn fresh_bytes_are_kept_while_this_clock_is_behind_the_api_servers() {
        assert!(!is_collectable_at_noon(config_map("2026-01-01T12:10:01Z")));
        assert!(!is_collectable_at_noon(config_map("2026-01-02T12:00:00Z")));
    }

    #[test]
    fn what_a_revision_names_is_no_garbage_and_one_that_cannot_be_read_may_name_any_bytes() {
        let object = json!({"programs": [], "maps": [], "license": "GPL", "btf": true});
        let naming = |bytes: &[u8]| {
            json!({"state": "Retired", "programRef": {"name": "p", "uid": "u"}, "programGeneration": 1, "sequence": 1,
                "template": {"digest": names::digest(bytes), "object": object, "programs": []}})
        };
        let revision = |spec: Value| -> DeserializeGuard<BpfRevision> {
            let revision = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
                "metadata": {"name": "p-1"}, "spec": spec});
            serde_json::from_value(revision).unwrap()
        };
        let mut stored = config_map("2026-01-01T11:00:00Z");
        stored["metadata"]["resourceVersion"] = json!("5");
        let stored = [Arc::new(serde_json::from_value(stored).unwrap())];
        let noon = "2026-01-01T12:00:00Z".parse().unwrap();
        let is_garbage_beside =
            |revisions: &[DeserializeGuard<BpfRevision>]| !garbage(revisions.iter(), &stored, GRACE, noon).is_empty();
        assert!(is_garbage_beside(&[]) && is_garbage_beside(&[revision(naming(b"other"))]));
        assert!(!is_garbage_beside(&[revision(naming(b"other")), revision(naming(b"elf"))]));
        assert!(!is_garbage_beside(&[revision(naming(b"other")), revision(json!(7))]));
        let mut listing = naming(b"other");
        let list = json!({"name": "l", "key": "k", "digest": names::digest(b"elf")});
        listing["template"]["maps"] = json!([{"name": "m", "entriesFrom": {"configMapRef": list}}]);
        assert!(!is_garbage_beside(&[revision(listing)]), "a list of entries is stored too");
    }
}
