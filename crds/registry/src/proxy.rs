//! [`Proxy`]: which connections go through an HTTP proxy, as HTTPS_PROXY and NO_PROXY say. IO: none.
//!
//! The rules are those of Go's golang.org/x/net/http/httpproxy, by which the rest of a cluster goes. Plain HTTP goes
//! past the proxy: a registry that is set insecure lies near.

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;

use crate::Error;

/// A proxy that opens tunnels by CONNECT (RFC 9110, 9.3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The proxy's host, an IPv6 address without brackets.
    pub host: String,
    /// The proxy's port.
    pub port: u16,
    /// The credentials that the proxy is shown.
    pub authorization: Option<HeaderValue>,
    except: Vec<Exception>,
}

/// Hosts that are connected to directly.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    Network {
        address: IpAddr,
        bits: u8,
        port: Option<u16>,
    },
    /// A domain, and whether it is excepted itself or only what is below it.
    Domain {
        suffix: String,
        includes_itself: bool,
        port: Option<u16>,
    },
}

impl Proxy {
    /// Reads the variables `HTTPS_PROXY` and `NO_PROXY`, or those in lower case.
    ///
    /// # Errors
    /// Fails where the proxy is no `http://[USER:PASSWORD@]HOST[:PORT]`.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        let read = |name: &str| {
            let lower = name.to_ascii_lowercase();
            variable(name).filter(|text| !text.is_empty()).or_else(|| variable(&lower)).filter(|text| !text.is_empty())
        };
        match read("HTTPS_PROXY") {
            Some(url) => Self::new(&url, &read("NO_PROXY").unwrap_or_default()).map(Some),
            None => Ok(None),
        }
    }

    /// Reads a proxy's URL and the hosts that it is not for, separated by commas.
    ///
    /// # Errors
    /// Fails where the proxy is no `http://[USER:PASSWORD@]HOST[:PORT]`.
    pub fn new(url: &str, except: &str) -> Result<Self, Error> {
        // The URL may have a password, so no message has it.
        let wrong = || Error::Settings("have an HTTPS_PROXY that is no http://[USER:PASSWORD@]HOST[:PORT]".to_owned());
        let rest = url.strip_prefix("http://").or_else(|| (!url.contains("://")).then_some(url)).ok_or_else(wrong)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let (host, port) = split_port(host);
        let port = match port {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None => 80,
        };
        if host.is_empty() {
            return Err(wrong());
        }
        let authorization = match user {
            Some(user) => Some(basic(user).ok_or_else(wrong)?),
            None => None,
        };
        let except = except.split([',', ' ']).filter(|text| !text.is_empty()).filter_map(exception).collect();
        Ok(Self { host: host.to_owned(), port, authorization, except })
    }

    /// Returns whether a connection goes through the proxy. What is on this machine never does.
    pub fn is_for(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        let is_local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        !is_local && !self.except.iter().any(|exception| exception.holds(&host, address, port))
    }
}

impl Exception {
    fn holds(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network { address: network, bits, port: only } => {
                only.is_none_or(|only| only == port)
                    && address.is_some_and(|address| prefix(address, *bits) == prefix(*network, *bits))
            }
            Self::Domain { suffix, includes_itself, port: only } => {
                only.is_none_or(|only| only == port)
                    && host
                        .strip_suffix(suffix.as_str())
                        .is_some_and(|before| if before.is_empty() { *includes_itself } else { before.ends_with('.') })
            }
        }
    }
}

/// Returns an address's family and its first bits.
fn prefix(address: IpAddr, bits: u8) -> (bool, u128) {
    let (is_v4, address, width) = match address {
        IpAddr::V4(address) => (true, u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (false, u128::from(address), 128),
    };
    (is_v4, address.checked_shr(u32::from(width - bits.min(width))).unwrap_or_default())
}

fn exception(text: &str) -> Option<Exception> {
    if text == "*" {
        return Some(Exception::All);
    }
    if let Some((network, bits)) = text.split_once('/') {
        return Some(Exception::Network { address: network.parse().ok()?, bits: bits.parse().ok()?, port: None });
    }
    let (host, port) = split_port(text);
    let port = port.and_then(|port| port.parse().ok());
    if let Ok(address) = host.parse::<IpAddr>() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        return Some(Exception::Network { address, bits, port });
    }
    let host = host.strip_prefix('*').unwrap_or(host).to_ascii_lowercase();
    let suffix = host.trim_start_matches('.');
    let includes_itself = suffix.len() == host.len();
    (!suffix.is_empty()).then(|| Exception::Domain { suffix: suffix.to_owned(), includes_itself, port })
}

/// Splits a host, maybe in brackets, from its port.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match text.split_once(':') {
        // Several colons are an IPv6 address.
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

fn basic(user: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(decode(user)?))).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Decodes `%XX`.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        let except = "example.com,.below.com,*.star.com,10.0.0.0/8,192.0.2.1,host:8443,2001:db8::/32,[::2]:5";
        let proxy = Proxy::new("http://proxy:3128", except).unwrap();
        for (host, port, is_for) in [
            ("other.org", 443, true),
            ("example.com", 443, false),
            ("Example.COM.", 443, false),
            ("a.example.com", 443, false),
            ("badexample.com", 443, true),
            ("below.com", 443, true),
            ("a.below.com", 443, false),
            ("star.com", 443, true),
            ("a.star.com", 443, false),
            ("10.255.0.1", 443, false),
            ("11.0.0.1", 443, true),
            ("192.0.2.1", 443, false),
            ("192.0.2.2", 443, true),
            ("host", 443, true),
            ("host", 8443, false),
            ("2001:db8::1", 443, false),
            ("2001:db9::1", 443, true),
            ("::2", 5, false),
            ("::2", 6, true),
            ("localhost", 443, false),
            ("127.1.2.3", 443, false),
            ("::1", 443, false),
        ] {
            assert_eq!(proxy.is_for(host, port), is_for, "{host}:{port}");
        }
        assert!(!Proxy::new("http://proxy", "*").unwrap().is_for("any", 443));
    }

    #[test]
    fn proxies_are_read_with_user_and_port() {
        let proxy = Proxy::new("http://us%40er:pa%3Ass@proxy.example.com:3128/", "").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example.com", 3128));
        let basic = format!("Basic {}", STANDARD.encode("us@er:pa:ss"));
        assert_eq!(proxy.authorization.unwrap(), basic.as_str());
        let proxy = Proxy::new("[::1]:8080", "").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port, proxy.authorization), ("::1", 8080, None));
        for url in ["https://proxy", "socks5://proxy", "http://", "http://user:secret@", "http://proxy:port"] {
            let error = Proxy::new(url, "").unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn variables_are_read_in_both_cases() {
        let variables = |name: &str| match name {
            "https_proxy" => Some("http://proxy:1".to_owned()),
            "NO_PROXY" => Some(String::new()),
            "no_proxy" => Some("a.b".to_owned()),
            _ => None,
        };
        let proxy = Proxy::from_environment(variables).unwrap().unwrap();
        assert!(proxy.port == 1 && !proxy.is_for("a.b", 443));
        assert_eq!(Proxy::from_environment(|_| None).unwrap(), None);
    }
}
