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
//! | `candidates` | the kernel's types of a name |
//! | `spec`, `subject` | where an access leads, and the same in words |
//! | `find` | the same access in a type of the kernel's |
//! | `compat`, `matching` | whether types may stand for each other |
//! | `answer` | the value before and after |
//! | `patch` | the instruction |
//! | `budget` | the work that all relocations may take |

mod answer;
mod budget;
mod candidates;
mod compat;
mod error;
mod find;
mod kind;
mod matching;
mod patch;
mod reason;
mod spec;
mod subject;

use self::{
    answer::{Answer, answer},
    budget::{Budget, STEP},
    candidates::Candidates,
    compat::Pair,
    spec::Spec,
};
pub use self::{
    error::{Cause, CoreError},
    kind::RelocationKind,
    patch::BAD_RELO,
    reason::Reason,
    subject::Subject,
};
use crate::btf::{Btf, KernelBtf, ext::CoreRelo};

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
    target: Btf<'a>,
    candidates: Candidates<'a>,
    budget: Budget,
}

impl<'a> Relocator<'a> {
    /// Prepares to relocate an object with these types against the kernel's.
    pub fn new(local: &'a Btf<'a>, kernel: &'a KernelBtf) -> Self {
        Self { local, target: kernel.btf(), candidates: Candidates::new(kernel), budget: Budget::new() }
    }

    /// Relocates the instruction that the code begins with. Returns why the instruction has become invalid, if it has.
    pub fn relocate(&mut self, relo: &CoreRelo, code: &mut [u8]) -> Result<Option<Cause>, CoreError> {
        let patched = self.answer(relo).and_then(|answer| patch::patch(code, &answer));
        match patched {
            Ok(Some(Cause::Missing)) if !self.has_type(relo) => Ok(Some(Cause::Type)),
            Ok(cause) => Ok(cause),
            Err(reason) => Err(CoreError { subject: Box::new(self.subject(relo)), reason }),
        }
    }

    /// Returns whether the kernel has a type of the name and kind that a relocation is about.
    fn has_type(&mut self, relo: &CoreRelo) -> bool {
        let root = self.local.get(relo.type_id);
        root.is_some_and(|root| self.candidates.of(&root, &mut self.budget).is_ok_and(|found| !found.is_empty()))
    }

    /// Describes a relocation.
    pub fn subject(&self, relo: &CoreRelo) -> Subject {
        Subject::of(self.local, relo)
    }

    /// Answers a relocation (libbpf's `bpf_core_calc_relo_insn`).
    fn answer(&mut self, relo: &CoreRelo) -> Result<Answer, Reason> {
        let kind = RelocationKind::of(relo.kind)?;
        let root = self.local.get(relo.type_id).ok_or(Reason::Record)?;
        let spec = Spec::parse(self.local, relo, kind)?;
        self.budget.take(STEP * (spec.raw.len() + 1))?;
        if kind == RelocationKind::LocalTypeId {
            return answer((self.local, &spec), (self.local, Some(&spec)));
        }
        if root.name().is_empty() {
            return Err(Reason::Anonymous);
        }
        let candidates = self.candidates.of(&root, &mut self.budget)?;
        let mut pair = Pair { local: self.local, target: &self.target, budget: &mut self.budget };
        let mut given: Option<Answer> = None;
        let mut kept = Vec::new();
        for candidate in candidates.iter().copied() {
            let Some(found) = pair.find(&spec, candidate)? else { continue };
            pair.budget.take(STEP)?;
            let one = answer((self.local, &spec), (&self.target, Some(&found)))?;
            if !given.is_none_or(|first| first.is_same(&one)) {
                return Err(Reason::Ambiguous);
            }
            given.get_or_insert(one);
            kept.push(candidate);
        }
        let Some(given) = given else {
            return answer((self.local, &spec), (&self.target, None));
        };
        if kept.len() < candidates.len() {
            self.candidates.keep(root.id, kept);
        }
        Ok(given)
    }
}
