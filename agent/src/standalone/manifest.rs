//! `Manifest`: one BpfProgram in a file, read as the API server reads it and validated as the operator does. Does IO:
//! reads files.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use kube::Resource as _;
use serde_json::Value;
use sockeye_crds::{
    BpfProgram, BpfProgramStatus, BpfRevision, BpfRevisionSpec, Reason, Refusal, RevisionTemplate, names,
    revision::ProgramRef, summary::Acceptance,
};
use sockeye_ebpf::check::{check, embedded_bytes};

/// The UID of all BpfPrograms of a folder: their names tell them apart, and a manifest put back is the same object.
const UID: &str = "standalone";

/// What changes when a file is written: its time and its length.
pub type Stamp = (SystemTime, u64);

/// One manifest, as last read.
#[derive(Debug)]
pub struct Manifest {
    /// Of the file, when it was read.
    pub stamp: Stamp,
    /// The BpfProgram, without `inline` if it was accepted: `dispatched` has the bytes, which are most of what is kept.
    pub program: Result<Box<BpfProgram>, String>,
    /// Whether it is run, and if not, why.
    pub acceptance: Acceptance,
    /// The acceptance apart from other manifests.
    own_acceptance: Acceptance,
    /// What was accepted last.
    pub dispatched: Option<Dispatched>,
    /// As last written.
    pub status: BpfProgramStatus,
    /// Whether the written status is about this manifest, not about its predecessor.
    pub reported: bool,
    /// Why another manifest keeps this one from being run, if one does.
    conflict: Option<Conflict>,
}

/// Why one manifest keeps another one from being run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conflict {
    /// It has the same name and is run instead.
    Namesake,
    /// It has a map that the other one names, and does not share it.
    Unshared,
}

/// An accepted manifest.
#[derive(Clone, Debug)]
pub struct Dispatched {
    /// The revision to run.
    pub revision: Arc<BpfRevision>,
    /// Its object.
    pub bytes: Arc<[u8]>,
}

impl Manifest {
    /// Reads and validates a manifest. What was accepted before stays dispatched until something else is accepted.
    pub fn read(path: &Path, stamp: Stamp, previous: Option<Self>) -> Self {
        let (before, status) = previous.map(|previous| (previous.dispatched, previous.status)).unwrap_or_default();
        let mut parsed = parse(path);
        let accepted = match &mut parsed {
            Ok(program) => accept(program).inspect(|_| program.spec.bytecode.inline = None),
            Err(message) => Err(Refusal { reason: Reason::InvalidSpec, message: message.clone() }),
        };
        let (acceptance, dispatched) = match accepted {
            Ok((dispatched, notes)) => (Acceptance::Accepted { notes }, Some(dispatched)),
            Err(Refusal { reason, message }) => (Acceptance::Refused { reason, message }, before),
        };
        let own_acceptance = acceptance.clone();
        let program = parsed.map(Box::new);
        Self { stamp, program, acceptance, own_acceptance, dispatched, status, reported: false, conflict: None }
    }

    /// Returns the BpfProgram's name, if the manifest can be read.
    pub fn name(&self) -> Option<&str> {
        self.program.as_ref().ok()?.metadata.name.as_deref()
    }

    /// Returns the name of the BpfProgram that the manifest has, or had when it was accepted last.
    pub fn claimed_name(&self) -> Option<&str> {
        let dispatched = || Some(self.dispatched.as_ref()?.revision.spec.program_ref.name.as_str());
        self.name().or_else(dispatched)
    }

    /// Returns whether another manifest has the same name and is run instead.
    pub fn is_namesake(&self) -> bool {
        self.conflict == Some(Conflict::Namesake)
    }

    /// Returns what is run of the manifest.
    pub fn running(&self) -> Option<&Dispatched> {
        self.dispatched.as_ref().filter(|_| self.conflict.is_none())
    }

    /// Refuses the manifest because another file has a BpfProgram of the same name.
    pub fn refuse_as_namesake(&mut self, other: &str) {
        let name = self.claimed_name().unwrap_or_default();
        let message = format!("metadata.name: {other} has a BpfProgram {name} too, and is run: rename one of them");
        self.refuse(Conflict::Namesake, Reason::InvalidSpec, message);
    }

    /// Refuses the manifest because a map that it names is not shared. What the node has of it stays.
    pub fn refuse_as_borrower(&mut self, message: String) {
        self.refuse(Conflict::Unshared, Reason::MapNotShared, message);
    }

    fn refuse(&mut self, conflict: Conflict, reason: Reason, message: String) {
        let refused = Acceptance::Refused { reason, message: message.clone() };
        if self.acceptance != refused {
            tracing::warn!(reason = reason.as_str(), "{message}");
        }
        (self.acceptance, self.conflict) = (refused, Some(conflict));
    }

    /// Judges the manifest by itself: no other one keeps it from being run.
    pub fn judge_alone(&mut self) {
        if self.conflict.take().is_some() {
            self.acceptance = self.own_acceptance.clone();
        }
    }
}

/// Returns whether a file is the status of a BpfProgram, as the agent writes it.
pub fn is_status(path: &Path) -> bool {
    let value = fs::read_to_string(path).ok().and_then(|text| serde_saphyr::from_str::<Value>(&text).ok());
    value.is_some_and(|value| is_bpf_program(&value) && value.get("status").is_some())
}

/// Returns the reference to a manifest's BpfProgram.
pub fn reference(program: &BpfProgram) -> ProgramRef {
    ProgramRef { name: program.metadata.name.clone().unwrap_or_default(), uid: UID.to_owned() }
}

fn is_bpf_program(value: &Value) -> bool {
    value["apiVersion"] == BpfProgram::api_version(&()).as_ref() && value["kind"] == BpfProgram::kind(&()).as_ref()
}

/// Reads a manifest as the API server does it under strict validation.
fn parse(path: &Path) -> Result<BpfProgram, String> {
    let wrong = |what: String| format!("{}: {what}", path.display());
    let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    if !is_bpf_program(&value) {
        return Err(wrong(format!("it is no {} of {}", BpfProgram::kind(&()), BpfProgram::api_version(&()))));
    }
    let mut unknown = Vec::new();
    let note = |path: serde_ignored::Path<'_>| unknown.push(field(&path.to_string()));
    let program: BpfProgram = serde_ignored::deserialize(value, note).map_err(|e| wrong(e.to_string()))?;
    // These two are checked above, and no field of the type.
    unknown.retain(|field| !matches!(field.as_str(), "apiVersion" | "kind"));
    if !unknown.is_empty() {
        return Err(wrong(format!("unknown field {}", unknown.join(", "))));
    }
    let name = program.metadata.name.as_deref().unwrap_or_default();
    if !names::is_dns_label(name) {
        return Err(wrong(format!("metadata.name {name:?} is no DNS label: it names a directory on bpffs")));
    }
    Ok(program)
}

/// Names a field as the API server does: `attach[0].pods.selector`, where serde_ignored has `attach.0.pods.?.selector`.
fn field(path: &str) -> String {
    path.split('.').filter(|part| *part != "?").fold(String::new(), |at, part| match part.parse::<usize>() {
        Ok(index) => format!("{at}[{index}]"),
        Err(_) if at.is_empty() => part.to_owned(),
        Err(_) => format!("{at}.{part}"),
    })
}

/// Validates a BpfProgram as the operator does; returns what is run of it, and notes for its user.
fn accept(program: &BpfProgram) -> Result<(Dispatched, Vec<String>), Refusal> {
    let bytes = embedded_bytes(&program.spec.bytecode)?.ok_or_else(|| Refusal {
        reason: Reason::BytecodeUnavailable,
        message: "spec.bytecode: without a cluster only inline and builtin can be used".to_owned(),
    })?;
    let accepted = check(&program.spec, &bytes)?;
    let notes = accepted.notes.clone();
    let spec = accepted.into_revision_spec(reference(program), 1, 1);
    let spec = BpfRevisionSpec { sequence: sequence(&spec.template), ..spec };
    Ok((Dispatched { revision: Arc::new(BpfRevision::of(spec)), bytes: bytes.into_owned().into() }, notes))
}

/// Returns a sequence that follows from the content. Nobody counts revisions here; so the same content is the same
/// revision, also for the next agent, and another content is another one.
fn sequence(template: &RevisionTemplate) -> i64 {
    let content = serde_json::to_vec(template).unwrap_or_default();
    let digest = names::digest(&content);
    let digits = digest.trim_start_matches(names::DIGEST_PREFIX).get(..8).unwrap_or_default();
    i64::from_str_radix(digits, 16).unwrap_or_default() + 1
}
