//! The signatures that lie beside an image. IO: requests.
//!
//! They are looked for in all places where cosign puts them: the list of referrers (distribution specification,
//! "Listing Referrers"), the tag `sha256-HEX` of registries without that list ("Referrers Tag Schema"), and the tag
//! `sha256-HEX.sig`. All three are read, since a registry that learned to list referrers has older ones under tags.
//! Each manifest is read, whatever type the list gives it: registries list cosign's bundles under the empty type.

use std::collections::BTreeSet;

use http::{Method, header};
use sockeye_image::{
    Digest, SignatureManifest, chain,
    manifest::{Descriptor, Document, Manifest, OCI_INDEX},
    signature::{SignatureLayer, is_about},
};

use crate::{Error, attestation::is_attestation, pull::Puller, repository::Get, transport::Answer, url::Url};

/// The most bytes of all signatures of an image.
const MAX_BYTES: u64 = 4 << 20;
/// So many attestations are kept, for messages that say what is there instead of a signature.
const MAX_ATTESTATIONS: usize = 4;

/// Collects signatures.
pub struct Collector<'a> {
    puller: &'a Puller<'a>,
    /// The manifests that were read about the present digest.
    seen: BTreeSet<String>,
    /// The signatures of the digests before.
    before: usize,
    found: Vec<SignatureManifest>,
    attestations: usize,
    bytes: u64,
}

impl<'a> Collector<'a> {
    /// Returns one that has none.
    pub fn new(puller: &'a Puller<'a>) -> Self {
        Self { puller, seen: BTreeSet::new(), before: 0, found: Vec::new(), attestations: 0, bytes: 0 }
    }

    /// Returns the signatures of these digests.
    ///
    /// Leaves out what can't be used, such as a referrer that is too large: a stranger who may push must not keep
    /// others' signatures from being found.
    ///
    /// # Errors
    /// Fails where the registry does not answer, so that nothing counts as unsigned by chance, and where there are more
    /// referrers than are read.
    pub async fn collect(mut self, digests: &[Digest]) -> Result<Vec<SignatureManifest>, Error> {
        for digest in digests {
            // A manifest may be listed under several digests, and is about one.
            self.seen.clear();
            self.before = self.found.len();
            let fallback = format!("sha256-{}", digest.hex());
            for descriptor in self.listed(digest).await?.into_iter().chain(self.tagged(&fallback, digest).await?) {
                self.referrer(&descriptor, digest).await?;
            }
            let name = format!("{fallback}.sig");
            if let Some(Document::Manifest(manifest)) = self.tag(&name, digest).await? {
                self.signatures_of(&manifest, digest).await?;
            }
        }
        Ok(self.found)
    }

    /// Reads one referrer.
    async fn referrer(&mut self, descriptor: &Descriptor, subject: &Digest) -> Result<(), Error> {
        if !self.seen.insert(descriptor.digest.clone()) {
            return Ok(());
        }
        let limit = self.puller.settings.answers.referrers;
        if self.seen.len() > limit {
            return Err(Error::TooManyReferrers { what: self.puller.image.clone(), limit });
        }
        if let Some((_, manifest)) = self.unless_unusable(self.puller.listed(descriptor).await)?
            && is_about(&manifest, subject)
        {
            self.signatures_of(&manifest, subject).await?;
        }
        Ok(())
    }

    async fn signatures_of(&mut self, manifest: &Manifest, subject: &Digest) -> Result<(), Error> {
        let (limits, image) = (self.puller.settings.answers, self.puller.image.clone());
        for layer in SignatureLayer::of(manifest) {
            if self.found.len() - self.before >= limits.referrers {
                return Err(Error::TooManyReferrers { what: image, limit: limits.referrers });
            }
            let bytes = self.puller.blob(layer.descriptor, "signature", limits.signature).await;
            if let Some(bytes) = self.unless_unusable(bytes)? {
                let is_other = layer.is_bundle() && is_attestation(&bytes);
                self.attestations += usize::from(is_other);
                if is_other && self.attestations > MAX_ATTESTATIONS {
                    continue;
                }
                self.bytes += bytes.len() as u64;
                if self.bytes > MAX_BYTES {
                    let (what, host) =
                        (format!("what lies beside {image}"), self.puller.repository.url("/").host_and_port());
                    return Err(Error::TooLarge { what, host, limit: MAX_BYTES });
                }
                let kind = layer.signature(bytes);
                self.found.push(SignatureManifest { subject: subject.clone(), kind });
            }
        }
        Ok(())
    }

    /// Asks for the list of referrers, page by page. A registry that has none answers 404.
    async fn listed(&self, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        let repository = self.puller.repository;
        let what = repository.name_of("list of referrers of", digest);
        let mut path = format!("referrers/{digest}");
        let mut descriptors = Vec::new();
        for page in 0..self.puller.settings.answers.pages {
            let get = Get { method: Method::GET, path: &path, accept: OCI_INDEX, what: &what };
            let answer = match repository.get(&get).await {
                Ok(answer) => answer,
                // A registry that has a first page has the others.
                Err(Error::NotFound { .. } | Error::Unexpected { .. }) if page == 0 => return Ok(descriptors),
                Err(error) => return Err(error),
            };
            // Anything else is from a registry that does not know the request.
            if answer.header(header::CONTENT_TYPE).is_none_or(|kind| !kind.starts_with(OCI_INDEX)) {
                if page == 0 {
                    return Ok(descriptors);
                }
                let problem = "answers a further page with something else".to_owned();
                return Err(Error::Unexpected { what, host: answer.url.host_and_port(), problem });
            }
            let next = next_page(&answer, &repository.url("/"));
            let bytes = answer.read(&what, self.puller.settings.limits.manifest).await?;
            let document = Document::parse("the list", &bytes, &self.puller.settings.limits);
            if let Some(Document::Index(page)) =
                self.unless_unusable(document.map_err(|error| self.puller.wrong(error)))?
            {
                descriptors.extend(page.manifests);
            }
            match next {
                Some(next) if descriptors.len() <= self.puller.settings.answers.referrers => path = next,
                _ => return Ok(descriptors),
            }
        }
        let limit = self.puller.settings.answers.referrers;
        Err(Error::TooManyReferrers { what: self.puller.image.clone(), limit })
    }

    /// Reads the list under a tag.
    async fn tagged(&self, tag: &str, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        match self.tag(tag, subject).await? {
            Some(Document::Index(index)) => Ok(index.manifests),
            _ => Ok(Vec::new()),
        }
    }

    async fn tag(&self, tag: &str, subject: &Digest) -> Result<Option<Document>, Error> {
        let what = self.puller.repository.name_of(&format!("tag {tag} beside"), subject);
        let bytes = match self.puller.manifest(&format!("manifests/{tag}"), &what).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            bytes => self.unless_unusable(bytes)?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let document = chain::read_document(&Digest::of(&bytes), &bytes, &self.puller.settings.limits);
        self.unless_unusable(document.map_err(|error| self.puller.wrong(error)))
    }

    /// Leaves out what can't be a signature, and says so in the log.
    fn unless_unusable<T>(&self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ (Error::Content { .. } | Error::TooLarge { .. } | Error::NotFound { .. })) => {
                tracing::warn!(image = self.puller.image, %error, "left out what lies beside an image");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns the path of the next page, if the answer names one at the same registry (RFC 8288, `rel="next"`).
fn next_page(answer: &Answer, base: &Url) -> Option<String> {
    let values = answer.headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    let target = values.flat_map(links).find(|(_, parameters)| is_next(parameters)).map(|(target, _)| target)?;
    let url = answer.url.join(target).ok()?;
    url.is_same_origin(base).then_some(url.path)
}

/// Returns the links of a header's value: the target and the parameters of each.
fn links(value: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        // What comes before the next target are this one's parameters.
        let parameters = after.split('<').next().unwrap_or_default();
        rest = after;
        Some((target, parameters))
    })
}

fn is_next(parameters: &str) -> bool {
    let mut parameters = parameters.split([';', ',']);
    parameters.any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"))
}
