//! Pushing an image: its blobs, and then its manifest. IO: requests.

use bytes::Bytes;
use http::{Method, StatusCode};
use sockeye_image::{Digest, Packed};

use crate::{
    Error,
    repository::{Get, Repository, Write},
    url::add_parameter,
};

/// The media type of a blob's bytes.
const BLOB: &str = "application/octet-stream";

/// Pushes to one repository.
pub struct Pusher<'a> {
    pub(crate) repository: &'a Repository<'a>,
}

impl Pusher<'_> {
    /// Pushes an image under a tag, and returns its digest. Blobs that are there already are not sent again.
    ///
    /// # Errors
    /// Fails where the registry does not take it.
    pub async fn push(&self, packed: &Packed, tag: &str) -> Result<Digest, Error> {
        for blob in &packed.blobs {
            self.blob(blob).await?;
        }
        let digest = Digest::of(&packed.manifest);
        let what = self.repository.name("manifest");
        let url = self.repository.url(&format!("manifests/{tag}"));
        let body = Bytes::copy_from_slice(&packed.manifest);
        let media_type = Packed::MEDIA_TYPE;
        self.repository.write(&Write { method: Method::PUT, url, body, media_type, what: &what }).await?;
        Ok(digest)
    }

    async fn blob(&self, bytes: &[u8]) -> Result<(), Error> {
        let digest = Digest::of(bytes);
        let what = self.repository.name_of("blob", &digest);
        let path = format!("blobs/{digest}");
        match self.repository.get(&Get { method: Method::HEAD, path: &path, accept: "*/*", what: &what }).await {
            Ok(answer) if answer.status == StatusCode::OK => return Ok(()),
            // Registries say 403 or 401, too, of what is not there, to who may only push.
            Ok(_) | Err(Error::NotFound { .. } | Error::Forbidden { .. } | Error::Unexpected { .. }) => {}
            Err(error) => return Err(error),
        }
        // Distribution specification, "Pushing blobs": POST then PUT.
        let url = self.repository.url("blobs/uploads/");
        let begin = Write { method: Method::POST, url, body: Bytes::new(), media_type: BLOB, what: &what };
        let answer = self.repository.write(&begin).await?;
        let location = self.repository.upload_location(&answer, &what)?;
        drop(answer);
        let (path, query) = location.path.split_once('?').unwrap_or((&location.path, ""));
        let mut query = query.to_owned();
        add_parameter(&mut query, "digest", &digest.to_string());
        let url = location.with_path(format!("{path}?{query}"));
        let body = Bytes::copy_from_slice(bytes);
        self.repository.write(&Write { method: Method::PUT, url, body, media_type: BLOB, what: &what }).await?;
        Ok(())
    }
}
