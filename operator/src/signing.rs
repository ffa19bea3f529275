//! [`Signing`]: the policy for signatures, as the operator applies it. IO: reads the policy's files at start.

use std::{fs, io, path::PathBuf, sync::Arc, time::SystemTime};

use sockeye_crds::{
    Reason, Refusal,
    provenance::{MAX_SIGNERS, SignedBy},
};
use sockeye_provenance::{Archive, Chain, Claim, Error as JudgeError, Source, Verifier};
use sockeye_signature::Signer;

/// The files of a policy.
#[derive(Clone, Debug, Default)]
pub struct PolicyFiles {
    /// The policy, as JSON.
    pub policy: Option<PathBuf>,
    /// The trust root for signatures by identity.
    pub trust_root: Option<PathBuf>,
    /// True if nodes verify signatures too.
    pub nodes_verify: bool,
}

/// The policy can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The policy or the trust root can't be used.
    #[error("{path}: {source}")]
    Policy {
        /// The policy's file.
        path: String,
        /// The cause.
        source: JudgeError,
    },
}

/// The policy for signatures. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    verifier: Option<Arc<Verifier>>,
    nodes_verify: bool,
}

/// Who signed an object, and what the policy has against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// Who signed it, of those that the policy accepts.
    pub by: Vec<SignedBy>,
    /// The objection of the policy, though it lets it run.
    pub warning: Option<String>,
}

impl Signing {
    /// Reads the policy.
    pub fn read(files: &PolicyFiles) -> Result<Self, Error> {
        let PolicyFiles { policy, trust_root, nodes_verify } = files;
        let Some(path) = policy else { return Ok(Self::default()) };
        let read = |path: &PathBuf| {
            fs::read_to_string(path).map_err(|source| Error::File { path: path.display().to_string(), source })
        };
        let (text, trust_root) = (read(path)?, trust_root.as_ref().map(read).transpose()?);
        let verifier = Verifier::read(&text, trust_root.as_deref());
        let verifier = verifier.map_err(|source| Error::Policy { path: path.display().to_string(), source })?;
        Ok(Self { verifier: Some(Arc::new(verifier)), nodes_verify: *nodes_verify })
    }

    /// Reports whether there is a policy, so that revisions get a proof.
    pub const fn has_policy(&self) -> bool {
        self.verifier.is_some()
    }

    /// Reports whether what the policy objects to must not run.
    pub fn enforces(&self) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.enforces())
    }

    /// Judges an object. One that must not run is refused.
    pub fn judge(&self, source: &Source, object: &[u8], archive: &Archive) -> Result<Signed, Refusal> {
        let Some(verifier) = &self.verifier else { return Ok(Signed::default()) };
        // What the operator pulled or stored itself was checked when it was pulled. It is followed all the same where
        // nodes are going to, so that they refuse nothing that the operator dispatches.
        let chain = if self.nodes_verify { Chain::Followed } else { Chain::Trusted };
        let refuse = |reason, message: String| Refusal { reason, message: format!("spec.bytecode: {message}") };
        let judgement = verifier
            .judge(&Claim { source, object, archive }, chain, SystemTime::now())
            .map_err(|error| refuse(Reason::InvalidImage, error.to_string()))?;
        let by = judgement.signed_by.iter().take(MAX_SIGNERS).map(signer).collect();
        match judgement.objection {
            Some(objection) if verifier.enforces() => {
                let reason = if objection.is_denial { Reason::SourceDenied } else { Reason::SignatureRequired };
                Err(refuse(reason, objection.message))
            }
            objection => Ok(Signed { by, warning: objection.map(|objection| objection.message) }),
        }
    }
}

fn signer(signer: &Signer) -> SignedBy {
    match signer {
        Signer::Key { hint } => SignedBy::key(hint),
        Signer::Identity { subject, issuer } => SignedBy::identity(subject, issuer),
    }
}
