//! [`leftovers`]: the nodes that still run programs once all BpfPrograms are gone. IO: lists BpfNodes.
//!
//! They were not live, so no deletion waited for them.

use kube::{Api, Client, ResourceExt as _, api::ListParams, core::DeserializeGuard};
use sockeye_client::objects::list;
use sockeye_crds::BpfNode;

/// The number of BpfNodes in a page of the list. Each may have a quarter of a megabyte.
const PAGE_SIZE: u32 = 50;

/// A node that ran programs when it last reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The node's name.
    pub node: String,
    /// The names of the BpfPrograms; none if the report cannot be read.
    pub programs: Vec<String>,
}

/// Lists the nodes that ran programs when they last reported. There are none where the resource does not exist.
pub async fn leftovers(client: Client) -> Result<Vec<Leftover>, kube::Error> {
    let api: Api<DeserializeGuard<BpfNode>> = Api::all(client);
    let mut params = ListParams::default().limit(PAGE_SIZE);
    let mut leftovers = Vec::new();
    loop {
        let page = match list(&api, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(leftovers),
            page => page?,
        };
        leftovers.extend(page.items.iter().filter_map(leftover));
        params.continue_token = page.continue_token;
        if params.continue_token.is_none() {
            return Ok(leftovers);
        }
    }
}

fn leftover(node: &DeserializeGuard<BpfNode>) -> Option<Leftover> {
    let programs = match &node.0 {
        Ok(readable) => {
            let held = &readable.status.as_ref()?.programs;
            (!held.is_empty()).then(|| held.iter().map(|held| held.name.clone()).collect())?
        }
        Err(_) => vec![],
    };
    Some(Leftover { node: node.name_any(), programs })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_that_reports_programs_or_cannot_be_read_is_a_leftover() {
        let programs = |status: Value| {
            let node = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfNode", "metadata": {"name": "a"},
                "spec": {}, "status": status});
            leftover(&serde_json::from_value(node).unwrap()).map(|leftover| leftover.programs)
        };
        let held = json!({"p": r#"{"uid": "u", "state": "Attached"}"#});
        assert_eq!(programs(json!({"programs": held})), Some(vec!["p".to_owned()]));
        assert_eq!(programs(json!({"programs": {}})), None);
        assert_eq!(programs(Value::Null), None, "its agent has reported nothing yet");
        assert_eq!(programs(json!({"programs": 7})), Some(vec![]), "it cannot be read");
    }
}
