//! [`Revisions`]: the BpfRevisions of one BpfProgram. IO: none.

use kube::{
    Resource as _,
    api::ObjectMeta,
    core::{DeserializeGuard, error_boundary::InvalidObject},
};
use sockeye_crds::{BpfProgramStatus, BpfRevision, revision::ProgramRef};

/// The revisions of one BpfProgram, whether or not agents may run them. Those of an earlier BpfProgram of the same name
/// are not among them.
#[derive(Clone, Debug, Default)]
pub struct Revisions {
    /// Those that this operator can read.
    pub readable: Vec<BpfRevision>,
    /// The metadata of the others, which a newer operator created.
    pub unreadable: Vec<ObjectMeta>,
    /// The highest sequence of all revisions of BpfPrograms of this name, whatever their UIDs; 0 if there are none.
    pub highest_sequence: i64,
}

impl Revisions {
    /// Picks the revisions of a BpfProgram.
    pub fn of<'a>(program: &ProgramRef, all: impl IntoIterator<Item = &'a DeserializeGuard<BpfRevision>>) -> Self {
        let mut revisions = Self::default();
        for revision in all {
            let named = revision.meta().name.as_deref().and_then(|name| sequence_in(name, &program.name));
            let own = revision.0.as_ref().ok().filter(|readable| readable.spec.program_ref.name == program.name);
            let sequences = named.into_iter().chain(own.map(|own| own.spec.sequence));
            revisions.highest_sequence = sequences.fold(revisions.highest_sequence, i64::max);
            match &revision.0 {
                Ok(readable) if readable.spec.program_ref.uid == program.uid => {
                    revisions.readable.push(readable.clone());
                }
                Err(InvalidObject { metadata, .. }) if is_owned_by(metadata, &program.uid) => {
                    revisions.unreadable.push(metadata.clone());
                }
                _ => {}
            }
        }
        revisions
    }

    /// Returns the revision that agents run: the live one of the highest sequence, among those that can be read.
    pub fn newest(&self) -> Option<&BpfRevision> {
        self.readable.iter().filter(|revision| revision.is_live()).max_by_key(|revision| revision.spec.sequence)
    }

    /// Returns whether the current revision of the BpfProgram's status is not among them. Either they were watched
    /// before it was created, or somebody deleted it.
    pub fn lag_behind(&self, status: &BpfProgramStatus) -> bool {
        let current = status.current_revision.as_ref();
        current.is_some_and(|current| !self.metadata().any(|revision| revision.name.as_ref() == Some(&current.name)))
    }

    /// Returns whether agents may run any of them. One that can't be read may be one that they run.
    pub fn has_live(&self) -> bool {
        self.newest().is_some() || self.unreadable.iter().any(|metadata| metadata.deletion_timestamp.is_none())
    }

    /// Lists the metadata of all revisions.
    pub fn metadata(&self) -> impl Iterator<Item = &ObjectMeta> {
        self.readable.iter().map(|revision| &revision.metadata).chain(&self.unreadable)
    }
}

/// Returns the sequence in a revision's name, if it is one of a BpfProgram of this name.
pub fn sequence_in(revision: &str, program: &str) -> Option<i64> {
    let digits = revision.strip_prefix(program)?.strip_prefix('-')?;
    digits.parse().ok().filter(|sequence| *sequence > 0)
}

fn is_owned_by(metadata: &ObjectMeta, uid: &str) -> bool {
    metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sockeye_client::Decode as _;

    use super::*;

    /// Builds a revision of program `p`, which can't be read without an object.
    fn revision(name: &str, uid: &str, sequence: i64, object: Value) -> DeserializeGuard<BpfRevision> {
        let template = json!({"digest": "", "object": object, "programs": []});
        let spec = json!({"state": "Active", "programRef": {"name": "p", "uid": uid}, "programGeneration": 1,
            "sequence": sequence, "template": template});
        let owners = json!([{"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfProgram", "name": "p", "uid": uid}]);
        let revision = json!({"apiVersion": "sockeye.dev/v1alpha1", "kind": "BpfRevision",
            "metadata": {"name": name, "ownerReferences": owners}, "spec": spec});
        let metadata = || serde_json::from_value(revision["metadata"].clone()).unwrap();
        DeserializeGuard::decode(&revision.to_string())
            .unwrap_or_else(|error| DeserializeGuard::unreadable(metadata(), error.to_string()))
    }

    fn readable(name: &str, uid: &str, sequence: i64) -> DeserializeGuard<BpfRevision> {
        revision(name, uid, sequence, json!({"programs": [], "maps": [], "license": "GPL", "btf": true}))
    }

    #[test]
    fn sequences_go_on_over_all_revisions_of_a_name() {
        let program = ProgramRef { name: "p".into(), uid: "new".into() };
        let revisions = [
            readable("p-1", "new", 1),
            readable("p-2", "old", 2),
            revision("p-3", "new", 3, json!(7)),
            revision("p-4", "old", 4, json!(7)),
            revision("p-x-9", "new", 9, json!(7)),
        ];
        let highest = |count: usize| Revisions::of(&program, &revisions[..count]).highest_sequence;
        assert_eq!([0, 1, 2, 3, 4, 5].map(highest), [0, 1, 2, 3, 4, 4], "p-x-9 is a revision of p-x");
        let own = Revisions::of(&program, &revisions);
        assert_eq!((own.readable.len(), own.unreadable.len()), (1, 2));
        assert_eq!(Revisions::of(&program, &[readable("another", "old", 7)]).highest_sequence, 7);
    }

    #[test]
    fn a_name_has_a_sequence_only_of_its_own_program() {
        let sequences = ["p-1", "p-12", "p-0", "p--1", "p-1-2", "p-", "p", "q-1", "p-a", "p-9999999999999999999"];
        let expected = [Some(1), Some(12), None, None, None, None, None, None, None, None];
        assert_eq!(sequences.map(|name| sequence_in(name, "p")), expected);
        assert_eq!(sequence_in("p-1-2", "p-1"), Some(2));
    }
}
