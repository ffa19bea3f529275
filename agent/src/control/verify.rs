//! [`verify`]: whether this node's own policy accepts who signed an object, whatever the operator says. Pure. It may
//! take seconds, so the controller has others do it ([`Effect::VerifyObject`](super::event::Effect::VerifyObject)).

use std::{sync::Arc, time::SystemTime};

use sockeye_crds::provenance::{Proof, RevisionImage, SourceType};
use sockeye_ebpf::programs;
use sockeye_image::Reference;
use sockeye_provenance::{Archive, Chain, Claim, Source, Verifier};

use crate::model::desired::Desired;

/// An object, by its digest, and what a revision claims of it. The verdict follows from that, the policy and the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimedObject {
    /// The object's digest.
    pub digest: String,
    /// The image that it is said to come from.
    pub image: Option<RevisionImage>,
    /// Its source, and the digests of the parts of its proof.
    pub proof: Option<Proof>,
}

/// A request for a verdict.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The claim.
    pub claim: ClaimedObject,
    /// The object, which has the claimed digest.
    pub object: Arc<[u8]>,
    /// The parts of the proof, which have the claimed digests.
    pub proof: Vec<Arc<[u8]>>,
}

/// The verdict of a policy on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The object may be loaded.
    Accepted,
    /// The object may be loaded, because the policy only warns. It has this objection.
    Warned(String),
    /// The object must not be loaded, for this reason.
    Rejected(String),
}

impl ClaimedObject {
    /// Returns what a revision claims of its object.
    pub(super) fn of(desired: &Desired) -> Self {
        let (image, proof) = (desired.origin.image.clone(), desired.origin.proof.clone());
        Self { digest: desired.digest.clone(), image, proof }
    }

    /// Returns the digests of the parts of the proof.
    pub(super) fn proof_digests(&self) -> &[String] {
        self.proof.as_ref().map_or(&[], |proof| &proof.digests)
    }
}

/// Judges an object by its proof.
pub fn verify(verifier: &Verifier, verification: &Verification, now: SystemTime) -> Verdict {
    match objection(verifier, verification, now) {
        Ok(None) => Verdict::Accepted,
        Ok(Some(objection)) if !verifier.enforces() => Verdict::Warned(objection),
        Ok(Some(why)) | Err(why) => Verdict::Rejected(why),
    }
}

/// Returns the objection of the policy, if it has one. Fails if the proof is unusable, which no policy allows.
fn objection(verifier: &Verifier, verification: &Verification, now: SystemTime) -> Result<Option<String>, String> {
    let Verification { claim: ClaimedObject { digest: _, image, proof: claimed }, object, proof } = verification;
    let Some(Proof { source, builtin, digests: _ }) = claimed else {
        return Err(
            "it has no proof of who signed it, because the operator that dispatched it had no policy for signatures: \
             install the chart with one (policy.signatures)"
                .to_owned(),
        );
    };
    let archive = Archive::decode(proof).map_err(|error| error.to_string())?;
    let is_shipped = builtin.is_some_and(|builtin| programs::builtin(builtin) == &object[..]);
    let source = match (source, builtin, image) {
        (SourceType::Inline, _, _) => Source::Inline,
        (SourceType::ConfigMap, _, _) => Source::ConfigMap,
        (SourceType::Builtin, Some(builtin), _) => Source::Builtin { name: builtin.to_string() },
        (SourceType::Image, _, Some(RevisionImage { reference, digest })) => {
            let reference: Reference = reference.parse().map_err(|error: sockeye_image::Error| error.to_string())?;
            Source::Image { repository: reference.name(), digest: digest.clone() }
        }
        _ => {
            return Err(format!(
                "its proof does not say which {source:?} it is: find out who dispatched it (docs/security.md)"
            ));
        }
    };
    let claim = Claim { source: &source, object, archive: &archive };
    let judgement = verifier.judge(&claim, Chain::Followed, now).map_err(|error| error.to_string())?;
    Ok(match (judgement.objection, &source) {
        (Some(objection), _) => Some(objection.message),
        // A rule that allows builtins means those that ship with sockeye, not whatever is said to be one.
        (None, Source::Builtin { name }) if !is_shipped && judgement.signed_by.is_empty() => Some(format!(
            "it is said to be the builtin {name}, and is not that of this agent's version, nor signed: upgrade the \
             agent"
        )),
        (None, _) => None,
    })
}
