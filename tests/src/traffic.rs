//! `Traffic`: recorded requests to an API server, to be counted. No IO.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use hyper::{Method, Request, header::AUTHORIZATION};

/// One request.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// The time at which it came.
    pub at: Instant,
    /// A hash of the client's token.
    pub client: u64,
    /// list, watch, get, create, patch, update or delete; or connect, for a connection that carried no request.
    pub verb: &'static str,
    /// The resource with its subresource, as in bpfnodes/status.
    pub resource: String,
}

impl ApiRequest {
    /// Records a connection that was refused.
    pub fn connection() -> Self {
        Self { at: Instant::now(), client: 0, verb: "connect", resource: String::new() }
    }

    /// Records a request.
    pub fn read<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let mut path = uri.path().split('/').filter(|part| !part.is_empty());
        // The core group is one part, any other a group and a version.
        let skipped = if path.next() == Some("api") { 1 } else { 2 };
        let mut rest: Vec<&str> = path.skip(skipped).collect();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let watches = uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
        let verb = match (request.method(), rest.len()) {
            (&Method::GET, _) if watches => "watch",
            (&Method::GET, ..=1) => "list",
            (&Method::GET, _) => "get",
            (&Method::POST, _) => "create",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, _) => "delete",
            _ => "update",
        };
        let resource = match rest.as_slice() {
            [resource, _, below, ..] => format!("{resource}/{below}"),
            [resource, ..] => (*resource).to_owned(),
            [] => String::new(),
        };
        let mut client = DefaultHasher::new();
        request.headers().get(AUTHORIZATION).hash(&mut client);
        Self { at: Instant::now(), client: client.finish(), verb, resource }
    }

    /// Returns whether it is to change an object.
    pub fn is_write(&self) -> bool {
        matches!(self.verb, "create" | "patch" | "update" | "delete")
    }
}

/// Recorded requests, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Vec<ApiRequest>);

impl Traffic {
    /// Adds a request.
    pub fn record(&mut self, request: ApiRequest) {
        self.0.push(request);
    }

    /// Returns the requests that came within `length` from `from` on.
    pub fn during(&self, from: Instant, length: Duration) -> Self {
        let within = |request: &&ApiRequest| request.at >= from && request.at.duration_since(from) < length;
        Self(self.0.iter().filter(within).cloned().collect())
    }

    /// Returns the requests that are to change an object, but not those for this resource.
    pub fn writes_but_of(&self, resource: &str) -> Self {
        let writes = |request: &&ApiRequest| request.is_write() && request.resource != resource;
        Self(self.0.iter().filter(writes).cloned().collect())
    }

    /// Returns the requests for one resource.
    pub fn of(&self, resource: &str) -> Self {
        Self(self.0.iter().filter(|request| request.resource == resource).cloned().collect())
    }

    /// Returns the number of requests.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the most requests within any one second.
    pub fn busiest_second(&self) -> usize {
        let times: Vec<Instant> = self.0.iter().map(|request| request.at).collect();
        let within = |(i, first): (usize, &Instant)| {
            times[i..].partition_point(|at| at.duration_since(*first) < Duration::from_secs(1))
        };
        times.iter().enumerate().map(within).max().unwrap_or_default()
    }

    /// Returns the most requests of one client. Refused connections do not count: their client is not known.
    pub fn most_by_one(&self) -> usize {
        let mut counts = BTreeMap::<u64, usize>::new();
        for request in self.0.iter().filter(|request| request.verb != "connect") {
            *counts.entry(request.client).or_default() += 1;
        }
        counts.into_values().max().unwrap_or_default()
    }
}

/// Prints the number of requests per verb and resource, the most first.
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::<(&str, &str), usize>::new();
        for request in &self.0 {
            *counts.entry((request.verb, &request.resource)).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let words: Vec<String> =
            counts.iter().map(|((verb, resource), count)| format!("{count} {verb} {resource}")).collect();
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: Method, uri: &str) -> (&'static str, String) {
        let ApiRequest { verb, resource, .. } =
            ApiRequest::read(&Request::builder().method(method).uri(uri).body(()).expect("a request"));
        (verb, resource)
    }

    #[test]
    fn verbs_and_resources_are_parsed_as_the_api_server_parses_them() {
        let node = "/apis/sockeye.dev/v1alpha1/bpfnodes";
        for (method, uri, verb, resource) in [
            (Method::GET, format!("{node}?limit=500"), "list", "bpfnodes"),
            (Method::GET, format!("{node}?&watch=true&timeoutSeconds=290"), "watch", "bpfnodes"),
            (Method::GET, format!("{node}/a"), "get", "bpfnodes"),
            (Method::PATCH, format!("{node}/a/status?fieldManager=x"), "patch", "bpfnodes/status"),
            (Method::POST, "/api/v1/namespaces/n/configmaps".to_owned(), "create", "configmaps"),
            (Method::DELETE, "/api/v1/namespaces/n/configmaps/c".to_owned(), "delete", "configmaps"),
            (Method::GET, "/api/v1/nodes".to_owned(), "list", "nodes"),
        ] {
            assert_eq!(parsed(method, &uri), (verb, resource.to_owned()), "{uri}");
        }
    }

    #[test]
    fn the_busiest_second_may_start_at_any_request() {
        let start = Instant::now();
        let mut traffic = Traffic::default();
        for ms in [0, 900, 950, 1800, 1899, 5000] {
            traffic.record(ApiRequest { at: start + Duration::from_millis(ms), ..ApiRequest::connection() });
        }
        assert_eq!(traffic.busiest_second(), 4);
        assert_eq!(traffic.during(start, Duration::from_secs(1)).count(), 3);
    }
}
