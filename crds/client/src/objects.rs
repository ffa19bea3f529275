//! Lists, gets and writes whose answers are read one object at a time, by [`Decode`]. IO: requests.
//!
//! kube's own methods refuse a list that has one object too deep to read, refuse the answer to a write that succeeded,
//! and log the whole answer.

use http::Request;
use kube::{
    Api, Client, Error,
    api::{GetParams, ListMeta, ListParams, ObjectMeta},
    core::request,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decode::{Decode, decode, metadata};

/// The request of a write, as kube builds it.
pub type WriteRequest = Result<Request<Vec<u8>>, request::Error>;

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<K> {
    /// The objects.
    pub items: Vec<K>,
    /// The version of the list.
    pub resource_version: String,
    /// The token of the next page, if there is one.
    pub continue_token: Option<String>,
}

/// Lists one page of objects. Those whose metadata can't be read are left out.
///
/// # Errors
/// Fails where the request does, or where the answer is no list.
pub async fn list<K: Decode>(api: &Api<K>, params: &ListParams) -> Result<Page<K>, Error> {
    list_with(api, params, |json| decode(json).object).await
}

/// Lists one page of objects, each as `decode` reads it.
pub(crate) async fn list_with<K: Decode>(
    api: &Api<K>,
    params: &ListParams,
    decode: impl FnMut(&str) -> Option<K>,
) -> Result<Page<K>, Error> {
    let request = kube::api::Request::new(api.resource_url());
    let request = if K::metadata_api() { request.list_metadata(params) } else { request.list(params) };
    let answer = request_text(&api.clone().into_client(), request).await?;
    let RawList { metadata, items } = serde_json::from_str(&answer).map_err(Error::SerdeError)?;
    let items = items.unwrap_or_default().into_iter().map(RawValue::get).filter_map(decode).collect();
    Ok(Page {
        items,
        resource_version: metadata.resource_version.unwrap_or_default(),
        continue_token: metadata.continue_.filter(|token| !token.is_empty()),
    })
}

/// A list whose objects are not read yet.
#[derive(Deserialize)]
struct RawList<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// Gets an object; none if there is none of this name.
///
/// # Errors
/// Fails where the request does, or where the answer has no metadata.
pub async fn get<K: Decode>(api: &Api<K>, name: &str) -> Result<Option<K>, Error> {
    let request = kube::api::Request::new(api.resource_url()).get(name, &GetParams::default());
    let answer = match request_text(&api.clone().into_client(), request).await {
        Err(Error::Api(status)) if status.is_not_found() => return Ok(None),
        answer => answer?,
    };
    match K::decode(&answer) {
        Ok(object) => Ok(Some(object)),
        Err(error) => decode(&answer).object.map(Some).ok_or(Error::SerdeError(error)),
    }
}

/// Sends a write, and returns the metadata of the object that it left. That is empty if the answer has none.
///
/// # Errors
/// Fails where the request does.
pub async fn write(client: &Client, request: WriteRequest) -> Result<ObjectMeta, Error> {
    let answer = request_text(client, request).await?;
    Ok(metadata(&answer).unwrap_or_default())
}

/// Sends a write, and returns the object that it left, if it can be read.
///
/// # Errors
/// Fails where the request does.
pub async fn write_object<K: Decode>(client: &Client, request: WriteRequest) -> Result<Option<K>, Error> {
    let answer = request_text(client, request).await?;
    Ok(decode(&answer).object)
}

/// Sends a write whose answer nobody reads, however long it is.
///
/// # Errors
/// Fails where the request does.
pub async fn write_unread(client: &Client, request: WriteRequest) -> Result<(), Error> {
    // The API server answers once it is done, so the body may be dropped.
    client.request_stream(request.map_err(Error::BuildRequest)?).await.map(drop)
}

async fn request_text(client: &Client, request: WriteRequest) -> Result<String, Error> {
    client.request_text(request.map_err(Error::BuildRequest)?).await
}
