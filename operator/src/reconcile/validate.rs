//! Validate: checks the latest spec and its bytes, and who signed these. IO: none.
//!
//! Reading an ELF object is CPU work on bytes that a user wrote. It runs on a blocking thread, where a panic in a
//! parser ends that check alone.

use std::{mem, sync::Arc};

use sockeye_crds::{ConditionType, Reason, Refusal, condition};
use sockeye_ebpf::{Accepted, values::list::Lists};
use tokio::task::spawn_blocking;

use crate::{
    reconcile::{
        bytecode::GatheredBytecode,
        cache::{CheckInput, CheckResult, ProgramCache},
        check::{Checked, ReadBytes, check},
        gather::Gathered,
        intent::Intent,
    },
    signing::Signing,
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
    /// The other bytes to store, with their digests: objects of further architectures, and proofs.
    pub further: Vec<(String, Vec<u8>)>,
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
pub async fn validate(
    gathered: &mut Gathered,
    cache: &mut ProgramCache,
    signing: &Signing,
) -> Result<Validated, Error> {
    let bytecode = mem::replace(&mut gathered.bytecode, GatheredBytecode::Checked);
    let intent = &gathered.intent;
    let mut validated = check_bytecode(intent, bytecode, cache, signing).await?;
    if validated.refusal().is_some_and(|refusal| was_accepted(intent, refusal)) && !is_unjudged(gathered, signing) {
        validated.outcome = CheckOutcome::AcceptedEarlier;
    }
    Ok(validated)
}

async fn check_bytecode(
    intent: &Intent,
    bytecode: GatheredBytecode,
    cache: &mut ProgramCache,
    signing: &Signing,
) -> Result<Validated, Error> {
    let (input, source, lists) = match bytecode {
        GatheredBytecode::Checked => return Ok(cached(cache)),
        GatheredBytecode::Unavailable(refusal) => return Ok(unread(CheckOutcome::Rejected(refusal))),
        GatheredBytecode::InSpec(input, lists) => (input, ReadBytes::InSpec, lists),
        GatheredBytecode::Fetched(input, bytes, lists) => (input, ReadBytes::Fetched(bytes), lists),
        GatheredBytecode::Image(input, content, lists) => (input, ReadBytes::Image(content), lists),
    };
    let (object, read, signing) = (Arc::clone(&intent.object), lists.clone(), signing.clone());
    let check = move || match &object.0 {
        Ok(program) => check(&program.spec, source, &read, &signing),
        Err(invalid) => Err(Refusal { reason: Reason::InvalidSpec, message: invalid.error.clone() }),
    };
    let (result, bytes, further) = match run_check(check).await? {
        Ok(Checked { accepted, bytes, further }) => (Ok(accepted), Some(bytes), further),
        Err(refusal) => (Err(refusal), None, Vec::new()),
    };
    Ok(Validated { outcome: CheckOutcome::Checked(store(cache, input, result)), bytes, further, lists })
}

/// Runs a check on a blocking thread. One that panics rejects the spec.
async fn run_check(
    check: impl FnOnce() -> Result<Checked, Refusal> + Send + 'static,
) -> Result<Result<Checked, Refusal>, Error> {
    match spawn_blocking(check).await {
        Ok(checked) => Ok(checked),
        Err(error) if error.is_panic() => Ok(Err(parser_panicked())),
        Err(_) => Err(Error::Cancelled),
    }
}

fn store(cache: &mut ProgramCache, input: CheckInput, result: CheckResult) -> Arc<CheckResult> {
    let result = Arc::new(result);
    cache.check = Some((input, Arc::clone(&result)));
    result
}

fn cached(cache: &ProgramCache) -> Validated {
    unread(match &cache.check {
        Some((_, result)) => CheckOutcome::Checked(Arc::clone(result)),
        None => CheckOutcome::AcceptedEarlier,
    })
}

fn unread(outcome: CheckOutcome) -> Validated {
    Validated { outcome, bytes: None, further: Vec::new(), lists: Lists::new() }
}

fn parser_panicked() -> Refusal {
    let message = "the bytes are no object that sockeye can read: its reader gave up; please report them".to_owned();
    Refusal { reason: Reason::InvalidObject, message }
}

/// Reports whether this generation was accepted earlier, so that only the source of its bytes is missing or was
/// changed. Whoever may write the ConfigMap must not be able to make the BpfProgram fail.
fn was_accepted(intent: &Intent, refusal: &Refusal) -> bool {
    let accepted = condition::find(&intent.status.conditions, ConditionType::Accepted);
    let is_about_source = matches!(
        refusal.reason,
        Reason::BytecodeUnavailable | Reason::DigestMismatch | Reason::ImagePulling | Reason::ImagePullFailed
    );
    is_about_source
        && intent.status.current_revision.is_some()
        && accepted.is_some_and(|accepted| {
            accepted.status == condition::Status::True && accepted.observed_generation == Some(intent.generation())
        })
}

/// Reports whether what is dispatched must not count as accepted, since it was never judged by the policy. It was
/// dispatched before there was one.
fn is_unjudged(gathered: &Gathered, signing: &Signing) -> bool {
    signing.enforces() && gathered.revisions.newest().is_none_or(|newest| newest.spec.template.proof.is_none())
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use serde_json::json;
    use sockeye_crds::names;
    use sockeye_crds_testing::provoked;

    use super::*;
    use crate::signing::PolicyFiles;
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
        let input = CheckInput { uid: "u".into(), generation: 2, ..CheckInput::default() };
        Gathered {
            intent: Intent::new(Arc::new(object), &ProgramCache::default()),
            bytecode: GatheredBytecode::Fetched(input, b"other".to_vec(), Lists::new()),
            revisions: Revisions::default(),
            image_failure: None,
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
            let validated = validate(&mut gathered, &mut cache, &Signing::default()).await.unwrap();
            assert!(matches!(validated.outcome, CheckOutcome::AcceptedEarlier), "{validated:?}");
        }
    }

    #[tokio::test]
    async fn what_no_enforced_policy_has_judged_is_not_accepted_while_its_bytes_are_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        for (mode, is_accepted) in [("Warn", true), ("Enforce", false)] {
            let policy = json!({"mode": mode, "rules": [], "default": {"type": "Allow"}});
            std::fs::write(&path, policy.to_string()).unwrap();
            let files = PolicyFiles { policy: Some(path.clone()), trust_root: None, nodes_verify: false };
            let signing = Signing::read(&files).unwrap();
            let (mut gathered, mut cache) = (gathered_with_other_bytes(2), ProgramCache::default());
            let validated = validate(&mut gathered, &mut cache, &signing).await.unwrap();
            assert_eq!(matches!(validated.outcome, CheckOutcome::AcceptedEarlier), is_accepted, "{validated:?}");
        }
    }

    #[tokio::test]
    async fn other_bytes_reject_a_generation_that_was_not_accepted_until_they_are_replaced() {
        let (mut gathered, mut cache) = (gathered_with_other_bytes(1), ProgramCache::default());
        let validated = validate(&mut gathered, &mut cache, &Signing::default()).await.unwrap();
        let Refusal { reason, message } = validated.refusal().unwrap().clone();
        provoked(reason, &message);
        assert_eq!((reason, reason.needs_edit()), (Reason::DigestMismatch, false));
    }

    #[tokio::test]
    async fn a_check_that_panics_rejects_the_spec() {
        let result = run_check(|| panic!("a parser gave up")).await.unwrap();
        let refusal = result.unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidObject);
        provoked(refusal.reason, &refusal.message);
    }
}
