//! `Subject`: what a relocation is about, in words.

use std::fmt;

use sockeye_crds::names::line;

use super::{kind::RelocationKind, spec::Spec};
use crate::btf::{Btf, Kind, Type, ext::CoreRelo};

/// The longest text of a spec that is kept, in bytes. libbpf cuts it after 255.
const MAX_SPEC: usize = 255;

/// The type and the field or enumerator that a relocation is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The relocation as libbpf prints it: `<byte_off> [12] struct task_struct.pid (0:3 @ offset 24)`.
    pub spec: String,
    /// The type as C writes it: `struct task_struct`.
    pub type_name: String,
    /// The field or enumerator below it: `pid`, `comm[2]`. Empty for the type itself.
    pub field: String,
}

impl Subject {
    /// Describes a relocation of an object's.
    pub(crate) fn of(btf: &Btf<'_>, relo: &CoreRelo) -> Self {
        let root = btf.get(relo.type_id).unwrap_or_else(Type::void);
        let name = root.text();
        let type_name = match root.kind {
            Kind::Struct => format!("struct {name}"),
            Kind::Union => format!("union {name}"),
            Kind::Enum | Kind::Enum64 => format!("enum {name}"),
            _ => name.to_string(),
        };
        let kind = RelocationKind::of(relo.kind);
        let (spec, field) = match kind.and_then(|kind| Spec::parse(btf, relo, kind)) {
            Ok(spec) => (spec.text(btf), spec.field(btf)),
            Err(_) => {
                let (kind, path) = (kind.map_or("unknown", RelocationKind::name), relo.access_str_off);
                let path = btf.strings().text(path);
                (format!("<{kind}> [{}] {} {name} + {path}", root.id, root.kind.name()), String::new())
            }
        };
        let [spec, type_name, field] = [spec, type_name, field].map(|text| line(&text, MAX_SPEC));
        Self { spec, type_name, field }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spec)
    }
}
