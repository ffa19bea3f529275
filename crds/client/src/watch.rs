//! `watch`: one kind, listed once and then watched, for as long as the process runs. IO: requests.
//!
//! As [`kube::runtime::watcher`], with the same events, but for what happens when the API server is away or unwell:
//! - it waits by a [`Patience`] that is the whole process's. There a list that fails is tried every second or so for ever,
//!   because the beginning of the next list resets the backoff; and a watch that fails waits up to a minute.
//! - what is too old to be watched from is listed anew, however that is said. There an answer 410, other than the same in a
//!   stream, is asked again with the same version for ever.
//! - a stream that ends as soon as it begins is a failure, and is waited after. There it is begun again at once, for ever.

use std::{convert::Infallible, fmt::Debug, pin::pin, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Error, Resource,
    api::{ListParams, WatchEvent, WatchParams},
    runtime::watcher::Event,
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::{
    client::is_passing,
    patience::{Patience, Turn, shortened},
};

/// A stream that lasted so long was a good one, however it ended.
const GOOD: Duration = Duration::from_secs(5);
/// A stream that lasts so long is one that the others may hope for too.
const SETTLED: Duration = Duration::from_millis(500);
/// The API server ends a watch after so long, or some time less, so that watches that began at the same time do not begin
/// again at the same time.
const LONGEST: Duration = Duration::from_secs(290);

/// Which objects of a kind.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// A label selector.
    pub labels: Option<String>,
    /// A field selector.
    pub fields: Option<String>,
    /// How many objects a page of a list has; absent means all.
    pub page: Option<u32>,
}

/// Lists and watches for ever, and tells every change; and whether the API server refuses this, whenever that changes. One that
/// is away refuses nothing.
pub async fn watch<K>(
    api: Api<K>,
    selection: &Selection,
    patience: &Patience,
    mut tell: impl FnMut(Event<K>),
    refused: impl FnMut(bool),
) -> Infallible
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut watch = Watch { what: K::plural(&()).into_owned(), from: None, failing: None, is_refused: false, refused };
    loop {
        let resumed = watch.from.is_some();
        let began = Instant::now();
        match watch.turn(&api, selection, patience, &mut tell).await {
            Ok(()) if began.elapsed() >= GOOD => {}
            // Nothing is wrong but that it was away for too long.
            Err(error) if is_expired(&error) && resumed => watch.from = None,
            Ok(()) => watch.failed(None, patience).await,
            Err(error) => {
                if is_expired(&error) {
                    watch.from = None;
                }
                watch.failed(Some(&error), patience).await;
            }
        }
    }
}

/// How one kind's watch stands.
struct Watch<R> {
    what: String,
    /// What it goes on from; a list where there is nothing.
    from: Option<String>,
    /// Since when it has been failing, and whose turn it is to try again.
    failing: Option<(Instant, Turn)>,
    is_refused: bool,
    /// Who is told that.
    refused: R,
}

impl<R: FnMut(bool)> Watch<R> {
    /// A list where one is needed, and one stream to its end.
    async fn turn<K>(
        &mut self,
        api: &Api<K>,
        selection: &Selection,
        patience: &Patience,
        tell: &mut impl FnMut(Event<K>),
    ) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let version = match &self.from {
            Some(version) => version.clone(),
            None => list(api, selection, tell).await?,
        };
        let Selection { labels, fields, page: _ } = selection.clone();
        let params = WatchParams {
            label_selector: labels,
            field_selector: fields,
            timeout: u32::try_from((LONGEST - shortened(LONGEST / 4)).as_secs()).ok(),
            ..WatchParams::default()
        };
        let mut events = pin!(api.watch(&params, &version).await?);
        self.from = Some(version);
        let mut settled = pin!(sleep(SETTLED));
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = &mut settled, if self.failing.is_some() => {
                    self.goes_on(patience);
                    continue;
                }
            };
            let Some(event) = event else { return Ok(()) };
            let (event, version) = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let version = object.meta().resource_version.clone();
                    (Some(Event::Apply(object)), version)
                }
                WatchEvent::Deleted(object) => {
                    let version = object.meta().resource_version.clone();
                    (Some(Event::Delete(object)), version)
                }
                WatchEvent::Bookmark(bookmark) => (None, Some(bookmark.metadata.resource_version)),
                WatchEvent::Error(status) => return Err(Error::Api(status)),
            };
            self.from = version.filter(|version| !version.is_empty()).or(self.from.take());
            event.map(&mut *tell);
        }
    }

    async fn failed(&mut self, error: Option<&Error>, patience: &Patience) {
        let words = error.map_or_else(|| "it ended as soon as it had begun".to_owned(), Error::to_string);
        let is_refused = error.is_some_and(|error| !is_passing(error) && !is_expired(error));
        self.set_refused(is_refused);
        let what = &self.what;
        let since = match self.failing {
            Some((since, turn)) => {
                debug!(what, error = words, "the watch failed again");
                // What is said of this kind need not hold for the others; but that all is too old holds for many at once.
                if is_refused {
                    patience.answered(turn);
                }
                since
            }
            None => {
                warn!(what, error = words, "the watch failed; keeping what it told before, and trying again");
                Instant::now()
            }
        };
        self.failing = Some((since, patience.wait().await));
    }

    fn set_refused(&mut self, now: bool) {
        if std::mem::replace(&mut self.is_refused, now) != now {
            (self.refused)(now);
        }
    }

    fn goes_on(&mut self, patience: &Patience) {
        self.set_refused(false);
        if let Some((since, turn)) = self.failing.take() {
            info!(what = self.what, after = ?since.elapsed(), "the watch goes on");
            patience.answered(turn);
        }
    }
}

/// Tells a complete list, and the version to watch from. What is told of one that fails half-way counts for nothing.
async fn list<K>(api: &Api<K>, selection: &Selection, tell: &mut impl FnMut(Event<K>)) -> Result<String, Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    let Selection { labels, fields, page } = selection.clone();
    let mut params =
        ListParams { label_selector: labels, field_selector: fields, limit: page, ..ListParams::default() };
    tell(Event::Init);
    loop {
        let list = api.list(&params).await?;
        list.items.into_iter().for_each(|object| tell(Event::InitApply(object)));
        params.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            tell(Event::InitDone);
            return Ok(list.metadata.resource_version.unwrap_or_default());
        }
    }
}

/// Whether what was asked for is too far back: only a list helps.
fn is_expired(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 410)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Client, client::Body};
    use tokio::time::timeout;

    use super::*;

    const LISTED: &str = r#"{"metadata": {"resourceVersion": "7"}, "items": []}"#;
    const GONE: &str =
        r#"{"kind": "Status", "status": "Failure", "message": "too old", "reason": "Expired", "code": 410}"#;

    /// What a watch asks and tells within a minute, of an API server that gives these answers, and then none.
    async fn minute(answers: impl IntoIterator<Item = (u16, String)>) -> (Vec<String>, Vec<String>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut answers: VecDeque<_> = answers.into_iter().collect();
        let service = tower::util::service_fn({
            let asked = Arc::clone(&asked);
            move |request: Request<Body>| {
                let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
                asked.lock().unwrap().push(if watches { "watch" } else { "list" }.to_owned());
                let answer = answers.pop_front();
                async move {
                    let Some((code, body)) = answer else { return std::future::pending().await };
                    Response::builder().status(code).body(Body::from(body.into_bytes()))
                }
            }
        });
        let api = Api::<ConfigMap>::all(Client::new(service, "default"));
        let mut told = Vec::new();
        let tell = |event: Event<ConfigMap>| {
            told.push(match event {
                Event::Init => "begin".to_owned(),
                Event::InitDone => "complete".to_owned(),
                Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => {
                    object.metadata.name.unwrap_or_default()
                }
            });
        };
        let (selection, patience) = (Selection::default(), Patience::default());
        let _ = timeout(Duration::from_secs(60), watch(api, &selection, &patience, tell, |_| ())).await;
        let asked = asked.lock().unwrap().clone();
        (asked, told)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_told_once_and_an_api_server_that_is_away_refuses_nothing() {
        let mut answers: VecDeque<_> = [500, 403, 403, 503, 404].into();
        let service = tower::util::service_fn(move |_: Request<Body>| {
            let answer = answers.pop_front();
            async move {
                let Some(code) = answer else { return std::future::pending().await };
                Response::builder().status(code).body(Body::empty())
            }
        });
        let api = Api::<ConfigMap>::all(Client::new(service, "default"));
        let (selection, patience, mut told) = (Selection::default(), Patience::default(), Vec::new());
        let watching = watch(api, &selection, &patience, |_| {}, |refused| told.push(refused));
        let _ = timeout(Duration::from_secs(60), watching).await;
        assert_eq!(told, [true, false, true]);
    }

    fn event(kind: &str, name: &str, version: &str) -> String {
        let object = format!(r#"{{"metadata": {{"name": "{name}", "resourceVersion": "{version}"}}}}"#);
        format!("{{\"type\": \"{kind}\", \"object\": {object}}}\n")
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_is_listed_anew_however_that_is_said() {
        let in_the_stream = format!("{{\"type\": \"ERROR\", \"object\": {GONE}}}\n");
        let (asked, told) = minute([
            (200, LISTED.to_owned()),
            (200, event("ADDED", "a", "8")),
            (410, GONE.to_owned()),
            (200, LISTED.to_owned()),
            (200, event("ADDED", "b", "9")),
            (200, in_the_stream),
            (200, LISTED.to_owned()),
        ])
        .await;
        assert_eq!(asked, ["list", "watch", "watch", "list", "watch", "watch", "list", "watch"]);
        assert_eq!(told, ["begin", "complete", "a", "begin", "complete", "b", "begin", "complete"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_asked_ever_less() {
        let status = |code| (code, String::new());
        for (what, answers) in [
            ("lists", vec![status(503); 1000]),
            ("watches", [vec![(200, LISTED.to_owned())], vec![status(500); 1000]].concat()),
            ("streams that end at once", [vec![(200, LISTED.to_owned())], vec![(200, String::new()); 1000]].concat()),
            ("what is too old at once", vec![[(200, LISTED.to_owned()), (410, GONE.to_owned())]; 1000].concat()),
        ] {
            let (asked, _) = minute(answers).await;
            // A wait is 2.2 s on the average, and twice two requests may come of one.
            assert!((12..=90).contains(&asked.len()), "{what}: asked {} times in a minute", asked.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_that_are_too_old_one_asks() {
        let asked = Arc::new(Mutex::new(0));
        let service = tower::util::service_fn({
            let asked = Arc::clone(&asked);
            move |request: Request<Body>| {
                *asked.lock().unwrap() += 1;
                let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
                let answer =
                    if watches { format!("{{\"type\": \"ERROR\", \"object\": {GONE}}}\n") } else { LISTED.to_owned() };
                async move { Response::builder().body(Body::from(answer.into_bytes())) }
            }
        });
        let (selection, patience) = (Selection::default(), Patience::default());
        let watches = (0..10).map(|_| {
            let api = Api::<ConfigMap>::all(Client::new(service.clone(), "default"));
            watch(api, &selection, &patience, |_| {}, |_| ())
        });
        let _ = timeout(Duration::from_secs(60), futures::future::join_all(watches)).await;
        let asked = *asked.lock().unwrap();
        // A wait is 2.2 s on the average, and two requests come of one.
        assert!((20 + 12..=20 + 90).contains(&asked), "asked {asked} times in a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_fails_half_way_is_not_complete() {
        let page =
            r#"{"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [{"metadata": {"name": "a"}}]}"#;
        let (asked, told) = minute([(200, page.to_owned()), (500, String::new())]).await;
        assert_eq!(asked, ["list", "list", "list"]);
        assert_eq!(told, ["begin", "a", "begin"]);
    }
}
