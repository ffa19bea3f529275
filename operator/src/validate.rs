//! `validate`: what becomes of the latest spec. Pure but for the thread it runs on: reading an object is CPU work on bytes
//! that a stranger wrote, so it happens on a blocking thread, where a panic in a parser ends that reading alone.

use std::{borrow::Cow, sync::Arc};

use sockeye_crds::{BpfProgramSpec, ConditionType, Reason, Refusal, condition};
use sockeye_ebpf::Accepted;

use crate::{
    gather::{Bytecode, Gathered, Intent},
    memory::{Fingerprint, Memory, Verdict},
};

/// Why validating failed, as opposed to refusing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process is ending.
    #[error("the check was cancelled")]
    Cancelled,
}

/// What became of the latest spec.
#[derive(Clone, Debug)]
pub struct Validated {
    /// Whether it is accepted, and as what.
    pub judgement: Judgement,
    /// The bytes, where they were read; without them nothing can be stored.
    pub bytes: Option<Vec<u8>>,
}

/// Whether the latest spec is accepted.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// It was checked, now or earlier.
    Checked(Arc<Verdict>),
    /// It was accepted and dispatched once; its bytes are not where they came from any more, which takes nothing back.
    Stands,
    /// It cannot be checked.
    Refused(Refusal),
}

/// Judges the latest spec, and remembers the judgement.
pub async fn validate(gathered: &mut Gathered, memory: &mut Memory) -> Result<Validated, Error> {
    let bytecode = std::mem::replace(&mut gathered.bytecode, Bytecode::Known);
    let intent = &gathered.intent;
    let (fingerprint, fetched) = match bytecode {
        Bytecode::Known => return Ok(known(memory)),
        Bytecode::Unavailable(refusal) => {
            let judgement = if stands(intent, &refusal) { Judgement::Stands } else { Judgement::Refused(refusal) };
            return Ok(Validated { judgement, bytes: None });
        }
        Bytecode::Given(fingerprint) => (fingerprint, None),
        Bytecode::Fetched(fingerprint, bytes) => (fingerprint, Some(bytes)),
    };
    let object = Arc::clone(&intent.object);
    let checking = move || match &object.0 {
        Ok(program) => check(&program.spec, fetched),
        Err(invalid) => (Err(refuse(Reason::InvalidSpec, invalid.error.clone())), None),
    };
    let (verdict, bytes) = aside(checking).await?;
    Ok(Validated { judgement: Judgement::Checked(remember(memory, fingerprint, verdict)), bytes })
}

/// A verdict, and the bytes where they are of use.
type Checked = (Verdict, Option<Vec<u8>>);

/// Checks on a thread of its own; one that panics has refused.
async fn aside(checking: impl FnOnce() -> Checked + Send + 'static) -> Result<Checked, Error> {
    match tokio::task::spawn_blocking(checking).await {
        Ok(checked) => Ok(checked),
        Err(ended) if ended.is_panic() => Ok((Err(unreadable()), None)),
        Err(_) => Err(Error::Cancelled),
    }
}

fn remember(memory: &mut Memory, fingerprint: Fingerprint, verdict: Verdict) -> Arc<Verdict> {
    let verdict = Arc::new(verdict);
    memory.verdict = Some((fingerprint, Arc::clone(&verdict)));
    verdict
}

fn known(memory: &Memory) -> Validated {
    let judgement = match &memory.verdict {
        Some((_, verdict)) => Judgement::Checked(Arc::clone(verdict)),
        None => Judgement::Stands,
    };
    Validated { judgement, bytes: None }
}

/// Decodes and checks.
fn check(spec: &BpfProgramSpec, fetched: Option<Vec<u8>>) -> Checked {
    let bytes = match fetched.map_or_else(|| given(&spec.bytecode), Ok) {
        Ok(bytes) => bytes,
        Err(refusal) => return (Err(refusal), None),
    };
    match sockeye_ebpf::check(spec, &bytes) {
        Ok(accepted) => (Ok(accepted), Some(bytes)),
        Err(refusal) => (Err(refusal), None),
    }
}

fn given(bytecode: &sockeye_crds::program::Bytecode) -> Result<Vec<u8>, Refusal> {
    let unread = || refuse(Reason::BytecodeUnavailable, "spec.bytecode.configMap has not been read".to_owned());
    sockeye_ebpf::check::embedded_bytes(bytecode)?.map(Cow::into_owned).ok_or_else(unread)
}

fn unreadable() -> Refusal {
    let message = "the bytes are no object that sockeye can read: its reader gave up; please report them";
    refuse(Reason::InvalidObject, message.to_owned())
}

fn refuse(reason: Reason, message: String) -> Refusal {
    Refusal { reason, message }
}

/// Whether this very generation was accepted before, so that only its source is missing.
fn stands(intent: &Intent, refusal: &Refusal) -> bool {
    let accepted = condition::find(&intent.status.conditions, ConditionType::Accepted);
    refusal.reason == Reason::BytecodeUnavailable
        && intent.status.dispatch.is_some()
        && accepted.is_some_and(|c| c.status == condition::Status::True && c.observed_generation == intent.generation())
}

impl Validated {
    /// The accepted spec, where there is one.
    pub fn accepted(&self) -> Option<&Accepted> {
        match &self.judgement {
            Judgement::Checked(verdict) => verdict.as_ref().as_ref().ok(),
            Judgement::Stands | Judgement::Refused(_) => None,
        }
    }

    /// Why the latest spec is refused, where it is.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.judgement {
            Judgement::Checked(verdict) => verdict.as_ref().as_ref().err(),
            Judgement::Refused(refusal) => Some(refusal),
            Judgement::Stands => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(spec: serde_json::Value, bytes: Option<&[u8]>) -> Refusal {
        let spec: BpfProgramSpec = serde_json::from_value(spec).unwrap();
        check(&spec, bytes.map(<[u8]>::to_vec)).0.unwrap_err()
    }

    #[test]
    fn a_refusal_names_the_field() {
        let programs = json!([{"name": "my_prog", "attach": [{"cgroup": {"scope": "Node"}}]}]);
        let config_map = json!({"configMap": {"name": "n", "key": "k"}});
        let selector = json!({"matchExpressions": [{"key": "disk", "operator": "Near"}]});
        for (spec, bytes, reason, field) in [
            (json!({"bytecode": {}, "programs": programs}), None, Reason::InvalidSpec, "spec.bytecode"),
            (
                json!({"bytecode": {"inline": "!"}, "programs": programs}),
                None,
                Reason::InvalidSpec,
                "spec.bytecode.inline",
            ),
            (
                json!({"bytecode": config_map, "programs": programs}),
                Some(&b"text"[..]),
                Reason::InvalidObject,
                "spec.bytecode",
            ),
            (
                json!({"bytecode": config_map, "programs": programs, "nodeSelector": selector}),
                Some(&b""[..]),
                Reason::InvalidSpec,
                "spec.nodeSelector",
            ),
        ] {
            let refusal = refused(spec, bytes);
            assert_eq!(refusal.reason, reason, "{}", refusal.message);
            assert!(refusal.message.starts_with(field), "{}", refusal.message);
        }
    }

    #[test]
    fn the_bytes_of_a_builtin_are_the_operators_own() {
        let programs = json!([{"name": "measure", "attach": [{"cgroup": {"scope": "Node"}}]}]);
        let spec = serde_json::from_value(json!({"bytecode": {"builtin": "tcp-rtt"}, "programs": programs})).unwrap();
        let (verdict, bytes) = check(&spec, None);
        let bytes = bytes.unwrap();
        assert_eq!(bytes, sockeye_ebpf::programs::builtin(sockeye_crds::Builtin::TcpRtt));
        assert_eq!(verdict.unwrap().digest, sockeye_crds::names::digest(&bytes));
    }

    #[tokio::test]
    async fn a_check_that_panics_is_a_refusal() {
        let (verdict, bytes) = aside(|| panic!("a parser gave up")).await.unwrap();
        assert_eq!(verdict.unwrap_err().reason, Reason::InvalidObject);
        assert_eq!(bytes, None);
    }
}
