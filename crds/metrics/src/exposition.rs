//! The text that a scraper gets, in the format that it asked for: Prometheus' own, or OpenMetrics. IO: none.

use std::fmt;

use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};

use crate::families::Scrape;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format that an `Accept` header prefers. OpenMetrics is sent only to those who name it.
    pub fn accepted(header: &str) -> Self {
        let quality = |names: &[&str]| {
            let weights = header.split(',').filter_map(|range| weight_of(range, names));
            weights.fold(0.0, f64::max)
        };
        let open_metrics = quality(&["application/openmetrics-text"]);
        let prometheus = quality(&["text/plain", "text/*", "*/*"]);
        if open_metrics > 0.0 && open_metrics >= prometheus { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Returns the `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Writes the counters and the values of one scrape.
    ///
    /// # Errors
    /// None that writing to a string has.
    pub fn write(self, counters: &Registry, scrape: &Scrape) -> Result<String, fmt::Error> {
        let mut out = String::new();
        match self {
            Self::Prometheus => {
                prometheus_text::encode(&mut out, counters)?;
                prometheus_text::encode(&mut out, &scrape.0)?;
            }
            Self::OpenMetrics => {
                text::encode_registry(&mut out, counters)?;
                text::encode_registry(&mut out, &scrape.0)?;
                text::encode_eof(&mut out)?;
            }
        }
        Ok(out)
    }
}

/// Returns the weight of a media range of these names: 1 if it says none.
fn weight_of(range: &str, names: &[&str]) -> Option<f64> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?;
    if !names.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return None;
    }
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some(weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_the_scraper_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for plain in ["", "*/*", "text/plain", "text/html, */*;q=0.8", "application/openmetrics-text;q=0"] {
            assert_eq!(Format::accepted(plain), Format::Prometheus, "{plain}");
        }
        assert_eq!(Format::accepted("text/plain;q=0.9, application/openmetrics-text; q=0.5"), Format::Prometheus);
        assert_eq!(Format::accepted("application/openmetrics-text"), Format::OpenMetrics);
        assert_eq!(Format::accepted("application/openmetrics-text;q=high"), Format::Prometheus);
    }
}
