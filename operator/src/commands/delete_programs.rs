//! [`delete_programs`]: deletes all BpfPrograms and waits until they are gone. IO: lists and deletes BpfPrograms.
//!
//! The lists it waits by have metadata alone. A BpfProgram with its bytes and status may have a megabyte.

use std::{fmt, time::Duration};

use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Request},
    core::{DeserializeGuard, PartialObjectMeta},
};
use sockeye_client::objects::{list, write};
use sockeye_crds::BpfProgram;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// The time between two lists.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The number of BpfPrograms in a page of a list.
const PAGE_SIZE: u32 = 50;

/// An error names at most this many BpfPrograms, and this many nodes of each.
const MAX_NAMED: usize = 10;

/// BpfPrograms may still be there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Some BpfPrograms are still there.
    #[error("still there after {} s: {remaining}", .waited.as_secs())]
    Remaining {
        /// Those BpfPrograms.
        remaining: Remaining,
        /// The time waited.
        waited: Duration,
    },
    /// A request failed.
    #[error("{action}: {source} (tried for {} s)", .waited.as_secs())]
    Request {
        /// The purpose of the request.
        action: String,
        /// The API server's answer.
        source: kube::Error,
        /// The time for which it was tried.
        waited: Duration,
    },
}

/// BpfPrograms that are still there, as part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remaining {
    count: usize,
    /// The first of them.
    named: Vec<RemainingProgram>,
}

/// A BpfProgram that is still there, and the nodes where it still runs by its status.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RemainingProgram {
    name: String,
    nodes: Vec<String>,
    omitted: usize,
}

/// Deletes all BpfPrograms and waits until they are gone. There are none where the resource does not exist.
pub async fn delete_programs(client: Client, timeout: Duration) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        let outcome = delete_all(&client).await;
        let waited = start.elapsed();
        match outcome {
            Ok(0) => return Ok(()),
            Ok(count) if waited >= timeout => {
                let listed = first_remaining(&client, count).await;
                let remaining = listed.map_err(|(action, source)| Error::Request { action, source, waited })?;
                return Err(Error::Remaining { remaining, waited });
            }
            Ok(_) => {}
            Err((action, source)) if waited >= timeout => return Err(Error::Request { action, source, waited }),
            Err((action, error)) => warn!(%error, "{action}"),
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// The purpose of a request that failed, and the answer.
type RequestError = (String, kube::Error);

/// Deletes the BpfPrograms that are not being deleted yet. Returns the number of all. One that can't be read is deleted
/// like the others.
async fn delete_all(client: &Client) -> Result<usize, RequestError> {
    let api: Api<PartialObjectMeta<BpfProgram>> = Api::all(client.clone());
    let mut count = 0;
    let mut params = ListParams::default().limit(PAGE_SIZE);
    loop {
        let page = match list(&api, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
            page => page.map_err(|error| ("listing BpfPrograms".to_owned(), error))?,
        };
        count += page.items.len();
        for program in page.items.iter().filter(|program| program.metadata.deletion_timestamp.is_none()) {
            delete(client, &program.name_any()).await?;
        }
        params.continue_token = page.continue_token;
        if params.continue_token.is_none() {
            return Ok(count);
        }
    }
}

async fn delete(client: &Client, name: &str) -> Result<(), RequestError> {
    let request = Request::new(BpfProgram::url_path(&(), None)).delete(name, &DeleteParams::default());
    match write(client, request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err((format!("deleting BpfProgram {name}"), error)),
        Ok(_) => {
            info!(name, "deleted");
            Ok(())
        }
    }
}

/// Reads the first of `count` BpfPrograms with their statuses.
async fn first_remaining(client: &Client, count: usize) -> Result<Remaining, RequestError> {
    let api: Api<DeserializeGuard<BpfProgram>> = Api::all(client.clone());
    let first = ListParams::default().limit(MAX_NAMED as u32);
    let page = list(&api, &first).await.map_err(|error| ("listing BpfPrograms".to_owned(), error))?;
    Ok(Remaining { count, named: page.items.iter().map(RemainingProgram::new).collect() })
}

impl RemainingProgram {
    fn new(program: &DeserializeGuard<BpfProgram>) -> Self {
        let status = program.0.as_ref().ok().and_then(|program| program.status.as_ref());
        let nodes = status.iter().flat_map(|status| &status.node_statuses);
        Self {
            name: program.meta().name.clone().unwrap_or_default(),
            nodes: nodes.map(|node| node.node_name.clone()).collect(),
            omitted: status.map_or(0, |status| usize::try_from(status.node_statuses_omitted).unwrap_or_default()),
        }
    }
}

impl fmt::Display for RemainingProgram {
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

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, named } = self;
        let plural = if *count == 1 { "" } else { "s" };
        let named: Vec<String> = named.iter().map(RemainingProgram::to_string).collect();
        write!(f, "{count} BpfProgram{plural}: {}", named.join("; "))?;
        match count.saturating_sub(named.len()) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response, header::ACCEPT};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::util::service_fn;

    use super::*;

    fn program(name: &str, status: Value) -> Value {
        json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": name},
            "spec": {"bytecode": {"inline": ""}, "programs": []}, "status": status})
    }

    fn placed_on(nodes: &[&str]) -> Value {
        let nodes: Vec<Value> = nodes.iter().map(|node| json!({"nodeName": node})).collect();
        json!({"observedGeneration": 1, "nodeStatuses": nodes})
    }

    /// Deletes BpfPrograms that never go away. Returns the error, and the list requests as `metadata` or `objects`,
    /// with their queries.
    async fn delete_for_two_seconds(programs: Vec<Value>) -> (String, Vec<(&'static str, String)>) {
        let lists = Arc::new(Mutex::new(Vec::new()));
        let service = service_fn({
            let lists = Arc::clone(&lists);
            move |request: Request<Body>| {
                let is_list = request.uri().path().ends_with("/bpfprograms") && request.method() == "GET";
                let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
                let is_metadata = accept.contains("PartialObjectMetadataList");
                if is_list {
                    let query = request.uri().query().unwrap_or_default().to_owned();
                    lists.lock().unwrap().push((if is_metadata { "metadata" } else { "objects" }, query));
                }
                let kind = if is_metadata { "PartialObjectMetadataList" } else { "BpfProgramList" };
                let body = if is_list {
                    json!({"apiVersion": "v1", "kind": kind, "metadata": {}, "items": programs})
                } else {
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})
                };
                async move { Response::builder().body(Body::from(body.to_string().into_bytes())) }
            }
        });
        let error = delete_programs(Client::new(service, "default"), Duration::from_secs(2)).await.unwrap_err();
        let lists = lists.lock().unwrap().clone();
        (error.to_string(), lists)
    }

    #[tokio::test(start_paused = true)]
    async fn lists_in_the_loop_have_metadata_alone_and_pages_and_only_the_last_one_has_a_few_objects() {
        let programs = vec![program("a", placed_on(&["node-1"])), program("b", Value::Null)];
        let (error, lists) = delete_for_two_seconds(programs).await;
        let expected = "2 BpfPrograms: a (on node-1); b (no node reports it; is the operator running?)";
        assert!(error.ends_with(expected), "{error}");
        let (last, polls) = lists.split_last().unwrap();
        assert!(polls.len() >= 4, "{lists:?}");
        assert!(polls.iter().all(|(what, query)| *what == "metadata" && query.contains("limit=50")), "{lists:?}");
        assert!(last.0 == "objects" && last.1.contains("limit=10"), "{lists:?}");
    }

    fn remaining_program(value: Value) -> RemainingProgram {
        RemainingProgram::new(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn an_error_names_the_remaining_programs_with_their_nodes() {
        let named = vec![
            remaining_program(program("a", placed_on(&["node-1", "node-2"]))),
            remaining_program(program("b", placed_on(&[]))),
        ];
        let error = Error::Remaining { remaining: Remaining { count: 2, named }, waited: Duration::from_secs(120) };
        assert_eq!(
            error.to_string(),
            "still there after 120 s: 2 BpfPrograms: a (on node-1, node-2); \
             b (no node reports it; is the operator running?)"
        );
    }

    #[test]
    fn an_error_counts_the_programs_and_nodes_that_it_does_not_name() {
        let nodes: Vec<String> = (0..12).map(|n| format!("n{n}")).collect();
        let named = vec![RemainingProgram { name: "a".into(), nodes, omitted: 3 }; MAX_NAMED];
        let text = Remaining { count: 12, named }.to_string();
        assert!(text.starts_with("12 BpfPrograms: a (on n0, n1,") && text.contains("n9 and 5 more)"), "{text}");
        assert!(text.ends_with("; and 2 more"), "{text}");
    }

    #[test]
    fn an_unreadable_program_is_named_without_nodes() {
        let broken = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "metadata": {"name": "a"}});
        assert_eq!(remaining_program(broken), RemainingProgram { name: "a".into(), nodes: vec![], omitted: 0 });
    }
}
