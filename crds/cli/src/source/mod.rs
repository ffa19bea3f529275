//! The sources of the command line: an API server and the agents of its nodes, or one node without a cluster. Does IO.
//!
//! | module | noun | IO |
//! |---|---|---|
//! | [`kind`] | the resources of sockeye, by the names that people type | none |
//! | [`error`](mod@error) | why something could not be read | none |
//! | [`cluster`] | objects of an API server, by a kubeconfig | requests |
//! | [`standalone`] | objects of a node without a cluster, in its folder | files |
//! | [`agent`] | an agent's read API, through a port-forward or on a Unix socket | requests |
//! | [`fan_out`] | the same question to several agents | requests |
//! | [`local_kernel`] | the running kernel | files |
//! | [`elf`] | the bytes of an ELF object | files |

pub mod agent;
pub mod cluster;
pub mod elf;
pub mod error;
pub mod fan_out;
pub mod kind;
pub mod local_kernel;
pub mod standalone;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::{
    agent::{Agent, AgentError},
    cluster::Cluster,
    error::SourceError,
    kind::Kind,
    standalone::Standalone,
};

/// The place of objects and agents.
#[derive(Clone)]
pub enum Source {
    /// A cluster.
    Cluster(Cluster),
    /// A node without one.
    Standalone(Standalone),
}

/// Objects that were read, and what is wrong with those that were not.
#[derive(Clone, Debug)]
pub struct Read<T> {
    /// The objects.
    pub objects: Vec<T>,
    /// A line for each object that this version can't read.
    pub notes: Vec<String>,
}

impl<T> Default for Read<T> {
    fn default() -> Self {
        Self { objects: Vec::new(), notes: Vec::new() }
    }
}

impl Source {
    /// Returns all objects of a kind, as they are.
    ///
    /// # Errors
    /// Fails where they can't be listed.
    pub async fn list(&self, kind: Kind) -> Result<Vec<Value>, SourceError> {
        match self {
            Self::Cluster(cluster) => cluster.list(kind).await,
            Self::Standalone(standalone) => standalone.list(kind),
        }
    }

    /// Returns an object by its name, as it is.
    ///
    /// # Errors
    /// Fails where there is none.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Value, SourceError> {
        match self {
            Self::Cluster(cluster) => cluster.get(kind, name).await,
            Self::Standalone(standalone) => {
                let named = |object: &Value| object["metadata"]["name"].as_str() == Some(name);
                let found = standalone.list(kind)?.into_iter().find(named);
                found.ok_or_else(|| SourceError::NotFound { what: format!("{} {name}", kind.name()) })
            }
        }
    }

    /// Returns an object by its name.
    ///
    /// # Errors
    /// Fails where there is none, or this version can't read it.
    pub async fn read<T: DeserializeOwned>(&self, kind: Kind, name: &str) -> Result<T, SourceError> {
        let object = self.get(kind, name).await?;
        serde_json::from_value(object).map_err(|error| unreadable(kind, name, &error))
    }

    /// Returns all objects of a kind that this version can read.
    ///
    /// # Errors
    /// Fails where they can't be listed.
    pub async fn read_all<T: DeserializeOwned>(&self, kind: Kind) -> Result<Read<T>, SourceError> {
        let mut read = Read::default();
        for object in self.list(kind).await? {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            match serde_json::from_value(object) {
                Ok(object) => read.objects.push(object),
                Err(error) => read.notes.push(unreadable(kind, &name, &error).to_string()),
            }
        }
        Ok(read)
    }

    /// Returns the agents of all nodes.
    ///
    /// # Errors
    /// Fails where it can't be found out which there are.
    pub async fn agents(&self) -> Result<Vec<Agent>, SourceError> {
        match self {
            Self::Cluster(cluster) => cluster.agents().await,
            Self::Standalone(standalone) => standalone.agent().map(|agent| vec![agent]),
        }
    }
}

fn unreadable(kind: Kind, name: &str, error: &serde_json::Error) -> SourceError {
    SourceError::Unreadable { what: format!("{} {name}", kind.name()), problem: error.to_string() }
}
