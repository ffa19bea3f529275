//! `Relocator`: CO-RE relocations of an object's instructions against the kernel's types, with libbpf's answers
//! (src/relo_core.c). No IO.
//!
//! A relocation asks about a type, field or enumerator of the object's. The kernel's types of the same name, without
//! flavours (`___x`), are its candidates. All that have it must give the same answer. If none has it, questions whether
//! something exists, and those about a type, are answered with 0; all others leave an instruction that the verifier
//! refuses if it can be reached ([`Cause`]).
//!
//! | module | noun |
//! |---|---|
//! | `spec` | where an access leads |
//! | `find` | the same access in a type of the kernel's |
//! | `compat`, `matching` | whether types may stand for each other |
//! | `answer` | the value before and after |
//! | `patch` | the instruction |
//! | `budget` | the work that all relocations may take |

mod answer;
mod budget;
mod compat;
mod error;
mod find;
mod kind;
mod matching;
mod patch;
mod spec;

use std::collections::HashMap;

use self::{
    answer::{Answer, answer},
    budget::Budget,
    compat::Pair,
    spec::Spec,
};
pub use self::{
    error::{Cause, CoreError, Reason, Subject},
    kind::RelocationKind,
    patch::BAD_RELO,
};
use crate::btf::{Btf, KernelBtf, Kind, Type, ext::CoreRelo};

/// Returns whether a type of the object's may stand for one of the kernel's (libbpf's `bpf_core_types_are_compat`), as
/// the prototype of a function that the object declares must.
pub(crate) fn are_compatible(local: &Btf<'_>, type_id: u32, kernel: &KernelBtf, target: u32) -> bool {
    let (types, mut budget) = (kernel.btf(), Budget::new());
    Pair { local, target: &types, budget: &mut budget }.are_types(type_id, target, compat::MAX_LEVEL).unwrap_or(false)
}

/// Relocates the instructions of one object.
///
/// libbpf remembers the candidates of each of the object's types, and drops those that did not have what an earlier
/// relocation found in others. So the order matters: that of `.BTF.ext`.
#[derive(Debug)]
pub struct Relocator<'a> {
    local: &'a Btf<'a>,
    kernel: &'a KernelBtf,
    target: Btf<'a>,
    candidates: HashMap<u32, Vec<u32>>,
    budget: Budget,
}

impl<'a> Relocator<'a> {
    /// Prepares to relocate an object with these types against the kernel's.
    pub fn new(local: &'a Btf<'a>, kernel: &'a KernelBtf) -> Self {
        Self { local, kernel, target: kernel.btf(), candidates: HashMap::new(), budget: Budget::new() }
    }

    /// Relocates the instruction that the code begins with. Returns why the instruction has become invalid, if it has.
    pub fn relocate(&mut self, relo: &CoreRelo, code: &mut [u8]) -> Result<Option<Cause>, CoreError> {
        let patched = self.answer(relo).and_then(|answer| patch::patch(code, &answer));
        patched.map_err(|reason| CoreError { subject: Box::new(self.subject(relo)), reason })
    }

    /// Describes a relocation.
    pub fn subject(&self, relo: &CoreRelo) -> Subject {
        let root = self.local.get(relo.type_id).unwrap_or_else(Type::void);
        let tag = match root.kind {
            Kind::Struct => "struct ",
            Kind::Union => "union ",
            Kind::Enum | Kind::Enum64 => "enum ",
            _ => "",
        };
        let type_name = format!("{tag}{}", root.text());
        let kind = RelocationKind::of(relo.kind);
        match kind.and_then(|kind| Spec::parse(self.local, relo, kind)) {
            Ok(spec) => Subject::new(&spec.text(self.local), &type_name, &spec.field(self.local)),
            Err(_) => {
                let (kind, path) = (kind.map_or("unknown", RelocationKind::name), relo.access_str_off);
                let path = self.local.strings().text(path);
                let spec = format!("<{kind}> [{}] {} {} + {path}", root.id, root.kind.name(), root.text());
                Subject::new(&spec, &type_name, "")
            }
        }
    }

    /// Answers a relocation (libbpf's `bpf_core_calc_relo_insn`).
    fn answer(&mut self, relo: &CoreRelo) -> Result<Answer, Reason> {
        let kind = RelocationKind::of(relo.kind)?;
        let root = self.local.get(relo.type_id).ok_or(Reason::Record)?;
        let spec = Spec::parse(self.local, relo, kind)?;
        self.budget.take(spec.raw.len() + 1)?;
        if kind == RelocationKind::LocalTypeId {
            return answer((self.local, &spec), (self.local, Some(&spec)));
        }
        if root.name().is_empty() {
            return Err(Reason::Anonymous);
        }
        let kernel = self.kernel;
        let candidates = self.candidates.entry(root.id);
        let candidates = candidates.or_insert_with(|| kernel.candidates(root.name(), root.kind));
        let mut pair = Pair { local: self.local, target: &self.target, budget: &mut self.budget };
        let mut given: Option<Answer> = None;
        let mut kept = Vec::new();
        for candidate in candidates.iter().copied() {
            let Some(found) = pair.find(&spec, candidate)? else { continue };
            let one = answer((self.local, &spec), (&self.target, Some(&found)))?;
            let is_same = |first: Answer| {
                let value = |answer: Answer| answer.new.map(|new| new.value);
                first.bit_offset == one.bit_offset && value(first) == value(one)
            };
            if !given.is_none_or(is_same) {
                return Err(Reason::Ambiguous);
            }
            given.get_or_insert(one);
            kept.push(candidate);
        }
        match given {
            Some(given) => {
                *candidates = kept;
                Ok(given)
            }
            None => answer((self.local, &spec), (&self.target, None)),
        }
    }
}
