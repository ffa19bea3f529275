//! [`Url`]: the parts of an http or https URL that a request needs. IO: none.

use std::fmt;

use http::Uri;

/// An http or https URL without user, password and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// True if it is https.
    pub is_https: bool,
    /// The host in lower case, an IPv6 address in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path and the query.
    pub path: String,
}

impl Url {
    /// Reads an absolute URL.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "to what is no URL")?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("to what is neither https nor http"),
        };
        let authority = uri.authority().ok_or("to a URL without a host")?;
        if authority.as_str().contains('@') {
            return Err("to a URL with a user name");
        }
        let host = authority.host().to_ascii_lowercase();
        let default = if is_https { 443 } else { 80 };
        let port = match authority.as_str().get(host.len()..) {
            Some("" | ":") => default,
            _ => authority.port_u16().ok_or("to a URL with an odd port")?,
        };
        if host.is_empty() || port == 0 {
            return Err("to a URL without a host");
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { is_https, host, port, path })
    }

    /// Reads what a header of an answer from this URL names: an absolute URL or one relative to this.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn join(&self, location: &str) -> Result<Self, &'static str> {
        let location = location.split('#').next().unwrap_or_default();
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme()));
        }
        if has_scheme(location) {
            return Self::parse(location);
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{path}{location}"),
            _ => format!("{}/{location}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Self::parse(&format!("{}://{}{path}", self.scheme(), self.authority()))
    }

    /// Returns the URL of another path at the same host.
    pub fn with_path(&self, path: String) -> Self {
        Self { path, ..self.clone() }
    }

    /// Returns the host, and the port unless it is the scheme's own, as the header `Host` has them.
    pub fn authority(&self) -> String {
        if self.port == if self.is_https { 443 } else { 80 } { self.host.clone() } else { self.host_and_port() }
    }

    /// Returns the host and the port.
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Returns the host as a name or address, without brackets.
    pub fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns whether the other URL is at the same server: scheme, host and port.
    pub fn is_same_origin(&self, other: &Self) -> bool {
        (self.is_https, &self.host, self.port) == (other.is_https, &other.host, other.port)
    }

    fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }
}

/// Returns whether text begins with a scheme and `//`.
fn has_scheme(text: &str) -> bool {
    let scheme = text.split(['/', '?']).next().unwrap_or_default();
    scheme.strip_suffix(':').is_some_and(|scheme| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

impl fmt::Display for Url {
    /// Writes no query: that of a redirect can be a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(formatter, "{}://{}{path}", self.scheme(), self.authority())
    }
}

/// Appends `name=value` to a query, with all but letters, digits and `-._~:/,` encoded (RFC 3986, 2.1).
pub fn add_parameter(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(name);
    query.push('=');
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            query.push(byte.into());
        } else {
            query.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_as_rfc_3986_has_them() {
        let base = Url::parse("https://a.b:5000/v2/x/blobs/y?z=1").unwrap();
        for (location, url) in [
            ("https://C.d/e?f=g#h", "https://c.d:443/e?f=g"),
            ("http://c.d", "http://c.d:80/"),
            ("https://c.d?q", "https://c.d:443/?q"),
            ("//c.d/e", "https://c.d:443/e"),
            ("/e?f=https://g", "https://a.b:5000/e?f=https://g"),
            ("e", "https://a.b:5000/v2/x/blobs/e"),
            ("?n=2", "https://a.b:5000/v2/x/blobs/y?n=2"),
            ("https://[::1]:5/e", "https://[::1]:5/e"),
        ] {
            let read = base.join(location).unwrap();
            assert_eq!(format!("{}://{}{}", read.scheme(), read.host_and_port(), read.path), url, "{location}");
        }
    }

    #[test]
    fn urls_with_users_and_of_other_schemes_are_refused() {
        let base = Url::parse("https://a.b/").unwrap();
        for location in
            ["https://a.b@c.d/", "ftp://a.b/", "file:///etc/passwd", "https://", "https:///x", "https://a:b/"]
        {
            assert!(base.join(location).is_err(), "{location}");
        }
    }

    #[test]
    fn queries_are_not_shown() {
        assert_eq!(Url::parse("https://a.b:443/c?signature=secret").unwrap().to_string(), "https://a.b/c");
    }

    #[test]
    fn parameters_can_not_break_out_of_their_query() {
        let mut query = String::new();
        add_parameter(&mut query, "service", "a&b=c d#\r\n");
        add_parameter(&mut query, "scope", "repository:x/y:pull");
        assert_eq!(query, "service=a%26b%3Dc%20d%23%0D%0A&scope=repository:x/y:pull");
    }
}
