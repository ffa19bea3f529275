//! `sweep`: which stored bytes may go. Pure. Bytes are shared by digest, so that they belong to no single BpfProgram.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::jiff::Timestamp;
use sockeye_crds::names;

use crate::{step::Step, stores::Stores};

/// Deletes stored bytes that no revision refers to and that are older than the grace time, within which the revision that
/// they were stored for is made. While any revision cannot be read nothing goes, since it may refer to anything.
pub fn sweep(stores: &Stores, grace: Duration, now: Timestamp) -> Vec<Step> {
    let revisions = stores.revisions.state();
    let Ok(used) = revisions
        .iter()
        .map(|revision| revision.0.as_ref().map(|revision| names::object_config_map(&revision.spec.digest)))
        .collect::<Result<BTreeSet<String>, _>>()
    else {
        return vec![];
    };
    let config_maps = stores.config_maps.state();
    let unused = config_maps.iter().filter_map(|stored| {
        let meta = &stored.metadata;
        let (config_map, uid) = (meta.name.clone()?, meta.uid.clone()?);
        let ours = meta.labels.as_ref().is_some_and(|labels| labels.contains_key(names::LABEL_OBJECT));
        let created = meta.creation_timestamp.as_ref()?.0;
        let old = now.duration_since(created).unsigned_abs() > grace;
        let unused = ours && old && meta.deletion_timestamp.is_none() && !used.contains(&config_map);
        unused.then_some(Step::DeleteBytes { config_map, uid })
    });
    unused.collect()
}
