//! `Progress`: what a run has done so far, and how to undo it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::execution::Executed;
use crate::{
    kernel::{Fd, load::Loaded},
    model::{entries::ListedMaps, observed::LinkKey},
    node::handles::{Handles, ProgramHandle},
};

/// What a run has done so far: the result, the descriptors that later steps need, and how to undo it.
pub(super) struct Progress<'a> {
    /// The agent's descriptors of the home.
    pub handles: &'a mut Handles,
    /// The result so far.
    pub executed: Executed,
    /// What the object's load returned.
    pub loaded: Loaded,
    /// The entries that the spec lists, if any of them are kept in sync.
    pub listed: ListedMaps,
    /// Descriptors of what was created and pinned.
    pub pinned: Handles,
    /// Programs that links ran until now and whose pins were replaced, by function.
    pub replaced_programs: BTreeMap<String, ProgramHandle>,
    /// Links whose pins were replaced by other links' pins. They are detached once all other steps have succeeded.
    pub replaced_links: Vec<(LinkKey, Fd)>,
    /// Programs that maps hold without a link and whose pins were replaced, each with its map; detached likewise.
    pub replaced_on_maps: Vec<(Fd, Fd)>,
    /// The links that the agent can go back to, if a trial begins and what ran before has passed its own.
    pub predecessor_links: Option<BTreeSet<LinkKey>>,
    /// The links that were created.
    pub created_links: BTreeSet<LinkKey>,
    /// The number of links that were created, moved or updated.
    pub attached: usize,
    /// How to undo what was done, in the order in which it was done.
    pub undo: Vec<Undo>,
}

impl<'a> Progress<'a> {
    /// A run that has done nothing yet.
    pub fn new(handles: &'a mut Handles) -> Self {
        Self {
            handles,
            executed: Executed::default(),
            loaded: Loaded::default(),
            listed: ListedMaps::new(),
            pinned: Handles::default(),
            replaced_programs: BTreeMap::new(),
            replaced_links: Vec::new(),
            replaced_on_maps: Vec::new(),
            predecessor_links: None,
            created_links: BTreeSet::new(),
            attached: 0,
            undo: Vec::new(),
        }
    }
}

/// The inverse of something that was done.
pub(super) enum Undo {
    /// Remove the home.
    Leave,
    /// Unpin a map.
    UnpinMap(String),
    /// Pin the former map again.
    RepinMap(String, Fd),
    /// Pin the former record of a map's entries again, or remove the record if there was none.
    RestoreRecord(String, Option<Fd>),
    /// Unpin a program.
    UnpinProgram(String),
    /// Pin the former program again.
    RepinProgram(String, Fd),
    /// Detach a link.
    Detach(LinkKey),
    /// Detach a link, and pin the former one again.
    RepinLink(LinkKey, Fd),
    /// Update a link to the former program.
    UpdateBack(LinkKey, Fd),
    /// Replace the program that a map holds by the former one.
    ReplaceBack(LinkKey, Fd),
    /// Unpin a map where it was kept for its sockets.
    Unkeep(PathBuf),
    /// Write the former text of a note, or remove the note if there was none.
    RestoreNote(PathBuf, Option<String>),
}
