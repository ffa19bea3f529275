//! Records of ring buffers as lines.

use serde::Serialize;
use serde_json::Value;
use sockeye_read_api::record::Pod;

use crate::output::{jsonpath::shown, table::escaped};

/// A record of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The time at which the agent read it.
    pub time: String,
    /// The node.
    pub node: String,
    /// The map.
    pub map: String,
    /// The pod that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// The record.
    pub value: Value,
}

/// Selects records by the pods that they are about.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this pod.
    pub pod: Option<String>,
}

impl EventFilter {
    /// Returns whether a record is selected.
    pub fn matches(&self, event: &Event) -> bool {
        let is = |wanted: &Option<String>, of: fn(&Pod) -> &str| match (wanted, &event.pod) {
            (None, _) => true,
            (Some(wanted), Some(pod)) => of(pod) == wanted,
            (Some(_), None) => false,
        };
        is(&self.namespace, |pod| &pod.namespace) && is(&self.pod, |pod| &pod.name)
    }
}

/// Returns a record as a line: time, node, pod, and its fields.
pub fn line(event: &Event) -> String {
    let Event { time, node, map: _, pod, value } = event;
    let pod = pod.as_ref().map_or("-".to_owned(), |pod| match &pod.container {
        Some(container) => format!("{}/{} [{container}]", pod.namespace, pod.name),
        None => format!("{}/{}", pod.namespace, pod.name),
    });
    let fields = match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name}={}", shown(value));
            fields.iter().map(field).collect::<Vec<_>>().join(" ")
        }
        other => shown(other),
    };
    // Milliseconds are enough to read; JSON has all digits.
    let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time);
    let time = time.get(..12).unwrap_or(time.trim_end_matches('Z'));
    // All of it is what a node says.
    escaped(&format!("{time}  {node}  {pod}  {fields}").replace('\n', " ")) + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(pod: Option<(&str, &str)>) -> Event {
        let pod = pod.map(|(namespace, name)| Pod { namespace: namespace.into(), name: name.into(), container: None });
        Event {
            time: "2026-01-01T10:20:30.123456789Z".into(),
            node: "a".into(),
            map: "events".into(),
            pod,
            value: json!({"port": 443, "to": "10.0.0.1\u{1b}"}),
        }
    }

    #[test]
    fn a_line_has_time_node_pod_and_fields() {
        assert_eq!(line(&event(Some(("shop", "web")))), "10:20:30.123  a  shop/web  port=443 to=10.0.0.1^[\n");
        assert_eq!(line(&event(None)), "10:20:30.123  a  -  port=443 to=10.0.0.1^[\n");
    }

    #[test]
    fn nothing_that_a_node_says_moves_the_cursor_or_begins_a_line() {
        let mut event = event(Some(("shop\u{9b}2J", "web\nfake")));
        event.time = "\u{1b}]0;x\u{7}".into();
        assert_eq!(line(&event), "^[]0;x\\u{7}  a  shop\\u{9b}2J/web fake  port=443 to=10.0.0.1^[\n");
    }

    #[test]
    fn records_of_other_pods_are_left_out() {
        let filter = EventFilter { namespace: Some("shop".into()), pod: None };
        assert!(filter.matches(&event(Some(("shop", "web")))) && !filter.matches(&event(Some(("other", "web")))));
        assert!(!filter.matches(&event(None)) && EventFilter::default().matches(&event(None)));
        let filter = EventFilter { namespace: Some("shop".into()), pod: Some("db".into()) };
        assert!(!filter.matches(&event(Some(("shop", "web")))));
    }
}
