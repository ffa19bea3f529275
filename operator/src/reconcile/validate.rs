//! Validate: checks the latest spec and its bytes. IO: none.
//!
//! Reading an ELF object is CPU work on bytes that a user wrote. It runs on a blocking thread, where a panic in a
//! parser ends that check alone.

use std::{borrow::Cow, mem, sync::Arc};

use sockeye_crds::{BpfProgramSpec, ConditionType, Reason, Refusal, condition, program};
use sockeye_ebpf::{Accepted, values::list::Lists};
use tokio::task::spawn_blocking;

use crate::reconcile::{
    bytecode::GatheredBytecode,
    cache::{CheckInput, CheckResult, ProgramCache},
    gather::Gathered,
    intent::Intent,
};

/// The check did not run. A spec that is not accepted is no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process ends.
    #[error("the check was cancelled")]
    Cancelled,
}

/// The latest spec, checked.
#[derive(Clone, Debug)]
pub struct Validated {
    /// The outcome.
    pub outcome: CheckOutcome,
    /// The bytes, if they were read: only then can they be stored.
    pub bytes: Option<Vec<u8>>,
    /// The lists of entries, if they were read, by map.
    pub lists: Lists,
}

/// The outcome of the check.
#[derive(Clone, Debug)]
pub enum CheckOutcome {
    /// The spec was checked, now or earlier.
    Checked(Arc<CheckResult>),
    /// This generation was accepted and dispatched earlier. Its bytes are no longer where they came from, or others are
    /// there, which changes nothing.
    AcceptedEarlier,
    /// The spec cannot be checked, or not be dispatched.
    Rejected(Refusal),
}

impl Validated {
    /// Returns the accepted spec.
    pub fn accepted(&self) -> Option<&Accepted> {
        match &self.outcome {
            CheckOutcome::Checked(result) => result.as_ref().as_ref().ok(),
            CheckOutcome::AcceptedEarlier | CheckOutcome::Rejected(_) => None,
        }
    }

    /// Returns the reason why the spec is not accepted.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.outcome {
            CheckOutcome::Checked(result) => result.as_ref().as_ref().err(),
            CheckOutcome::Rejected(refusal) => Some(refusal),
            CheckOutcome::AcceptedEarlier => None,
        }
    }
}

/// Checks the latest spec, and caches the result.
pub async fn validate(gathered: &mut Gathered, cache: &mut ProgramCache) -> Result<Validated, Error> {
    let bytecode = mem::replace(&mut gathered.bytecode, GatheredBytecode::Checked);
    let intent = &gathered.intent;
    let mut validated = check_bytecode(intent, bytecode, cache).await?;
    if validated.refusal().is_some_and(|refusal| was_accepted(intent, refusal)) {
        validated.outcome = CheckOutcome::AcceptedEarlier;
    }
    Ok(validated)
}

async fn check_bytecode(
    intent: &Intent,
    bytecode: GatheredBytecode,
    cache: &mut ProgramCache,
) -> Result<Validated, Error> {
    let (input, fetched, lists) = match bytecode {
        GatheredBytecode::Checked => return Ok(cached(cache)),
        GatheredBytecode::Unavailable(refusal) => {
            return Ok(Validated { outcome: CheckOutcome::Rejected(refusal), bytes: None, lists: Lists::new() });
        }
        GatheredBytecode::InSpec(input, lists) => (input, None, lists),
        GatheredBytecode::Fetched(input, bytes, lists) => (input, Some(bytes), lists),
    };
    let (object, read) = (Arc::clone(&intent.object), lists.clone());
    let check = move || match &object.0 {
        Ok(program) => check(&program.spec, fetched, &read),
        Err(invalid) => (Err(Refusal { reason: Reason::InvalidSpec, message: invalid.error.clone() }), None),
    };
    let (result, bytes) = run_check(check).await?;
    Ok(Validated { outcome: CheckOutcome::Checked(store(cache, input, result)), bytes, lists })
}

/// The result of a check, and the bytes if it accepted them.
type Checked = (CheckResult, Option<Vec<u8>>);

/// Runs a check on a blocking thread. One that panics rejects the spec.
async fn run_check(check: impl FnOnce() -> Checked + Send + 'static) -> Result<Checked, Error> {
    match spawn_blocking(check).await {
        Ok(checked) => Ok(checked),
        Err(error) if error.is_panic() => Ok((Err(parser_panicked()), None)),
        Err(_) => Err(Error::Cancelled),
    }
}

fn store(cache: &mut ProgramCache, input: CheckInput, result: CheckResult) -> Arc<CheckResult> {
    let result = Arc::new(result);
    cache.check = Some((input, Arc::clone(&result)));
    result
}

fn cached(cache: &ProgramCache) -> Validated {
    let outcome = match &cache.check {
        Some((_, result)) => CheckOutcome::Checked(Arc::clone(result)),
        None => CheckOutcome::AcceptedEarlier,
    };
    Validated { outcome, bytes: None, lists: Lists::new() }
}

fn check(spec: &BpfProgramSpec, fetched: Option<Vec<u8>>, lists: &Lists) -> Checked {
    let bytes = match fetched.map_or_else(|| bytes_in_spec(&spec.bytecode), Ok) {
        Ok(bytes) => bytes,
        Err(refusal) => return (Err(refusal), None),
    };
    match sockeye_ebpf::check::check_with(spec, &bytes, lists) {
        Ok(accepted) => (Ok(accepted), Some(bytes)),
        Err(refusal) => (Err(refusal), None),
    }
}

fn bytes_in_spec(bytecode: &program::Bytecode) -> Result<Vec<u8>, Refusal> {
    let not_read = || {
        let message = "spec.bytecode.configMapRef has not been read".to_owned();
        Refusal { reason: Reason::BytecodeUnavailable, message }
    };
    sockeye_ebpf::check::embedded_bytes(bytecode)?.map(Cow::into_owned).ok_or_else(not_read)
}

fn parser_panicked() -> Refusal {
    let message = "the bytes are no object that sockeye can read: its reader gave up; please report them".to_owned();
    Refusal { reason: Reason::InvalidObject, message }
}

/// Reports whether this generation was accepted earlier, so that only the source of its bytes is missing or was
/// changed. Whoever may write the ConfigMap must not be able to make the BpfProgram fail.
fn was_accepted(intent: &Intent, refusal: &Refusal) -> bool {
    let accepted = condition::find(&intent.status.conditions, ConditionType::Accepted);
    matches!(refusal.reason, Reason::BytecodeUnavailable | Reason::DigestMismatch)
        && intent.status.current_revision.is_some()
        && accepted.is_some_and(|accepted| {
            accepted.status == condition::Status::True && accepted.observed_generation == Some(intent.generation())
        })
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use serde_json::json;
    use sockeye_crds::names;

    use super::*;
    use crate::watch::{nodes::Nodes, revisions::Revisions};

    /// Gathers a BpfProgram of generation 2 whose ConfigMap holds other bytes than the spec says, and whose status
    /// accepts a generation.
    fn gathered_with_other_bytes(accepted: i64) -> Gathered {
        let digest = names::digest(b"elf");
        let spec = json!({"bytecode": {"configMapRef": {"name": "n", "key": "k", "digest": digest}},
            "programs": [{"name": "my_prog", "attach": [{"type": "Node"}]}]});
        let status = json!({"currentRevision": {"name": "p-1", "programGeneration": accepted, "digest": digest},
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Dispatched", "message": "",
                "observedGeneration": accepted, "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let object: DeserializeGuard<_> = serde_json::from_value(json!({"apiVersion": "sockeye.dev/v1alpha1",
            "kind": "BpfProgram", "metadata": {"name": "p", "uid": "u", "generation": 2}, "spec": spec,
            "status": status}))
        .unwrap();
        let input = CheckInput { uid: "u".into(), generation: 2, config_map: None, lists: Vec::new() };
        Gathered {
            intent: Intent::new(Arc::new(object), &ProgramCache::default()),
            bytecode: GatheredBytecode::Fetched(input, b"other".to_vec(), Lists::new()),
            revisions: Revisions::default(),
            lenders: [].into(),
            borrowers: vec![],
            nodes: Nodes::default(),
        }
    }

    #[tokio::test]
    async fn other_bytes_leave_a_generation_alone_that_was_accepted() {
        let (mut gathered, mut cache) = (gathered_with_other_bytes(2), ProgramCache::default());
        for _ in 0..2 {
            // The second time the result is cached.
            let validated = validate(&mut gathered, &mut cache).await.unwrap();
            assert!(matches!(validated.outcome, CheckOutcome::AcceptedEarlier), "{validated:?}");
        }
    }

    #[tokio::test]
    async fn other_bytes_reject_a_generation_that_was_not_accepted_until_they_are_replaced() {
        let validated = validate(&mut gathered_with_other_bytes(1), &mut ProgramCache::default()).await.unwrap();
        let reason = validated.refusal().unwrap().reason;
        assert_eq!((reason, reason.needs_edit()), (Reason::DigestMismatch, false));
    }

    fn refusal(spec: serde_json::Value, bytes: Option<&[u8]>) -> Refusal {
        let spec: BpfProgramSpec = serde_json::from_value(spec).unwrap();
        check(&spec, bytes.map(<[u8]>::to_vec), &Lists::new()).0.unwrap_err()
    }

    #[test]
    fn a_rejection_names_the_field() {
        let programs = json!([{"name": "my_prog", "attach": [{"type": "Node"}]}]);
        let config_map = |bytes| json!({"configMapRef": {"name": "n", "key": "k", "digest": names::digest(bytes)}});
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
                json!({"bytecode": config_map(b"text"), "programs": programs}),
                Some(&b"text"[..]),
                Reason::InvalidObject,
                "spec.bytecode",
            ),
            (
                json!({"bytecode": config_map(b""), "programs": programs, "nodeSelector": selector}),
                Some(&b""[..]),
                Reason::InvalidSpec,
                "spec.nodeSelector",
            ),
            (
                json!({"bytecode": config_map(b"others"), "programs": programs}),
                Some(&b"text"[..]),
                Reason::DigestMismatch,
                "spec.bytecode.configMapRef.digest",
            ),
        ] {
            let refusal = refusal(spec, bytes);
            assert_eq!(refusal.reason, reason, "{}", refusal.message);
            assert!(refusal.message.starts_with(field), "{}", refusal.message);
        }
    }

    #[test]
    fn the_operator_has_the_bytes_of_a_builtin() {
        let programs = json!([{"name": "measure", "attach": [{"type": "Node"}]}]);
        let spec = serde_json::from_value(json!({"bytecode": {"builtin": "tcp-rtt"}, "programs": programs})).unwrap();
        let (result, bytes) = check(&spec, None, &Lists::new());
        let bytes = bytes.unwrap();
        assert_eq!(bytes, sockeye_ebpf::programs::builtin(sockeye_crds::Builtin::TcpRtt));
        assert_eq!(result.unwrap().digest, names::digest(&bytes));
    }

    #[tokio::test]
    async fn a_check_that_panics_rejects_the_spec() {
        let (result, bytes) = run_check(|| panic!("a parser gave up")).await.unwrap();
        assert_eq!(result.unwrap_err().reason, Reason::InvalidObject);
        assert_eq!(bytes, None);
    }
}
