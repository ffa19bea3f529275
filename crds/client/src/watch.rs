//! [`watch()`]: lists one kind, then watches it, for as long as the process runs. IO: requests.
//!
//! It yields the same events as [`kube::runtime::watcher()`]. It differs where the API server is away or overloaded:
//! - It waits by the process's [`Backoff`]. kube retries a failed list about every second for ever, because the next
//!   list's first event resets the backoff; and waits up to a minute after a failed watch.
//! - It lists again after every 410. kube answers a 410 to the watch request itself, other than one in the stream, by
//!   the same request with the same version, for ever.
//! - It waits after a stream that ends as soon as it begins. kube begins it again at once, for ever.
//! - It reads each object by itself ([`Decode`]). One that can't be read is reported with its metadata, and stops no
//!   other. kube refuses a list and ends a stream that has one object too deep to read.

use std::{convert::Infallible, mem, pin::pin, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Error,
    api::{ListParams, Request, WatchEvent, WatchParams},
    runtime::watcher::Event,
};
use serde_json::value::RawValue;
use sockeye_metrics::ClientMetrics;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::{
    backoff::{Backoff, Turn, with_jitter},
    client::is_transient,
    decode::{Decode, Decoder},
    objects::list_with,
};

/// A stream that lasted this long did not fail, however it ended.
const STABLE_STREAM: Duration = Duration::from_secs(5);
/// After a failure the watch has recovered once a stream lasted this long: the other watches may then retry too.
const RECOVERED: Duration = Duration::from_millis(500);
/// The API server is asked to end a stream after this long at most. Jitter keeps watches that began together apart.
const MAX_STREAM: Duration = Duration::from_secs(290);

/// Selects objects of a kind.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// A label selector.
    pub labels: Option<String>,
    /// A field selector.
    pub fields: Option<String>,
    /// The number of objects in a page of a list; absent means all.
    pub page_size: Option<u32>,
    /// Counts streams and failures, if anything does.
    pub metrics: Option<ClientMetrics>,
}

/// Lists and watches for ever.
///
/// It passes every change to `on_event`. It calls `on_rejected` whenever the API server starts to reject the watch, or
/// stops. An API server that is away rejects nothing.
pub async fn watch<K>(
    api: Api<K>,
    selection: &Selection,
    backoff: &Backoff,
    mut on_event: impl FnMut(Event<K>),
    on_rejected: impl FnMut(bool),
) -> Infallible
where
    K: Decode,
{
    let mut watch = Watch {
        plural: K::plural(&()).into_owned(),
        metrics: selection.metrics.clone(),
        resource_version: None,
        decoder: Decoder::default(),
        failing: None,
        is_rejected: false,
        on_rejected,
    };
    loop {
        let is_resumed = watch.resource_version.is_some();
        let start = Instant::now();
        match watch.run_stream(&api, selection, backoff, &mut on_event).await {
            Ok(()) if start.elapsed() >= STABLE_STREAM => {}
            // The watch was away for too long, which is no failure: list again at once.
            Err(error) if is_expired(&error) && is_resumed => watch.resource_version = None,
            Ok(()) => watch.back_off(None, backoff).await,
            Err(error) => {
                if is_expired(&error) {
                    watch.resource_version = None;
                }
                watch.back_off(Some(&error), backoff).await;
            }
        }
    }
}

/// The state of one kind's watch.
struct Watch<R> {
    plural: String,
    metrics: Option<ClientMetrics>,
    /// The version to watch from; a list comes first where there is none.
    resource_version: Option<String>,
    decoder: Decoder,
    /// The beginning of the failures, and the kind of the current retry.
    failing: Option<(Instant, Turn)>,
    is_rejected: bool,
    on_rejected: R,
}

impl<R: FnMut(bool)> Watch<R> {
    /// Lists if needed, then reads one stream to its end.
    async fn run_stream<K>(
        &mut self,
        api: &Api<K>,
        selection: &Selection,
        backoff: &Backoff,
        on_event: &mut impl FnMut(Event<K>),
    ) -> Result<(), Error>
    where
        K: Decode,
    {
        let version = match &self.resource_version {
            Some(version) => version.clone(),
            None => self.list(api, selection, on_event).await?,
        };
        let Selection { labels, fields, page_size: _, metrics: _ } = selection.clone();
        let params = WatchParams {
            label_selector: labels,
            field_selector: fields,
            timeout: u32::try_from((MAX_STREAM - with_jitter(MAX_STREAM / 4)).as_secs()).ok(),
            ..WatchParams::default()
        };
        let request = Request::new(api.resource_url());
        let request = if K::metadata_api() {
            request.watch_metadata(&params, &version)
        } else {
            request.watch(&params, &version)
        };
        let client = api.clone().into_client();
        let events = client.request_events::<Box<RawValue>>(request.map_err(Error::BuildRequest)?).await?;
        self.count(ClientMetrics::watch_began);
        let mut stream = pin!(events);
        self.resource_version = Some(version);
        let mut recovered = pin!(sleep(RECOVERED));
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = &mut recovered, if self.failing.is_some() => {
                    self.recover(backoff);
                    continue;
                }
            };
            let Some(event) = event else { return Ok(()) };
            let event = event?;
            self.count(ClientMetrics::watch_heard);
            let (event, version) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => self.read(&object, Event::Apply),
                WatchEvent::Deleted(object) => self.read(&object, Event::Delete),
                WatchEvent::Bookmark(bookmark) => (None, Some(bookmark.metadata.resource_version)),
                WatchEvent::Error(status) => return Err(Error::Api(status)),
            };
            self.resource_version = version.filter(|version| !version.is_empty()).or(self.resource_version.take());
            event.map(&mut *on_event);
        }
    }

    /// Reads the object of an event. Returns the event and the object's version, or neither if its metadata can't be
    /// read.
    fn read<K: Decode>(&mut self, json: &RawValue, event: fn(K) -> Event<K>) -> (Option<Event<K>>, Option<String>) {
        let object: Option<K> = self.decoder.decode(json.get());
        let version = object.as_ref().and_then(|object| object.meta().resource_version.clone());
        (object.map(event), version)
    }

    /// Lists all pages, and returns the version to watch from. A list counts only once its `InitDone` was passed on.
    async fn list<K: Decode>(
        &mut self,
        api: &Api<K>,
        selection: &Selection,
        on_event: &mut impl FnMut(Event<K>),
    ) -> Result<String, Error> {
        let Selection { labels, fields, page_size, metrics: _ } = selection.clone();
        let mut params =
            ListParams { label_selector: labels, field_selector: fields, limit: page_size, ..ListParams::default() };
        on_event(Event::Init);
        loop {
            let page = list_with(api, &params, |json| self.decoder.decode(json)).await?;
            page.items.into_iter().for_each(|object| on_event(Event::InitApply(object)));
            params.continue_token = page.continue_token;
            if params.continue_token.is_none() {
                on_event(Event::InitDone);
                return Ok(page.resource_version);
            }
        }
    }

    async fn back_off(&mut self, error: Option<&Error>, backoff: &Backoff) {
        let message = error.map_or_else(|| "the stream ended as soon as it began".to_owned(), Error::to_string);
        self.count(ClientMetrics::watch_failed);
        let is_rejected = error.is_some_and(|error| !is_transient(error) && !is_expired(error));
        self.set_rejected(is_rejected);
        let resource = &self.plural;
        let since = match self.failing {
            Some((since, retry)) => {
                debug!(resource, error = message, "the watch failed again");
                // A rejection is about this kind alone, so the other watches may retry. A 410 usually is about all.
                if is_rejected {
                    backoff.answered(retry);
                }
                since
            }
            None => {
                warn!(resource, error = message, "the watch failed; keeping the objects it listed, and retrying");
                Instant::now()
            }
        };
        self.failing = Some((since, backoff.wait().await));
    }

    fn count(&self, what: fn(&ClientMetrics, &str)) {
        if let Some(metrics) = &self.metrics {
            what(metrics, &self.plural);
        }
    }

    fn recover(&mut self, backoff: &Backoff) {
        self.set_rejected(false);
        if let Some((since, retry)) = self.failing.take() {
            info!(resource = self.plural, after = ?since.elapsed(), "the watch recovered");
            backoff.answered(retry);
        }
    }

    fn set_rejected(&mut self, is_rejected: bool) {
        if mem::replace(&mut self.is_rejected, is_rejected) != is_rejected {
            (self.on_rejected)(is_rejected);
        }
    }
}

/// Returns whether the requested version is too old to watch from (HTTP 410): only a list helps.
fn is_expired(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 410)
}
