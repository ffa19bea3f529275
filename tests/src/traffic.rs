//! `Traffic`: the requests that were made of an API server, as values to count. No IO.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use hyper::{Method, Request, header::AUTHORIZATION};

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it came.
    pub at: Instant,
    /// Who asked: the same for the same token.
    pub who: u64,
    /// list, watch, get, create, patch, update or delete; connect, where it came to no request.
    pub verb: &'static str,
    /// Of what, with its subresource: bpfnodes/status.
    pub resource: String,
}

impl Asked {
    /// A connection on which nothing could be asked.
    pub fn connection() -> Self {
        Self { at: Instant::now(), who: 0, verb: "connect", resource: String::new() }
    }

    /// What a request asks.
    pub fn read<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let mut path = uri.path().split('/').filter(|part| !part.is_empty());
        // The group and version, of which the core group is one alone.
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
        let mut who = DefaultHasher::new();
        request.headers().get(AUTHORIZATION).hash(&mut who);
        Self { at: Instant::now(), who: who.finish(), verb, resource }
    }

    /// Whether it was to change something.
    pub fn is_write(&self) -> bool {
        matches!(self.verb, "create" | "patch" | "update" | "delete")
    }
}

/// Requests, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Vec<Asked>);

impl Traffic {
    /// Notes one more.
    pub fn note(&mut self, asked: Asked) {
        self.0.push(asked);
    }

    /// Those from then on, for so long.
    pub fn during(&self, from: Instant, length: Duration) -> Self {
        let within = |asked: &&Asked| asked.at >= from && asked.at.duration_since(from) < length;
        Self(self.0.iter().filter(within).cloned().collect())
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The most that came within one second.
    pub fn busiest_second(&self) -> usize {
        let times: Vec<Instant> = self.0.iter().map(|asked| asked.at).collect();
        let within = |(i, first): (usize, &Instant)| {
            times[i..].partition_point(|at| at.duration_since(*first) < Duration::from_secs(1))
        };
        times.iter().enumerate().map(within).max().unwrap_or_default()
    }

    /// The most that one client made; whose a connection was on which nothing could be asked is not known.
    pub fn most_by_one(&self) -> usize {
        let mut counts = BTreeMap::<u64, usize>::new();
        for asked in self.0.iter().filter(|asked| asked.verb != "connect") {
            *counts.entry(asked.who).or_default() += 1;
        }
        counts.into_values().max().unwrap_or_default()
    }
}

/// How many of each, the most first.
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::<(&str, &str), usize>::new();
        for asked in &self.0 {
            *counts.entry((asked.verb, &asked.resource)).or_default() += 1;
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

    fn asked(method: Method, uri: &str) -> (&'static str, String) {
        let Asked { verb, resource, .. } =
            Asked::read(&Request::builder().method(method).uri(uri).body(()).expect("a request"));
        (verb, resource)
    }

    #[test]
    fn requests_are_read_as_the_api_server_reads_them() {
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
            assert_eq!(asked(method, &uri), (verb, resource.to_owned()), "{uri}");
        }
    }

    #[test]
    fn the_busiest_second_is_any_second() {
        let start = Instant::now();
        let mut traffic = Traffic::default();
        for ms in [0, 900, 950, 1800, 1899, 5000] {
            traffic.note(Asked { at: start + Duration::from_millis(ms), ..Asked::connection() });
        }
        assert_eq!(traffic.busiest_second(), 4);
        assert_eq!(traffic.during(start, Duration::from_secs(1)).count(), 3);
    }
}
