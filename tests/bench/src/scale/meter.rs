//! What the API server counts of itself, at /metrics: the writes of our kinds, and the watch events it sent.

use std::ops::Sub;

use anyhow::Result;
use kube::Client;

/// Reads an API server's counters.
pub struct Meter(pub Client);

/// Counters, or what was added to them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Writes of ConfigMaps.
    pub config_maps: f64,
    /// Writes of BpfRevisions.
    pub revisions: f64,
    /// Writes of BpfPrograms and their statuses; the user's are among them.
    pub programs: f64,
    /// Writes of BpfNodes' statuses.
    pub node_statuses: f64,
    /// Writes of BpfNodes themselves.
    pub nodes: f64,
    /// BpfRevisions told to watchers.
    pub revision_events: f64,
    /// BpfNodes told to watchers.
    pub node_events: f64,
}

impl Counts {
    /// All writes.
    pub fn writes(&self) -> f64 {
        let Self { config_maps, revisions, programs, node_statuses, nodes, revision_events: _, node_events: _ } = self;
        config_maps + revisions + programs + node_statuses + nodes
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            config_maps: self.config_maps - other.config_maps,
            revisions: self.revisions - other.revisions,
            programs: self.programs - other.programs,
            node_statuses: self.node_statuses - other.node_statuses,
            nodes: self.nodes - other.nodes,
            revision_events: self.revision_events - other.revision_events,
            node_events: self.node_events - other.node_events,
        }
    }
}

impl Meter {
    /// What they say now.
    pub async fn read(&self) -> Result<Counts> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        Ok(count(&self.0.request_text(request).await?))
    }
}

fn count(text: &str) -> Counts {
    let mut counts = Counts::default();
    for line in text.lines() {
        let Some((name, labels, value)) = sample(line) else { continue };
        let label = |key: &str| labels.split(',').find_map(|l| l.strip_prefix(key)?.strip_prefix("=\"")?.strip_suffix('"'));
        let written = matches!(label("verb"), Some("POST" | "PUT" | "PATCH" | "APPLY" | "DELETE"));
        let resource = label("resource");
        let counter = match (name, resource, label("subresource")) {
            ("apiserver_request_total", Some("configmaps"), _) if written => &mut counts.config_maps,
            ("apiserver_request_total", Some("bpfrevisions"), _) if written => &mut counts.revisions,
            ("apiserver_request_total", Some("bpfprograms"), _) if written => &mut counts.programs,
            ("apiserver_request_total", Some("bpfnodes"), Some("status")) if written => &mut counts.node_statuses,
            ("apiserver_request_total", Some("bpfnodes"), _) if written => &mut counts.nodes,
            ("apiserver_watch_events_total", Some("bpfrevisions"), _) => &mut counts.revision_events,
            ("apiserver_watch_events_total", Some("bpfnodes"), _) => &mut counts.node_events,
            _ => continue,
        };
        *counter += value;
    }
    counts
}

/// A line of the Prometheus text format: name, labels, value. None of ours has a comma in a label.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.rsplit_once("} ")?;
    Some((name, labels, value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_events_of_ours_are_counted() {
        let text = r#"
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",group="sockeye.dev",resource="bpfnodes",subresource="status",verb="APPLY",version="v1alpha1"} 3
apiserver_request_total{code="200",group="sockeye.dev",resource="bpfnodes",subresource="",verb="LIST",version="v1alpha1"} 9
apiserver_request_total{code="201",group="sockeye.dev",resource="bpfrevisions",subresource="",verb="APPLY",version="v1alpha1"} 1
apiserver_watch_events_total{group="sockeye.dev",resource="bpfrevisions",version="v1alpha1"} 1e+03
"#;
        let expected = Counts { node_statuses: 3.0, revisions: 1.0, revision_events: 1000.0, ..Counts::default() };
        assert_eq!(count(text), expected);
    }
}
