//! `Stores`: what the watches have seen, as a reader finds it. Reads memory only; `watch` does the IO.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Resource as _, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::reflector::{ObjectRef, Store, store::WriterDropped},
};
use sockeye_crds::{BpfNode, BpfProgram, BpfRevision, names};

use crate::cluster::{Cluster, SlimNode, SlimPod};

/// A ConfigMap without its data.
pub type ConfigMapMeta = PartialObjectMeta<ConfigMap>;

/// A reader of each watched kind. Own kinds are guarded, so that an object that cannot be read stops nothing else.
#[derive(Clone)]
pub struct Stores {
    /// BpfPrograms, without the copy that `kubectl apply` keeps.
    pub programs: Store<DeserializeGuard<BpfProgram>>,
    /// BpfRevisions.
    pub revisions: Store<DeserializeGuard<BpfRevision>>,
    /// BpfNodes, without what no summary shows.
    pub reports: Store<DeserializeGuard<BpfNode>>,
    /// Nodes.
    pub nodes: Store<SlimNode>,
    /// The agents' pods.
    pub pods: Store<SlimPod>,
    /// ConfigMaps of the release namespace, without their data.
    pub config_maps: Store<ConfigMapMeta>,
}

impl Stores {
    /// Returns once every kind has been listed.
    pub async fn ready(&self) -> Result<(), WriterDropped> {
        let Self { programs, revisions, reports, nodes, pods, config_maps } = self;
        programs.wait_until_ready().await?;
        revisions.wait_until_ready().await?;
        reports.wait_until_ready().await?;
        nodes.wait_until_ready().await?;
        pods.wait_until_ready().await?;
        config_maps.wait_until_ready().await
    }

    /// The BpfProgram of that name.
    pub fn program(&self, name: &str) -> Option<Arc<DeserializeGuard<BpfProgram>>> {
        self.programs.get(&ObjectRef::new(name))
    }

    /// The names of all BpfPrograms.
    pub fn program_names(&self) -> Vec<String> {
        self.programs.state().iter().map(|program| program.name_any()).collect()
    }

    /// The names of the BpfPrograms that use a map of one, sorted: those that are to stay, for two that use each other's
    /// would wait for ever.
    pub fn users_of(&self, name: &str) -> Vec<String> {
        let all = self.programs.state();
        let stays = all.iter().filter(|program| program.meta().deletion_timestamp.is_none());
        let mut users: Vec<String> =
            stays.filter(|program| lenders(program).any(|of| of == name)).map(|program| program.name_any()).collect();
        users.sort_unstable();
        users
    }

    /// The revisions of one BpfProgram, this very one.
    pub fn revisions_of(&self, uid: &str) -> Vec<BpfRevision> {
        let all = self.revisions.state();
        let readable = all.iter().filter_map(|revision| revision.0.as_ref().ok());
        readable.filter(|revision| revision.spec.program.uid == uid).cloned().collect()
    }

    /// The ConfigMap of that name in the release namespace.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMapMeta>> {
        self.config_maps.get(&ObjectRef::new(name).within(namespace))
    }

    /// The digests whose bytes are stored.
    pub fn digests(&self) -> BTreeSet<String> {
        let stored = self.config_maps.state();
        let kept = stored.iter().filter(|stored| stored.metadata.deletion_timestamp.is_none());
        kept.filter_map(|stored| stored.metadata.name.as_deref().and_then(digest_of)).collect()
    }

    /// The nodes and what they say.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.nodes.state(), self.pods.state(), self.reports.state())
    }
}

/// The names of the BpfPrograms whose maps one uses.
pub fn lenders(program: &DeserializeGuard<BpfProgram>) -> impl Iterator<Item = &str> {
    let maps = program.0.iter().flat_map(|readable| &readable.spec.maps);
    maps.filter_map(|map| map.from.as_ref()).map(|from| from.program.as_str())
}

/// The digest of the bytes that a ConfigMap of that name holds.
fn digest_of(config_map: &str) -> Option<String> {
    config_map.strip_prefix(&names::object_config_map("")).map(|hex| format!("{}{hex}", names::DIGEST_PREFIX))
}
