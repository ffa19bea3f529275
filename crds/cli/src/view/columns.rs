//! [`Columns`]: the table of a resource, by the columns of its definition, as the API server computes them
//! (apiextensions-apiserver, `pkg/registry/customresource/tableconvertor`).

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition, jiff::Timestamp,
};
use serde_json::Value;
use sockeye_crds::definitions;

use crate::output::{
    Table, duration,
    jsonpath::{Template, shown},
};

/// The columns of a resource.
pub struct Columns(Vec<Column>);

struct Column {
    name: String,
    path: Template,
    type_: String,
    is_wide: bool,
}

impl Columns {
    /// Returns the columns of a kind.
    pub fn of_kind(kind: &str) -> Self {
        let definitions = definitions::definitions();
        let definition = definitions.into_iter().find(|definition| definition.spec.names.kind == kind);
        let versions = definition.into_iter().flat_map(|definition| definition.spec.versions);
        let columns = versions.flat_map(|version| version.additional_printer_columns.unwrap_or_default());
        Self(columns.filter_map(column).collect())
    }

    /// Returns the table of these objects.
    pub fn table(&self, objects: &[Value], now: Timestamp) -> Table {
        let mut table = Table::new(&["name"], &[]);
        for Column { name, is_wide, .. } in &self.0 {
            table.add_column(name, *is_wide);
        }
        for object in objects {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            table.row(std::iter::once(name).chain(self.0.iter().map(|column| column.cell(object, now))));
        }
        table
    }
}

fn column(definition: CustomResourceColumnDefinition) -> Option<Column> {
    let CustomResourceColumnDefinition { name, json_path, type_, priority, .. } = definition;
    let path = format!("{{{json_path}}}").parse().ok()?;
    Some(Column { name, path, type_, is_wide: priority.unwrap_or_default() > 0 })
}

impl Column {
    fn cell(&self, object: &Value, now: Timestamp) -> String {
        let value = self.path.first(object);
        match (&*self.type_, value) {
            ("date", value) => duration::age(value.and_then(Value::as_str), now),
            (_, None | Some(Value::Null)) => String::new(),
            ("integer", Some(value)) => value.as_i64().map(|number| number.to_string()).unwrap_or_default(),
            (_, Some(value)) => shown(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_column_of_every_definition_can_be_read() {
        for definition in definitions::definitions() {
            let columns = Columns::of_kind(&definition.spec.names.kind).0.len();
            let defined = definition.spec.versions[0].additional_printer_columns.as_ref().map(Vec::len);
            assert_eq!(Some(columns), defined);
        }
    }

    #[test]
    fn a_program_is_shown_as_kubectl_shows_it() {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let program = |name: &str, status: Value| {
            json!({
                "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status,
            })
        };
        let status = json!({
            "nodes": {"desired": 2, "updated": 1, "failed": 0},
            "summary": {"pods": 3, "programIDs": "7,8", "mapIDs": "5"},
            "conditions": [{"type": "Accepted", "status": "True"}, {"type": "Ready", "status": "False"}],
        });
        let objects = [program("tcp-rtt", status), program("new", Value::Null)];
        let text = Columns::of_kind("BpfProgram").table(&objects, now).render(false, false);
        let expected = "\
NAME      DESIRED   UPDATED   FAILED   PODS   READY   PROGRAM-IDS   MAP-IDS   AGE
tcp-rtt   2         1         0        3      False   7,8           5         60m
new                                                                           60m
";
        assert_eq!(text, expected);
    }
}
