//! Gather: reads everything that one reconciliation needs. IO: reads.
//!
//! Most of it is in the [`Stores`]. The API server is asked only for bytes, and for revisions where a cache that lags
//! behind would do harm.

use std::{collections::BTreeSet, sync::Arc};

use kube::{Api, Client, api::ListParams, core::DeserializeGuard};
use sockeye_client::is_transient;
use sockeye_crds::{
    BpfProgram, BpfRevision, names,
    revision::{ProgramRef, is_live},
};

use crate::{
    reconcile::{
        bytecode::{self, BytecodeReader, GatheredBytecode},
        cache::ProgramCache,
        intent::Intent,
    },
    watch::{nodes::Nodes, revisions::Revisions, stores::Stores},
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
    /// Its revisions.
    pub revisions: Revisions,
    /// The digests of the stored bytes.
    pub stored_digests: BTreeSet<String>,
    /// The other BpfPrograms that borrow its maps, if it is being deleted.
    pub borrowers: Vec<String>,
    /// The nodes and their agents' reports.
    pub nodes: Nodes,
}

impl Gathered {
    /// Reports whether agents are to remove the BpfProgram: it is being deleted, and no other one borrows its maps.
    ///
    /// Once no revision is live, agents remove it already. A BpfProgram that begins to borrow then waits for the next
    /// one of this name.
    pub fn is_finalizing(&self) -> bool {
        self.intent.is_deleted() && (self.borrowers.is_empty() || !self.revisions.metadata().any(is_live))
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
}

impl Reader {
    /// Reads everything that the reconciliation of `object` needs.
    pub async fn gather(
        &self,
        object: Arc<DeserializeGuard<BpfProgram>>,
        cache: &ProgramCache,
    ) -> Result<Gathered, Error> {
        let Self { client, namespace, stores } = self;
        let intent = Intent::new(object, cache);
        let (revisions, borrowers) = if intent.is_deleted() {
            (list_revisions(client, &intent.program).await?, stores.borrowers_of(&intent.program.name))
        } else {
            (stores.revisions_of(&intent.program.uid), Vec::new())
        };
        let stored_digests = stores.stored_digests();
        let reader = BytecodeReader { client, namespace, stores, stored_digests: &stored_digests };
        let bytecode = reader.read(&intent, cache).await?;
        Ok(Gathered { intent, bytecode, revisions, stored_digests, borrowers, nodes: stores.nodes() })
    }
}

/// Lists the revisions of a BpfProgram from the API server. With those of a cache that lags behind, two revisions could
/// get the same sequence.
pub async fn list_revisions(client: &Client, program: &ProgramRef) -> Result<Revisions, Error> {
    let ProgramRef { name, uid } = program;
    let of_program = ListParams::default().labels(&format!("{}={name}", names::LABEL_PROGRAM));
    let api: Api<DeserializeGuard<BpfRevision>> = Api::all(client.clone());
    let list = api.list(&of_program).await.map_err(|source| Error::Revisions { program: name.clone(), source })?;
    Ok(Revisions::of(uid, &list.items))
}
