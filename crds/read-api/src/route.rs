//! `Route`: what can be asked for, as a path and its query.

use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sockeye_crds::names;

use crate::failure::{Failure, FailureReason};

/// The greatest number of entries of a page.
pub const MAX_PAGE: u32 = 1024;

/// The number of entries of a page if the query gives none.
const PAGE: u32 = 256;

/// Something that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v1/node`: a [`Node`](crate::node::Node), with all BpfPrograms.
    Node,
    /// `/v1/programs/PROGRAM`: a [`Program`](crate::node::Program).
    Program {
        /// The BpfProgram.
        program: String,
    },
    /// `/v1/programs/PROGRAM/log`: the log of the verifier that rejected a program last, as text and whole.
    VerifierLog {
        /// The BpfProgram.
        program: String,
    },
    /// `/v1/programs/PROGRAM/maps/MAP/entries`: [`Entries`](crate::map::Entries).
    Entries {
        /// The BpfProgram.
        program: String,
        /// The map, by its name in the ELF object.
        map: String,
        /// Which entries.
        query: EntriesQuery,
    },
    /// `/v1/programs/PROGRAM/maps/MAP/references`: [`References`](crate::map::References).
    References {
        /// The BpfProgram.
        program: String,
        /// The map.
        map: String,
    },
    /// `/v1/programs/PROGRAM/maps/MAP/records`: a stream of [`Record`](crate::record::Record)s, until the reader goes.
    Records {
        /// The BpfProgram.
        program: String,
        /// The ring or perf buffer.
        map: String,
    },
}

/// The entries that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntriesQuery {
    /// `key`: only the entry of this key, as a spec's `entries[].key` writes it.
    pub key: Option<String>,
    /// `after`: only the entries after those of an earlier page, which gave this text.
    pub after: Option<String>,
    /// `limit`: the greatest number of entries, at most [`MAX_PAGE`].
    pub limit: u32,
    /// `cpus`: the values of processors.
    pub cpus: Cpus,
}

impl Default for EntriesQuery {
    fn default() -> Self {
        Self { key: None, after: None, limit: PAGE, cpus: Cpus::default() }
    }
}

/// The form of a value that each processor has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cpus {
    /// One value, with the sum of each number.
    #[default]
    Sum,
    /// A value for each processor.
    Separate,
}

impl Route {
    /// Returns the path, with its query.
    pub fn path(&self) -> String {
        let of_program = |program| format!("/v1/programs/{}", segment(program));
        let of_map = |program, map| format!("{}/maps/{}", of_program(program), segment(map));
        match self {
            Self::Node => "/v1/node".to_owned(),
            Self::Program { program } => of_program(program),
            Self::VerifierLog { program } => format!("{}/log", of_program(program)),
            Self::Entries { program, map, query } => {
                let query = query.text();
                let mark = if query.is_empty() { "" } else { "?" };
                format!("{}/entries{mark}{query}", of_map(program, map))
            }
            Self::References { program, map } => format!("{}/references", of_map(program, map)),
            Self::Records { program, map } => format!("{}/records", of_map(program, map)),
        }
    }

    /// Reads a path and its query.
    ///
    /// # Errors
    /// [`FailureReason::BadRequest`], if there is no such path, or the query has a field that the path does not take.
    pub fn parse(path: &str, query: Option<&str>) -> Result<Self, Failure> {
        let parts: Vec<&str> = path.split('/').collect();
        let route = match *parts.as_slice() {
            ["", "v1", "node"] => Self::Node,
            ["", "v1", "programs", program] => Self::Program { program: bpf_program(program)? },
            ["", "v1", "programs", program, "log"] => Self::VerifierLog { program: bpf_program(program)? },
            ["", "v1", "programs", program, "maps", map, what] => {
                let (program, map) = (bpf_program(program)?, map_name(map)?);
                match what {
                    "entries" => {
                        let query = EntriesQuery::parse(query.unwrap_or_default())?;
                        return Ok(Self::Entries { program, map, query });
                    }
                    "references" => Self::References { program, map },
                    "records" => Self::Records { program, map },
                    _ => return Err(no_such_path(path)),
                }
            }
            _ => return Err(no_such_path(path)),
        };
        match query {
            None | Some("") => Ok(route),
            Some(_) => Err(bad_request(format!("{path} takes no query"))),
        }
    }
}

impl EntriesQuery {
    fn text(&self) -> String {
        let Self { key, after, limit, cpus } = self;
        let mut text = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("key", key), ("after", after)] {
            if let Some(value) = value {
                text.append_pair(name, value);
            }
        }
        if *limit != PAGE {
            text.append_pair("limit", &limit.to_string());
        }
        if *cpus == Cpus::Separate {
            text.append_pair("cpus", "separate");
        }
        text.finish()
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "key" => query.key = Some(value.into_owned()),
                "after" => query.after = Some(value.into_owned()),
                "limit" => query.limit = limit(&value)?,
                "cpus" => query.cpus = cpus(&value)?,
                _ => return Err(bad_request(format!("{name} is no field of a query for entries"))),
            }
        }
        Ok(query)
    }
}

fn limit(value: &str) -> Result<u32, Failure> {
    let limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
    limit.ok_or_else(|| bad_request(format!("limit is {value}, and must be from 1 to {MAX_PAGE}")))
}

fn cpus(value: &str) -> Result<Cpus, Failure> {
    match value {
        "sum" => Ok(Cpus::Sum),
        "separate" => Ok(Cpus::Separate),
        _ => Err(bad_request(format!("cpus is {value}, and must be sum or separate"))),
    }
}

/// Returns a segment of a path: what a name may not have there is encoded (RFC 3986, section 2.1).
pub fn segment(name: &str) -> impl Display {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(name, ENCODED)
}

fn bpf_program(segment: &str) -> Result<String, Failure> {
    let name = percent_decode_str(segment).decode_utf8_lossy();
    if !names::is_dns_label(&name) {
        return Err(bad_request(format!("{} can't be the name of a BpfProgram", names::printable(&name))));
    }
    Ok(name.into_owned())
}

fn map_name(segment: &str) -> Result<String, Failure> {
    let name = percent_decode_str(segment).decode_utf8_lossy();
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.~-".contains(&byte)) {
        return Err(bad_request(format!("{} can't be the name of a map", names::printable(&name))));
    }
    Ok(name.into_owned())
}

fn no_such_path(path: &str) -> Failure {
    bad_request(format!("there is no {path}"))
}

fn bad_request(message: String) -> Failure {
    Failure { reason: FailureReason::BadRequest, message }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_path_is_refused() {
        for (path, query) in [
            ("/", None),
            ("/v1/nodes", None),
            ("/v1/node", Some("a=b")),
            ("/v1/programs/", None),
            ("/v1/programs/../maps/a/entries", None),
            ("/v1/programs/web/maps//entries", None),
            ("/v1/programs/web/maps/a%2Fb/entries", None),
            ("/v1/programs/web/maps/a/entries", Some("limit=0")),
            ("/v1/programs/web/maps/a/entries", Some("limit=1025")),
            ("/v1/programs/web/maps/a/entries", Some("cpus=each")),
            ("/v1/programs/web/maps/a/entries", Some("page=2")),
        ] {
            let refused = Route::parse(path, query).unwrap_err();
            assert_eq!(refused.reason, FailureReason::BadRequest, "{path} {query:?}: {refused}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_refused_by_its_words() {
        let route = Route::Program { program: "a b/../c?d".to_owned() };
        assert_eq!(route.path(), "/v1/programs/a%20b%2F..%2Fc%3Fd");
        let refused = Route::parse(&route.path(), None).unwrap_err();
        assert_eq!(refused.message, "\"a b/../c?d\" can't be the name of a BpfProgram");
    }

    fn route() -> impl Strategy<Value = Route> {
        let limit = 1..=MAX_PAGE;
        let query = (proptest::option::of(".*"), proptest::option::of(".*"), limit, any::<bool>());
        let query = query.prop_map(|(key, after, limit, separate)| {
            let cpus = if separate { Cpus::Separate } else { Cpus::Sum };
            EntriesQuery { key, after, limit, cpus }
        });
        (0..6, "[a-z][a-z0-9-]{0,20}[a-z0-9]", "[A-Za-z0-9_.]{1,20}", query).prop_map(|(kind, program, map, query)| {
            match kind {
                0 => Route::Node,
                1 => Route::Program { program },
                2 => Route::VerifierLog { program },
                3 => Route::Entries { program, map, query },
                4 => Route::References { program, map },
                _ => Route::Records { program, map },
            }
        })
    }

    proptest! {
        #[test]
        fn a_path_says_its_route(route in route()) {
            let text = route.path();
            let (path, query) = text.split_once('?').map_or((&*text, None), |(path, query)| (path, Some(query)));
            prop_assert_eq!(Route::parse(path, query), Ok(route));
        }
    }
}
