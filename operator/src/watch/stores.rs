//! [`Stores`]: what the watches brought, for readers. IO: none; memory.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::reflector::{ObjectRef, Store, store::WriterDropped},
};
use sockeye_crds::{BpfNode, BpfProgram, BpfProgramSpec, BpfRevision, names, program::MapSpec, revision::ProgramRef};

use crate::watch::{
    nodes::{Nodes, PartialNode, PartialPod},
    revisions::Revisions,
    sharing::{Lender, borrowers, lenders},
};

/// A ConfigMap without its data.
pub type ConfigMapMeta = PartialObjectMeta<ConfigMap>;

/// A reader of each watched kind. Sockeye's own kinds are guarded, so an object that cannot be read affects no other.
#[derive(Clone)]
pub struct Stores {
    /// BpfPrograms, without the copy that `kubectl apply` keeps.
    pub programs: Store<DeserializeGuard<BpfProgram>>,
    /// BpfRevisions.
    pub revisions: Store<DeserializeGuard<BpfRevision>>,
    /// BpfNodes, without the fields that no status shows.
    pub reports: Store<DeserializeGuard<BpfNode>>,
    /// Nodes.
    pub nodes: Store<PartialNode>,
    /// The agents' pods.
    pub pods: Store<PartialPod>,
    /// ConfigMaps of the release namespace, without their data.
    pub config_maps: Store<ConfigMapMeta>,
}

impl Stores {
    /// Waits until every kind was listed.
    pub async fn wait_until_ready(&self) -> Result<(), WriterDropped> {
        let Self { programs, revisions, reports, nodes, pods, config_maps } = self;
        programs.wait_until_ready().await?;
        revisions.wait_until_ready().await?;
        reports.wait_until_ready().await?;
        nodes.wait_until_ready().await?;
        pods.wait_until_ready().await?;
        config_maps.wait_until_ready().await
    }

    /// Returns the number of objects of each resource.
    pub fn counts(&self) -> [(&'static str, usize); 6] {
        let Self { programs, revisions, reports, nodes, pods, config_maps } = self;
        [
            ("bpfprograms", programs.len()),
            ("bpfrevisions", revisions.len()),
            ("bpfnodes", reports.len()),
            ("nodes", nodes.len()),
            ("pods", pods.len()),
            ("configmaps", config_maps.len()),
        ]
    }

    /// Returns the BpfProgram of this name.
    pub fn program(&self, name: &str) -> Option<Arc<DeserializeGuard<BpfProgram>>> {
        self.programs.get(&ObjectRef::new(name))
    }

    /// Lists the names of all BpfPrograms.
    pub fn program_names(&self) -> Vec<String> {
        self.programs.state().iter().map(|program| program.name_any()).collect()
    }

    /// Lists the BpfPrograms whose current revisions use a map of the one of this name, sorted. Those that are being
    /// deleted are left out: two that borrow from each other would wait for ever.
    pub fn borrowers_of(&self, name: &str) -> Vec<String> {
        borrowers(name, &self.programs.state(), &self.revisions.state())
    }

    /// Lists the BpfPrograms whose specs borrow a map of the one of this name.
    pub fn programs_that_borrow_from(&self, name: &str) -> Vec<String> {
        self.programs_with(|program| lenders(&program.spec).any(|lender| lender == name))
    }

    /// Returns the BpfPrograms that lend these maps, by name, as far as they do.
    pub fn lenders_of(&self, spec: &BpfProgramSpec) -> BTreeMap<String, Lender> {
        lenders(spec).map(|name| (name.to_owned(), self.lender(name))).collect()
    }

    fn lender(&self, name: &str) -> Lender {
        let Some(uid) = self.program(name).and_then(|program| program.uid()) else { return Lender::Missing };
        let revisions = self.revisions_of(&ProgramRef { name: name.to_owned(), uid });
        revisions.newest().map_or(Lender::NotDispatched, Lender::of)
    }

    /// Lists the BpfPrograms whose bytes or lists of entries this ConfigMap holds, as a user or the operator created
    /// it.
    pub fn programs_with_bytes_in(&self, config_map: &str) -> Vec<String> {
        self.programs_with(|program| {
            let source = program.spec.bytecode.config_map_ref.as_ref();
            let current = program.status.as_ref().and_then(|status| status.current_revision.as_ref());
            let is_list = |map: &MapSpec| {
                let list = map.entries_from.as_ref().map(|from| &from.config_map_ref);
                list.is_some_and(|list| list.name == config_map || names::object_config_map(&list.digest) == config_map)
            };
            source.is_some_and(|source| source.name == config_map)
                || program.spec.maps.iter().any(is_list)
                || current.is_some_and(|current| names::object_config_map(&current.digest) == config_map)
                || current.is_some_and(|current| self.is_stored_for(&current.name, config_map))
        })
    }

    /// Returns whether a ConfigMap holds bytes of a revision: an object's, of any architecture, or a part of a proof.
    fn is_stored_for(&self, revision: &str, config_map: &str) -> bool {
        let revision = self.revisions.get(&ObjectRef::new(revision));
        let template =
            revision.as_ref().and_then(|revision| revision.0.as_ref().ok()).map(|found| &found.spec.template);
        template.is_some_and(|template| template.digests().any(|digest| names::object_config_map(digest) == config_map))
    }

    fn programs_with(&self, is_one: impl Fn(&BpfProgram) -> bool) -> Vec<String> {
        let programs = self.programs.state();
        let matching = programs.iter().filter(|program| program.0.as_ref().is_ok_and(&is_one));
        matching.map(|program| program.name_any()).collect()
    }

    /// Returns the revisions of a BpfProgram.
    pub fn revisions_of(&self, program: &ProgramRef) -> Revisions {
        Revisions::of(program, self.revisions.state().iter().map(Arc::as_ref))
    }

    /// Returns the ConfigMap of this name in the release namespace.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMapMeta>> {
        self.config_maps.get(&ObjectRef::new(name).within(namespace))
    }

    /// Joins the nodes and their agents' reports.
    pub fn nodes(&self) -> Nodes {
        Nodes::new(self.nodes.state(), self.pods.state(), self.reports.state())
    }
}
