//! Garbage collection of stored bytes. IO: none; it plans [`Step`]s.
//!
//! BpfPrograms with the same bytes share a ConfigMap, so it belongs to none of them. A ConfigMap with another name than
//! stored bytes have is nobody's garbage, whatever its labels: it may be the kill switch.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use sockeye_crds::{BpfRevision, names};

use crate::{
    reconcile::{
        step::{ObjectVersion, Step},
        stored_object::digest_in,
    },
    watch::stores::{ConfigMapMeta, Stores},
};

/// Plans the deletion of stored bytes that no revision names and that are older than `grace`. Within that time the
/// revision is created for which they were stored.
///
/// While any revision cannot be read, nothing is deleted: that revision may name any bytes.
pub fn collect_garbage(stores: &Stores, grace: Duration, now: Timestamp) -> Vec<Step> {
    let revisions = stores.revisions.state();
    let Some(named) = named_config_maps(revisions.iter().map(AsRef::as_ref)) else { return vec![] };
    let is_garbage = |config_map: &ConfigMapMeta| {
        let name = config_map.metadata.name.as_ref();
        name.is_some_and(|name| !named.contains(name)) && is_collectable(config_map, grace, now)
    };
    let config_maps = stores.config_maps.state();
    let garbage = config_maps.iter().filter(|config_map| is_garbage(config_map));
    garbage.filter_map(|config_map| delete(config_map)).collect()
}

/// Lists the ConfigMaps that revisions name; nothing if a revision cannot be read.
fn named_config_maps<'a>(
    revisions: impl Iterator<Item = &'a DeserializeGuard<BpfRevision>>,
) -> Option<BTreeSet<String>> {
    let digest = |revision: &'a DeserializeGuard<BpfRevision>| {
        let readable = revision.0.as_ref().ok()?;
        Some(names::object_config_map(&readable.spec.template.digest))
    };
    revisions.map(digest).collect()
}

/// Reports whether a ConfigMap holds stored bytes, for long enough, and nobody deletes it yet.
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

fn delete(config_map: &ConfigMapMeta) -> Option<Step> {
    ObjectVersion::of(&config_map.metadata).map(Step::DeleteBytes)
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
    fn a_revision_that_cannot_be_read_may_name_any_bytes() {
        let object = json!({"programs": [], "maps": [], "license": "GPL", "btf": true});
        let spec = json!({"state": "Retired", "programRef": {"name": "p", "uid": "u"}, "programGeneration": 1,
            "sequence": 1, "template": {"digest": "sha256:ab", "object": object, "programs": []}});
        let revision = |spec: Value| -> DeserializeGuard<BpfRevision> {
            let revision = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
                "metadata": {"name": "p-1"}, "spec": spec});
            serde_json::from_value(revision).unwrap()
        };
        let (readable, unreadable) = (revision(spec), revision(json!(7)));
        let named = named_config_maps([&readable].into_iter());
        assert_eq!(named, Some(BTreeSet::from([names::object_config_map("sha256:ab")])));
        assert_eq!(named_config_maps([&readable, &unreadable].into_iter()), None);
    }
}
