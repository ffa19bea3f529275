//! Gather: reads everything that one reconciliation needs. IO: reads.
//!
//! Most of it is in the [`Stores`]. The API server is asked only for bytes, and for the revisions of a BpfProgram that
//! is being deleted: one that a cache lags behind would stay.

use std::{collections::BTreeMap, sync::Arc};

use kube::{Api, Client, api::ListParams, core::DeserializeGuard};
use sockeye_client::{is_transient, objects::list};
use sockeye_crds::{BpfProgram, BpfRevision, names, revision::ProgramRef};
use sockeye_ebpf::Accepted;

use crate::{
    images::Images,
    reconcile::{
        bytecode::{self, BytecodeReader, GatheredBytecode},
        cache::ProgramCache,
        intent::Intent,
        stored_object::StoredObjects,
    },
    watch::{nodes::Nodes, revisions::Revisions, sharing::Lender, stores::Stores},
};

/// A read failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ConfigMap with the bytes could not be read.
    #[error(transparent)]
    Bytecode(#[from] bytecode::Error),
    /// The revisions could not be listed.
    #[error("listing the revisions of {program}: {source}")]
    Revisions {
        /// The BpfProgram's name.
        program: String,
        /// The API server's answer.
        source: kube::Error,
    },
}

impl Error {
    /// Reports whether the same read may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Bytecode(bytecode::Error { source, .. }) | Self::Revisions { source, program: _ } => {
                is_transient(source)
            }
        }
    }
}

/// Everything that one reconciliation needs.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// The BpfProgram.
    pub intent: Intent,
    /// Its bytes.
    pub bytecode: GatheredBytecode,
    /// Why its image could not be pulled the last time.
    pub image_failure: Option<String>,
    /// Its revisions.
    pub revisions: Revisions,
    /// The BpfPrograms whose maps its spec borrows, by name.
    pub lenders: BTreeMap<String, Lender>,
    /// The other BpfPrograms that use its maps, if it is being deleted.
    pub borrowers: Vec<String>,
    /// The nodes and their agents' reports.
    pub nodes: Nodes,
}

impl Gathered {
    /// Reports whether agents are to remove the BpfProgram: it is being deleted, and no other one uses its maps.
    ///
    /// Once no revision is live, agents remove it already. A BpfProgram that begins to borrow then waits for the next
    /// one of this name.
    pub fn is_finalizing(&self) -> bool {
        self.intent.is_deleted() && (self.borrowers.is_empty() || !self.revisions.has_live())
    }
}

/// Does the reads.
#[derive(Clone)]
pub struct Reader {
    /// Reads from the API server.
    pub client: Client,
    /// The release namespace.
    pub namespace: String,
    /// The watched objects.
    pub stores: Stores,
    /// The stored bytes.
    pub stored: StoredObjects,
    /// The images that BpfPrograms want.
    pub images: Images,
    /// True if revisions are to have a proof of who signed them.
    pub needs_proof: bool,
}

impl Reader {
    /// Reads everything that the reconciliation of `object` needs.
    pub async fn gather(
        &self,
        object: Arc<DeserializeGuard<BpfProgram>>,
        cache: &ProgramCache,
    ) -> Result<Gathered, Error> {
        let Self { client, stores, .. } = self;
        let intent = Intent::new(object, cache);
        let (revisions, borrowers) = if intent.is_deleted() {
            (list_revisions(client, &intent.program).await?, stores.borrowers_of(&intent.program.name))
        } else {
            (stores.revisions_of(&intent.program), Vec::new())
        };
        let lenders = intent.spec().map(|spec| stores.lenders_of(spec)).unwrap_or_default();
        let bytecode = self.bytecode_reader().read(&intent, cache).await?;
        let image_failure = self.images.failure(&intent.program.name);
        Ok(Gathered { intent, bytecode, image_failure, revisions, lenders, borrowers, nodes: stores.nodes() })
    }

    /// Reports whether all bytes of an accepted spec are stored.
    pub async fn are_stored(&self, accepted: &Accepted) -> Result<bool, Error> {
        Ok(self.bytecode_reader().all_stored(accepted.digests()).await?)
    }

    /// Has the signatures of an image looked for again, if the policy objects to those that a check has just seen.
    pub async fn await_signature(&self, intent: &Intent, cache: &ProgramCache) -> Result<(), Error> {
        Ok(self.bytecode_reader().await_signature(intent, cache).await?)
    }

    fn bytecode_reader(&self) -> BytecodeReader<'_> {
        let Self { client, namespace, stores, stored, images, needs_proof } = self;
        BytecodeReader { client, namespace, stores, stored, images, needs_proof: *needs_proof }
    }
}

/// Lists the revisions of a BpfProgram from the API server.
pub async fn list_revisions(client: &Client, program: &ProgramRef) -> Result<Revisions, Error> {
    let of_program = ListParams::default().labels(&format!("{}={}", names::LABEL_PROGRAM, program.name));
    let api: Api<DeserializeGuard<BpfRevision>> = Api::all(client.clone());
    let page = list(&api, &of_program).await;
    let page = page.map_err(|source| Error::Revisions { program: program.name.clone(), source })?;
    Ok(Revisions::of(program, &page.items))
}

/// Lists all revisions from the API server.
pub async fn list_all_revisions(client: &Client) -> Result<Vec<DeserializeGuard<BpfRevision>>, kube::Error> {
    Ok(list(&Api::all(client.clone()), &ListParams::default()).await?.items)
}
