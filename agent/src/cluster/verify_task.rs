//! Runs `control::verify` on a thread, one object at a time. No IO; it computes, for up to some seconds.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use anyhow::{Context as _, Result};
use sockeye_provenance::Verifier;
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::control::verify::{ClaimedObject, Verdict, Verification, verify};

/// Judges every object that comes, on a thread of its own, and calls `verified` with each verdict.
pub(super) async fn judge(
    verifier: Arc<Verifier>,
    mut verifications: mpsc::UnboundedReceiver<Verification>,
    verified: impl Fn(ClaimedObject, Verdict) + Send + 'static,
) -> Result<Infallible> {
    loop {
        let verification = verifications.recv().await.context("nobody asks for verdicts any more")?;
        let claim = verification.claim.clone();
        let verifier = Arc::clone(&verifier);
        let judging = spawn_blocking(move || verify(&verifier, &verification, SystemTime::now()));
        // Nobody's bytes are to end the agent.
        let failed = || Verdict::Rejected("its proof can't be verified: see the log".to_owned());
        verified(claim, judging.await.unwrap_or_else(|_| failed()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sockeye_crds::{
        names::digest,
        provenance::{Proof, SourceType},
    };
    use sockeye_provenance::{
        Archive,
        fixtures::{Key, policy},
    };
    use tokio::time::{sleep, timeout};

    use super::*;

    /// Returns a request about an inline object with so many signatures by this key.
    fn verification(object: &[u8], key: &Key, count: usize) -> Verification {
        let archive = Archive { evidence: vec![key.sign_object(object); count], ..Archive::default() };
        let proof: Vec<Arc<[u8]>> = archive.encode().unwrap().into_iter().map(Into::into).collect();
        let digests = proof.iter().map(|part| digest(part)).collect();
        let proof_of_it = Proof { source: SourceType::Inline, builtin: None, digests };
        let claim = ClaimedObject { digest: digest(object), image: None, proof: Some(proof_of_it) };
        Verification { claim, object: object.into(), proof }
    }

    /// On one thread: whatever is not answered meanwhile waits for the verdict.
    #[tokio::test(flavor = "current_thread")]
    async fn others_go_on_while_an_object_is_judged_and_each_gets_its_verdict() {
        let verifier = Verifier::read(&policy("Enforce", "registry.example/team/guard", &Key::new(1)), None).unwrap();
        let ((ask, asked), (answer, mut answered)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let verified = move |claim: ClaimedObject, verdict: Verdict| drop(answer.send((claim, verdict)));
        let judging = tokio::spawn(judge(Arc::new(verifier), asked, verified));
        let (forged, signed) = (verification(b"forged", &Key::new(2), 32), verification(b"signed", &Key::new(1), 1));
        let claims = [forged.claim.clone(), signed.claim.clone()];
        [forged, signed].into_iter().for_each(|one| ask.send(one).unwrap());
        let mut turns = 0;
        let (first, verdict) = loop {
            match timeout(Duration::from_micros(100), answered.recv()).await {
                Ok(answer) => break answer.unwrap(),
                Err(_) => turns += 1,
            }
            assert!(turns < 1_000_000, "no verdict comes");
        };
        assert!(matches!(verdict, Verdict::Rejected(_)) && first == claims[0], "{verdict:?}");
        assert!(turns > 0, "nothing else went on");
        assert_eq!(answered.recv().await.unwrap(), (claims[1].clone(), Verdict::Accepted));
        drop(ask);
        sleep(Duration::ZERO).await;
        assert!(judging.await.unwrap().is_err(), "it ends only if nobody asks any more");
    }
}
