//! [`Kind`]: the resources of sockeye, by the names that people type.

use kube::Resource as _;
use sockeye_crds::{BpfNode, BpfNodeDetail, BpfProgram, BpfRevision};

/// A resource of sockeye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BpfProgram.
    Program,
    /// BpfRevision.
    Revision,
    /// BpfNode.
    Node,
    /// BpfNodeDetail.
    Detail,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Program, Self::Revision, Self::Node, Self::Detail];

    /// Returns the kind that a word names: in singular or plural, short, or with the group.
    pub fn of_word(word: &str) -> Option<Self> {
        let word = word.to_lowercase();
        let word = word.strip_suffix(".sockeye.dev").unwrap_or(&word);
        Self::ALL.into_iter().find(|kind| kind.words().contains(&word))
    }

    const fn words(self) -> [&'static str; 5] {
        match self {
            Self::Program => ["bpfprograms", "bpfprogram", "sbpf", "programs", "program"],
            Self::Revision => ["bpfrevisions", "bpfrevision", "sbpfr", "revisions", "revision"],
            Self::Node => ["bpfnodes", "bpfnode", "sbpfn", "nodes", "node"],
            Self::Detail => ["bpfnodedetails", "bpfnodedetail", "sbpfnd", "details", "detail"],
        }
    }

    /// Returns the kind's name.
    pub fn name(self) -> String {
        match self {
            Self::Program => BpfProgram::kind(&()),
            Self::Revision => BpfRevision::kind(&()),
            Self::Node => BpfNode::kind(&()),
            Self::Detail => BpfNodeDetail::kind(&()),
        }
        .into_owned()
    }

    /// Returns the name of its objects together, as the API has it.
    pub const fn plural(self) -> &'static str {
        self.words()[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_definitions() {
        let definitions = sockeye_crds::definitions::definitions();
        for definition in definitions {
            let names = definition.spec.names;
            let kind = Kind::of_word(&names.plural).unwrap();
            assert_eq!((kind.name(), kind.plural()), (names.kind.clone(), &*names.plural));
            let words = names.short_names.into_iter().flatten().chain(names.singular).chain([names.kind]);
            for word in words.chain([format!("{}.sockeye.dev", names.plural)]) {
                assert_eq!(Kind::of_word(&word), Some(kind), "{word}");
            }
        }
        assert_eq!(Kind::of_word("pods"), None);
    }
}
