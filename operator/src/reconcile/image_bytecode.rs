//! The bytes of a BpfProgram whose object is in an image: stored ones, or those that a registry gave. IO: reads
//! ConfigMaps.
//!
//! A BpfProgram whose current revision has the same reference needs no registry while that one's bytes are stored, also
//! after the operator was restarted. Only a tag that it follows is resolved again.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use sockeye_client::objects::get;
use sockeye_crds::{
    BpfRevision, Reason, Refusal, RevisionTemplate, names, program::ImageSource, provenance::RevisionImage,
};

use crate::{
    images::{
        key::{ImageKey, Unsigned, Want},
        pulled::PulledImage,
        pulls::{Answer, Latest},
    },
    reconcile::{
        bytecode::{BytecodeReader, Error},
        cache::{CheckInput, ProgramCache},
        image_content::{ImageContent, StoredBytes},
        intent::Intent,
    },
};

/// A BpfProgram's image, as far as it is known.
pub(super) struct FoundImage {
    /// The digest that the reference means, and its content where that is at hand.
    pub digest: String,
    source: FoundSource,
}

enum FoundSource {
    Pulled(Arc<PulledImage>),
    Revision(Box<RevisionTemplate>),
    Checked,
}

/// The image of the last check of a spec.
#[derive(Default)]
struct LastCheck {
    /// Its digest, if its content is no longer needed: it was refused, or it is stored.
    done: Option<String>,
    /// Its digest, if it was accepted as a registry gave it, and is to be stored.
    pending: Option<String>,
    /// The image, if the policy objects to it.
    unsigned: Option<Unsigned>,
}

impl FoundImage {
    /// Identifies the signatures that are judged: those that a registry gave now, or gave at the last check.
    pub(super) fn signatures(&self, input: &CheckInput, cache: &ProgramCache) -> Option<String> {
        if let FoundSource::Pulled(pulled) = &self.source {
            return Some(pulled.signatures_digest());
        }
        let (last, _) = cache.check.as_ref().filter(|(last, _)| last.is_like(input))?;
        last.signatures.clone().filter(|_| last.image.as_ref() == Some(&self.digest))
    }
}

impl BytecodeReader<'_> {
    /// Finds out what the reference of a BpfProgram's image means, without waiting for a registry.
    pub(super) async fn find_image(
        &self,
        intent: &Intent,
        image: &ImageSource,
        input: &CheckInput,
        cache: &ProgramCache,
    ) -> Result<Result<FoundImage, Refusal>, Error> {
        let revisions = self.stores.revisions_of(&intent.program);
        let current = revisions.newest().filter(|current| has_reference(current, image));
        let template = current.map(|current| &current.spec.template);
        let has_proof = template.is_some_and(|template| !self.needs_proof || template.proof.is_some());
        let stored = match template {
            Some(template) if has_proof && self.all_stored(template.digests()).await? => Some(template),
            _ => None,
        };
        let last = self.last_check(input, cache).await?;
        let answer = self.ask(intent, image, (template, stored), last);
        let found = |digest: &str, source| Ok(FoundImage { digest: digest.to_owned(), source });
        let digest_of = |template: &RevisionTemplate| template.image.as_ref().map(|image| image.digest.clone());
        Ok(match (answer.latest, stored) {
            (Some(Latest::Pulled(pulled)), _) => found(&pulled.digest.clone(), FoundSource::Pulled(pulled)),
            (Some(Latest::Known(digest)), Some(template)) if digest_of(template).as_ref() == Some(&digest) => {
                found(&digest, FoundSource::Revision(Box::new(template.clone())))
            }
            (Some(Latest::Known(digest)), _) => found(&digest, FoundSource::Checked),
            (None, Some(template)) => {
                let digest = digest_of(template).unwrap_or_default();
                found(&digest, FoundSource::Revision(Box::new(template.clone())))
            }
            (None, None) => Err(answer.failure.unwrap_or_else(|| pulling(image))),
        })
    }

    /// Reads the content of an image that was found. None if it is not at hand, and is being pulled.
    pub(super) async fn image_content(
        &self,
        image: &ImageSource,
        found: FoundImage,
    ) -> Result<Result<ImageContent, Refusal>, Error> {
        let revision_image = RevisionImage { reference: image.reference.clone(), digest: found.digest };
        let template = match found.source {
            FoundSource::Pulled(pulled) => return Ok(Ok(ImageContent::Pulled(revision_image, pulled))),
            FoundSource::Revision(template) => template,
            FoundSource::Checked => return Ok(Err(pulling(image))),
        };
        let mut objects = Vec::new();
        for (architecture, digest, proof) in parts(&template) {
            let Some(object) = self.read_stored(digest).await? else { return Ok(Err(pulling(image))) };
            let mut stored = StoredBytes { architecture: architecture.to_owned(), object, proof: Vec::new() };
            for digest in proof {
                let Some(part) = self.read_stored(digest).await? else { return Ok(Err(pulling(image))) };
                stored.proof.push(part);
            }
            objects.push(stored);
        }
        Ok(Ok(ImageContent::Stored(revision_image, objects)))
    }

    /// Has the signatures of an image looked for again, if the policy objects to those that a check has just seen.
    pub(super) async fn await_signature(&self, intent: &Intent, cache: &ProgramCache) -> Result<(), Error> {
        let image = intent.spec().ok().and_then(|spec| spec.bytecode.image.as_ref());
        let (Some(image), Some(_), Some((input, _))) = (image, cache.unsigned(), &cache.check) else { return Ok(()) };
        self.find_image(intent, image, input, cache).await.map(|_| ())
    }

    /// Says what is wanted of the registry, and returns what is known.
    fn ask(
        &self,
        intent: &Intent,
        image: &ImageSource,
        (current, stored): (Option<&RevisionTemplate>, Option<&RevisionTemplate>),
        last: LastCheck,
    ) -> Answer {
        let program = intent.program.name.as_str();
        let follows = image.follows_tag();
        let LastCheck { done, pending, unsigned } = last;
        if stored.is_some() && !follows && pending.is_none() && unsigned.is_none() {
            self.images.release(program);
            return Answer::default();
        }
        let digest = |template: &RevisionTemplate| template.image.as_ref().map(|image| image.digest.clone());
        let known = stored.and_then(digest).into_iter().chain(done).filter(|digest| Some(digest) != pending.as_ref());
        let known: BTreeSet<String> = known.collect();
        // The bytes were deleted. Which ones they were is known, and a tag is resolved once.
        let pinned = current.and_then(digest).filter(|_| !follows);
        let key = ImageKey { pinned, ..ImageKey::of(image) };
        self.images.want(program, Want { key, generation: intent.generation(), known, follows, unsigned })
    }

    /// Returns what is left to do for the image of the last check, if the input is the same but for the image.
    async fn last_check(&self, input: &CheckInput, cache: &ProgramCache) -> Result<LastCheck, Error> {
        let Some((last, result)) = cache.check.as_ref().filter(|(last, _)| last.is_like(input)) else {
            return Ok(LastCheck::default());
        };
        let is_done = match result.as_ref() {
            Ok(accepted) => self.all_stored(accepted.digests()).await?,
            Err(_) => true,
        };
        let done = last.image.clone().filter(|_| is_done);
        let pending = last.image.clone().filter(|_| !is_done && last.signatures.is_some());
        Ok(LastCheck { done, pending, unsigned: cache.unsigned() })
    }

    /// Reads stored bytes. None if they are not there, or are others.
    async fn read_stored(&self, digest: &str) -> Result<Option<Vec<u8>>, Error> {
        let name = names::object_config_map(digest);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let found = get(&api, &name).await.map_err(|source| Error { name, source })?;
        let bytes = found.and_then(|found| found.binary_data?.remove(names::OBJECT_KEY)).map(|bytes| bytes.0);
        Ok(bytes.filter(|bytes| names::digest(bytes) == digest))
    }
}

fn has_reference(revision: &BpfRevision, image: &ImageSource) -> bool {
    revision.spec.template.image.as_ref().is_some_and(|known| known.reference == image.reference)
}

/// Lists the objects of a revision: the architecture, the digest, and the digests of the proof's parts.
fn parts(template: &RevisionTemplate) -> Vec<(&str, &str, &[String])> {
    if template.variants.is_empty() {
        let proof = template.proof.as_ref().map(|proof| proof.digests.as_slice()).unwrap_or_default();
        return vec![("", &template.digest, proof)];
    }
    let variants = template.variants.iter();
    variants.map(|variant| (&*variant.architecture, &*variant.digest, &*variant.proof_digests)).collect()
}

fn pulling(image: &ImageSource) -> Refusal {
    let message =
        format!("spec.bytecode.image: {} is being pulled; wait, the operator goes on by itself", image.reference);
    Refusal { reason: Reason::ImagePulling, message }
}

#[cfg(test)]
mod tests {
    use sockeye_crds_testing::provoked;

    use super::*;

    #[test]
    fn a_pull_names_its_image_and_waits_for_no_edit() {
        let reference = "registry.example/team/guard:v1";
        let image: ImageSource = serde_json::from_value(serde_json::json!({"reference": reference})).unwrap();
        let refusal = pulling(&image);
        assert!(refusal.message.contains(reference) && !refusal.reason.needs_edit(), "{refusal}");
        provoked(refusal.reason, &refusal.message);
    }
}
