//! [`Standalone`]: objects of a node without a cluster, in the folder of its agent. IO: files.
//!
//! The agent writes a status beside each manifest: `X.status.yaml`, and for the node `node.status.yaml` and
//! `node.detail.status.yaml`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde_json::Value;

use super::{Agent, Kind, SourceError, agent::Endpoint};

/// A node without a cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct StandaloneArgs {
    /// The folder of manifests of a node without a cluster.
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        env = "SOCKEYE_NODE_DIR",
        help_heading = "Node without a cluster"
    )]
    pub node_dir: Option<PathBuf>,
    /// The socket of the agent of a node without a cluster.
    #[arg(long, global = true, value_name = "SOCKET", env = "SOCKEYE_SOCKET", help_heading = "Node without a cluster")]
    pub socket: Option<PathBuf>,
}

/// A node without a cluster.
#[derive(Clone, Debug)]
pub struct Standalone {
    args: StandaloneArgs,
    limit: Duration,
}

impl Standalone {
    /// Returns the node, if the options name one.
    pub fn new(args: &StandaloneArgs, limit: Duration) -> Option<Self> {
        (args.node_dir.is_some() || args.socket.is_some()).then(|| Self { args: args.clone(), limit })
    }

    /// Returns the folder of manifests.
    ///
    /// # Errors
    /// Fails where the options name none.
    pub fn folder(&self) -> Result<&Path, SourceError> {
        let missing = SourceError::OptionMissing { what: "the resources", option: "--node-dir" };
        self.args.node_dir.as_deref().ok_or(missing)
    }

    /// Returns the node's agent.
    ///
    /// # Errors
    /// Fails where the options name no socket.
    pub fn agent(&self) -> Result<Agent, SourceError> {
        let missing = SourceError::OptionMissing { what: "what the kernel holds", option: "--socket" };
        let socket = self.args.socket.clone().ok_or(missing)?;
        Ok(Agent { node: "this node".to_owned(), endpoint: Endpoint::Socket(socket), limit: self.limit })
    }

    /// Returns all objects of a kind. There are no BpfRevisions.
    ///
    /// # Errors
    /// Fails where the folder or a file can't be read.
    pub fn list(&self, kind: Kind) -> Result<Vec<Value>, SourceError> {
        let folder = self.folder()?;
        let wrong = |error| SourceError::File { path: folder.to_owned(), error };
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(folder).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            if path.to_str().is_some_and(|path| path.ends_with(".status.yaml")) {
                paths.push(path);
            }
        }
        paths.sort();
        let objects = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(objects.into_iter().filter(|object| object["kind"].as_str() == Some(&kind.name())).collect())
    }
}

fn read(path: &Path) -> Result<Value, SourceError> {
    let text = fs::read_to_string(path).map_err(|error| SourceError::File { path: path.to_owned(), error })?;
    serde_saphyr::from_str(&text)
        .map_err(|error| SourceError::Unreadable { what: path.display().to_string(), problem: error.to_string() })
}
