//! Signatures by identity: the certificate, its log, the signature's log and the time, all checked offline against a
//! trust root.
//!
//! sigstore-verify checks the certificate's chain and its extended key usage at each verified time, its embedded SCT,
//! the entry's Merkle proof, the checkpoint's signature, the promise (SET) and the timestamps if there are any, and
//! that the entry is of this signature. What it leaves to its caller is checked here: that each log entry has a proof,
//! that the certificate names one identity, that no time lies ahead of the caller's, and that the entry's log is one
//! that was trusted at that time. sigstore-verify reads the machine's clock too, on which nothing here depends.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sigstore_verify::trust_root::{TransparencyLog, TrustedRoot};
use sigstore_verify::types::{Artifact, Bundle as SigstoreBundle, Sha256Hash};
use sigstore_verify::{VerificationPolicy, VerificationResult, Verifier};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::bundle::{Bundle, ClaimedSigner};
use crate::text::{bounded, quote};

/// How far a signature's time may lie ahead of this machine's clock.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The most characters of an error of sigstore-verify that a message quotes.
const MAX_ERROR: usize = 240;

/// The trusted root that signatures by identity are checked against, or none.
#[derive(Default)]
pub struct Trust {
    root: Option<Root>,
}

struct Root {
    file: TrustedRoot,
    verifier: Verifier,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Trust").field("root", &self.root.is_some()).finish()
    }
}

/// Why a file is no trust root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The file can't be read.
    #[error("it is no trusted_root.json: {0}")]
    Syntax(String),
    /// A part is missing, without which no signature by identity can be verified.
    #[error("it has no `{0}`, without which no signature by identity can be verified")]
    Lacks(&'static str),
    /// A key or a certificate can't be used.
    #[error("{0}")]
    Material(String),
}

/// Why a signature by identity does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeylessError {
    /// There is nothing to check it against.
    #[error("it is signed by identity, and there is no trust root to check that against")]
    NoTrustRoot,
    /// The bundle does not prove that a log has the signature.
    #[error("it has no proof that a transparency log includes it")]
    NoProof,
    /// The certificate can't be read, or does not name one identity.
    #[error("its certificate {0}")]
    Certificate(String),
    /// sigstore-verify refuses it.
    #[error("{0}")]
    Refused(String),
    /// A verified time lies ahead.
    #[error("it was signed at {0}, which lies ahead of this machine's clock")]
    Future(String),
    /// The log is not one that was trusted at that time.
    #[error("its transparency log is not one that the trust root trusts at the time of the signature")]
    Log,
}

/// Who signed, as the certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedIdentity {
    /// An email address or a URI.
    pub subject: String,
    /// The URL of the OIDC issuer that vouched for it.
    pub issuer: String,
}

/// The content that a signature by identity is to be over.
#[derive(Clone, Copy, Debug)]
pub enum Signed<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// Whatever has this SHA-256: a subject of the bundle's own statement.
    Digest([u8; 32]),
}

impl Trust {
    /// Trusts no identity. Signatures by key need no trust root.
    pub fn none() -> Self {
        Self::default()
    }

    /// Trusts what a `trusted_root.json` names, in the form of sigstore's `TrustedRoot` message.
    pub fn from_trusted_root(text: &str) -> Result<Self, TrustError> {
        crate::provider::install();
        let file = TrustedRoot::from_json(text).map_err(|error| TrustError::Syntax(said(&error)))?;
        for (name, missing) in [
            ("certificateAuthorities", file.certificate_authorities.is_empty()),
            ("tlogs", file.tlogs.is_empty()),
            ("ctlogs", file.ctlogs.is_empty()),
        ] {
            if missing {
                return Err(TrustError::Lacks(name));
            }
        }
        let verifier = Verifier::new(&file).map_err(|error| TrustError::Material(said(&error)))?;
        Ok(Self { root: Some(Root { file, verifier }) })
    }

    /// Returns whether there is a trust root.
    pub fn has_root(&self) -> bool {
        self.root.is_some()
    }

    /// Verifies a bundle that has a certificate, and returns whose it is. `text` is what `bundle` was read from.
    pub(crate) fn verify(
        &self,
        text: &[u8],
        bundle: &Bundle,
        signed: Signed<'_>,
        now: SystemTime,
    ) -> Result<VerifiedIdentity, KeylessError> {
        let Some(root) = &self.root else { return Err(KeylessError::NoTrustRoot) };
        let ClaimedSigner::Certificate(certificate) = &bundle.signer else {
            return Err(KeylessError::Certificate("is missing".into()));
        };
        if bundle.log_entries.is_empty() || bundle.log_entries.iter().any(|entry| !entry.has_proof) {
            return Err(KeylessError::NoProof);
        }
        one_identity(certificate)?;
        let refused = |error: &dyn std::fmt::Display| KeylessError::Refused(said(error));
        let text = std::str::from_utf8(text).map_err(|error| refused(&error))?;
        let parsed = SigstoreBundle::from_json(text).map_err(|error| refused(&error))?;
        let artifact = match signed {
            Signed::Bytes(bytes) => Artifact::from(bytes),
            Signed::Digest(digest) => Artifact::from(Sha256Hash::new(digest)),
        };
        let verify = |verifier: &Verifier| {
            verifier
                .verify(artifact.clone(), &parsed, &VerificationPolicy::any_identity())
                .map_err(|error| refused(&error))
        };
        let result = verify(&root.verifier)?;
        let times = result.verified_timestamps();
        if let Some(&ahead) = times.iter().find(|&&time| SystemTime::from(time) > now + CLOCK_SKEW) {
            return Err(KeylessError::Future(ahead.to_string()));
        }
        // sigstore-verify takes a checkpoint of Rekor v2 by any log whose time has begun.
        if let Some(narrower) = root.with_the_logs_of(&parsed, times)? {
            verify(&narrower).map_err(|_| KeylessError::Log)?;
        }
        claims(&result)
    }
}

impl Root {
    /// Returns a verifier that trusts only the logs which the bundle's entries name and whose keys were in use at all
    /// these times; none if those are all logs.
    fn with_the_logs_of(&self, bundle: &SigstoreBundle, times: &[Timestamp]) -> Result<Option<Verifier>, KeylessError> {
        let entries = &bundle.verification_material.tlog_entries;
        let in_use = |log: &&TransparencyLog| {
            log.public_key.valid_for.is_none_or(|window| times.iter().all(|&time| window.contains(time)))
        };
        let logs: Vec<_> = self.file.tlogs.iter().filter(in_use).collect();
        if !entries.iter().all(|entry| logs.iter().any(|log| log.log_id.key_id == entry.log_id.key_id)) {
            return Err(KeylessError::Log);
        }
        let named = |log: &&&TransparencyLog| entries.iter().any(|entry| entry.log_id.key_id == log.log_id.key_id);
        let logs: Vec<_> = logs.iter().filter(named).map(|&log| log.clone()).collect();
        if logs.len() == self.file.tlogs.len() {
            return Ok(None);
        }
        let mut file = self.file.clone();
        file.tlogs = logs;
        Verifier::new(&file).map(Some).map_err(|error| KeylessError::Refused(said(&error)))
    }
}

fn claims(result: &VerificationResult) -> Result<VerifiedIdentity, KeylessError> {
    let unnamed = |what: &str| KeylessError::Certificate(format!("names no {what}"));
    let checked = result.certificate_verified() && result.sct_verified() && result.tlog_verified();
    if !checked || result.verified_timestamps().is_empty() {
        return Err(KeylessError::Refused("not everything was verified".into()));
    }
    let subject = result.identity().ok_or_else(|| unnamed("email address or URI"))?.as_str().to_owned();
    let issuer = result.issuer().ok_or_else(|| unnamed("issuer"))?.to_owned();
    Ok(VerifiedIdentity { subject, issuer })
}

/// Checks that a certificate names one identity. sigstore-verify takes the first of several.
fn one_identity(certificate: &[u8]) -> Result<(), KeylessError> {
    let unreadable = |error| KeylessError::Certificate(format!("can't be read: {error}"));
    let certificate = Certificate::from_der(certificate).map_err(unreadable)?;
    let names: Option<(bool, SubjectAltName)> = certificate.tbs_certificate.get().map_err(unreadable)?;
    match names.map(|(_, names)| names.0).unwrap_or_default().as_slice() {
        [GeneralName::Rfc822Name(_) | GeneralName::UniformResourceIdentifier(_)] => Ok(()),
        [_] => Err(KeylessError::Certificate("names neither an email address nor a URI".into())),
        names => Err(KeylessError::Certificate(format!("names {} identities, not one", names.len()))),
    }
}

fn said(error: &dyn std::fmt::Display) -> String {
    bounded(&error.to_string().split_whitespace().map(quote).collect::<Vec<_>>().join(" "), MAX_ERROR)
}
