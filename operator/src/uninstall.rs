//! `uninstall`: deletes every BpfProgram and waits until all are gone, while operator and agents still run: they detach
//! the programs and remove the pins, and nobody else does. Then no stored bytes are of use either, and they go too. Nodes
//! that are not live hold nothing up, and keep what they have: they are named. IO: lists and deletes BpfPrograms, deletes
//! the operator's ConfigMaps, lists BpfNodes.
//!
//! The chart runs this before an uninstallation.

use std::{fmt, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams},
    core::DeserializeGuard,
};
use sockeye_crds::{BpfNode, BpfProgram, names};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// A BpfProgram as listed. One that cannot be read is deleted like the others.
type Listed = DeserializeGuard<BpfProgram>;

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// A page of BpfNodes: each may have a quarter of a megabyte.
const PAGE: u32 = 50;

/// Of what hangs, at most so many BpfPrograms, and of each so many nodes, are named.
const MAX_NAMED: usize = 10;

/// Why BpfPrograms may still be there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Some hang.
    #[error("still there after {} s: {}", .waited.as_secs(), Sentence(.hanging))]
    Hanging {
        /// What hangs.
        hanging: Vec<Hanging>,
        /// How long was waited.
        waited: Duration,
    },
    /// The API server does not say.
    #[error("{doing}: {source} (tried for {} s)", .waited.as_secs())]
    Api {
        /// What was to be done.
        doing: String,
        /// What the API server said.
        source: kube::Error,
        /// For how long it was tried.
        waited: Duration,
    },
}

/// A BpfProgram that is not gone, and where its status says that it still is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hanging {
    name: String,
    nodes: Vec<String>,
    omitted: usize,
}

/// Deletes every BpfProgram and waits until all are gone. Where the resource does not exist there is nothing to do.
pub async fn programs(client: Client, patience: Duration) -> Result<(), Error> {
    let api: Api<Listed> = Api::all(client);
    let start = Instant::now();
    loop {
        let outcome = delete_all(&api).await;
        let waited = start.elapsed();
        match outcome {
            Ok(hanging) if hanging.is_empty() => return Ok(()),
            Ok(hanging) if waited >= patience => return Err(Error::Hanging { hanging, waited }),
            Ok(_) => {}
            Err((doing, source)) if waited >= patience => return Err(Error::Api { doing, source, waited }),
            Err((doing, error)) => warn!(%error, "{doing}"),
        }
        sleep(PAUSE).await;
    }
}

/// Deletes the bytes that the operator stored in its namespace.
pub async fn bytes(client: Client, namespace: &str) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let stored = ListParams::default().labels(&format!("{}=true", names::LABEL_OBJECT));
    api.delete_collection(&DeleteParams::default(), &stored).await?;
    Ok(())
}

/// A node that, by its last word, still runs programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The node.
    pub node: String,
    /// The BpfPrograms they are of; none where its word cannot be read.
    pub programs: Vec<String>,
}

/// The nodes that still run programs once every BpfProgram is gone: they were not live, and nobody waited for them.
pub async fn left(client: Client) -> Result<Vec<Left>, kube::Error> {
    let api: Api<DeserializeGuard<BpfNode>> = Api::all(client);
    let mut page = ListParams::default().limit(PAGE);
    let mut left = Vec::new();
    loop {
        let listed = match api.list(&page).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(left),
            listed => listed?,
        };
        left.extend(listed.items.iter().filter_map(left_on));
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(left),
        }
    }
}

fn left_on(node: &DeserializeGuard<BpfNode>) -> Option<Left> {
    let programs = match &node.0 {
        Ok(readable) => {
            let held = &readable.status.as_ref()?.programs;
            (!held.is_empty()).then(|| held.iter().map(|held| held.name.clone()).collect())?
        }
        Err(_) => vec![],
    };
    Some(Left { node: node.name_any(), programs })
}

/// Deletes what is not being deleted yet; what there was.
async fn delete_all(api: &Api<Listed>) -> Result<Vec<Hanging>, (String, kube::Error)> {
    let listed = match api.list(&ListParams::default()).await {
        Ok(listed) => listed.items,
        Err(kube::Error::Api(status)) if status.code == 404 => vec![],
        Err(error) => return Err(("listing BpfPrograms".to_owned(), error)),
    };
    for program in listed.iter().filter(|program| program.meta().deletion_timestamp.is_none()) {
        let name = program.name_any();
        match api.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err((format!("deleting BpfProgram {name}"), error)),
            Ok(_) => info!(name, "deleted"),
        }
    }
    Ok(listed.iter().map(hanging).collect())
}

/// Where a BpfProgram still is, by its status.
fn hanging(program: &Listed) -> Hanging {
    let status = program.0.as_ref().ok().and_then(|program| program.status.as_ref());
    let nodes = status.iter().flat_map(|status| &status.placements).map(|placement| placement.node.clone()).collect();
    let omitted = status.map_or(0, |status| usize::try_from(status.omitted).unwrap_or_default());
    Hanging { name: program.name_any(), nodes, omitted }
}

impl fmt::Display for Hanging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, nodes, omitted } = self;
        if nodes.is_empty() {
            return write!(f, "{name} (no node reports it; is the operator running?)");
        }
        let named = &nodes[..nodes.len().min(MAX_NAMED)];
        write!(f, "{name} (on {}", named.join(", "))?;
        match nodes.len() - named.len() + omitted {
            0 => write!(f, ")"),
            more => write!(f, " and {more} more)"),
        }
    }
}

/// What hangs, as part of a sentence.
struct Sentence<'a>(&'a [Hanging]);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} BpfProgram{plural}: ", self.0.len())?;
        for (i, hanging) in self.0.iter().take(MAX_NAMED).enumerate() {
            write!(f, "{}{hanging}", if i > 0 { "; " } else { "" })?;
        }
        match self.0.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn listed(name: &str, status: Value) -> Listed {
        let program = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name},
            "spec": {"bytecode": {"inline": ""}, "programs": []}, "status": status});
        serde_json::from_value(program).unwrap()
    }

    #[test]
    fn what_hangs_is_named_with_its_nodes() {
        let on = |nodes: &[&str]| {
            let placements: Vec<Value> = nodes.iter().map(|node| json!({"node": node})).collect();
            json!({"observedGeneration": 1, "placements": placements})
        };
        let hanging: Vec<_> =
            [listed("a", on(&["node-1", "node-2"])), listed("b", on(&[]))].iter().map(hanging).collect();
        let error = Error::Hanging { hanging, waited: Duration::from_secs(120) };
        assert_eq!(
            error.to_string(),
            "still there after 120 s: 2 BpfPrograms: a (on node-1, node-2); \
             b (no node reports it; is the operator running?)"
        );
    }

    #[test]
    fn what_is_not_named_is_counted() {
        let nodes: Vec<String> = (0..12).map(|n| format!("n{n}")).collect();
        let many = vec![Hanging { name: "a".into(), nodes, omitted: 3 }; 12];
        let text = Sentence(&many).to_string();
        assert!(text.starts_with("12 BpfPrograms: a (on n0, n1,") && text.contains("n9 and 5 more)"), "{text}");
        assert!(text.ends_with("; and 2 more"), "{text}");
    }

    #[test]
    fn nodes_that_still_run_programs_are_left() {
        let node = |status: Value| {
            let node = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "metadata": {"name": "a"},
                "spec": {}, "status": status});
            left_on(&serde_json::from_value(node).unwrap()).map(|left| left.programs)
        };
        let held = json!([{"name": "p", "uid": "u", "state": "Attached"}]);
        assert_eq!(node(json!({"programs": held})), Some(vec!["p".to_owned()]));
        assert_eq!(node(json!({"programs": []})), None);
        assert_eq!(node(Value::Null), None, "its agent has said nothing yet");
        assert_eq!(node(json!({"programs": 7})), Some(vec![]), "one that cannot be read");
    }

    #[test]
    fn one_that_cannot_be_read_is_named_too() {
        let broken = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": "a"}});
        let broken: Listed = serde_json::from_value(broken).unwrap();
        assert_eq!(hanging(&broken), Hanging { name: "a".into(), nodes: vec![], omitted: 0 });
    }
}
