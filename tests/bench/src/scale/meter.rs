//! The API server's own counters, at /metrics: writes of the kinds that sockeye writes.

use std::ops::Sub;

use anyhow::Result;
use kube::Client;

/// Reads an API server's counters.
pub struct Meter(pub Client);

/// Counters, or the difference between two readings.
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
    /// Writes of BpfNodeDetails and their statuses.
    pub details: f64,
}

impl Counts {
    /// All writes. The renewals of the operator's Lease are not counted.
    pub fn writes(&self) -> f64 {
        let Self { config_maps, revisions, programs, node_statuses, nodes, details } = self;
        config_maps + revisions + programs + node_statuses + nodes + details
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
            details: self.details - other.details,
        }
    }
}

impl Meter {
    /// Reads the counters.
    pub async fn read(&self) -> Result<Counts> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        Ok(count(&self.0.request_text(request).await?))
    }
}

fn count(text: &str) -> Counts {
    let mut counts = Counts::default();
    for line in text.lines() {
        let Some((name, labels, value)) = sample(line) else { continue };
        let label =
            |key: &str| labels.split(',').find_map(|l| l.strip_prefix(key)?.strip_prefix("=\"")?.strip_suffix('"'));
        if name != "apiserver_request_total" {
            continue;
        }
        let written = matches!(label("verb"), Some("POST" | "PUT" | "PATCH" | "APPLY" | "DELETE"));
        let counter = match (label("resource"), label("subresource")) {
            _ if !written => continue,
            (Some("configmaps"), _) => &mut counts.config_maps,
            (Some("bpfrevisions"), _) => &mut counts.revisions,
            (Some("bpfprograms"), _) => &mut counts.programs,
            (Some("bpfnodes"), Some("status")) => &mut counts.node_statuses,
            (Some("bpfnodes"), _) => &mut counts.nodes,
            (Some("bpfnodedetails"), _) => &mut counts.details,
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
    fn only_writes_of_sockeyes_resources_are_counted() {
        let text = r#"
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",group="sockeye.dev",resource="bpfnodes",subresource="status",verb="APPLY"} 3
apiserver_request_total{code="200",group="sockeye.dev",resource="bpfnodes",subresource="",verb="LIST"} 9
apiserver_request_total{code="200",group="sockeye.dev",resource="bpfnodedetails",subresource="status",verb="PATCH"} 2
apiserver_request_total{code="201",group="sockeye.dev",resource="bpfrevisions",subresource="",verb="APPLY"} 1e+03
workqueue_depth{name="bpfrevisions"} 7
"#;
        let expected = Counts { node_statuses: 3.0, details: 2.0, revisions: 1000.0, ..Counts::default() };
        assert_eq!(count(text), expected);
    }
}
