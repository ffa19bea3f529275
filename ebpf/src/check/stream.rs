//! `spec.maps[].stream`.

use std::collections::BTreeSet;

use sockeye_crds::{
    ObjectInfo, Refusal,
    names::{self, printable},
    program::{MapSpec, StreamSpec},
};

use super::rules::{check_count, invalid};
use crate::{object::Object, values::RecordShape};

/// The types of maps that hold records.
const BUFFERS: [&str; 2] = ["RingBuf", "PerfEventArray"];

/// Checks the stream of a map: that it is a buffer, and that its records are what the spec says.
pub(super) fn check_stream(
    field: &str,
    map: &MapSpec,
    (object, info): (&Object<'_>, &ObjectInfo),
) -> Result<(), Refusal> {
    let Some(stream) = &map.stream else { return Ok(()) };
    let Some(found) = info.maps.iter().find(|found| found.name == map.name) else { return Ok(()) };
    let field = format!("{field}.stream");
    if !BUFFERS.contains(&found.map_type.as_str()) {
        let (name, kind, buffers) = (&map.name, &found.map_type, BUFFERS.join(" and "));
        return Err(invalid(format!("{field}: {name} is of type {kind}; only maps of type {buffers} hold records")));
    }
    check_fields(&field, stream)?;
    if stream.is_agents() && !map.is_pinned() {
        return Err(invalid(format!(
            "{field}.reader: a map with pinning: None can't be read by the agent, which opens it by its pin: leave it \
             pinned"
        )));
    }
    RecordShape::of(object, stream).map_err(|mistake| invalid(mistake.within(&field).to_string()))?;
    Ok(())
}

/// Checks what the schema checks too.
fn check_fields(field: &str, stream: &StreamSpec) -> Result<(), Refusal> {
    let StreamSpec { type_name, fields, .. } = stream;
    check_count(&format!("{field}.fields"), fields.len(), 0, 32)?;
    if !stream.is_agents() && (type_name.is_some() || !fields.is_empty()) {
        return Err(invalid(format!(
            "{field}: typeName and fields say how the agent decodes records: leave them out with reader: External"
        )));
    }
    if type_name.is_none() && !fields.is_empty() {
        return Err(invalid(format!("{field}.fields: fields belong to a type: set typeName")));
    }
    let mut seen = BTreeSet::new();
    for (i, one) in fields.iter().enumerate() {
        if !seen.insert(&one.name) {
            let name = names::clip(&printable(&one.name), 128);
            return Err(invalid(format!("{field}.fields[{i}].name: {name} is there twice")));
        }
    }
    Ok(())
}
