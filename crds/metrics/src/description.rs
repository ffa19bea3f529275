//! [`Description`]: what one metric is called and means. The registry and docs/metrics.md are made of it. IO: none.

use prometheus_client::registry::{Metric, Registry, Unit};

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Observations, counted by their size.
    Histogram,
}

/// What a metric measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// How many there are.
    Number,
    /// A time.
    Seconds,
    /// Memory.
    Bytes,
}

/// The description of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The name without the suffixes that follow from the unit and the kind.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The unit.
    pub measure: Measure,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The help, without the full stop.
    pub help: &'static str,
}

impl Description {
    /// Describes a counter.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, measure: Measure::Number, labels, help }
    }

    /// Describes a gauge.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, measure: Measure::Number, labels, help }
    }

    /// Describes a histogram of times.
    pub const fn times(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, measure: Measure::Seconds, labels, help }
    }

    /// Gives it a unit.
    #[must_use]
    pub const fn of(self, measure: Measure) -> Self {
        Self { measure, ..self }
    }

    /// Returns the name as scrapers see it.
    pub fn full_name(&self) -> String {
        let unit = match self.measure {
            Measure::Number => "",
            Measure::Seconds => "_seconds",
            Measure::Bytes => "_bytes",
        };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.name)
    }

    /// Registers a metric by its description.
    pub(crate) fn register(&self, registry: &mut Registry, metric: impl Metric) {
        match self.measure {
            Measure::Number => registry.register(self.name, self.help, metric),
            Measure::Seconds => registry.register_with_unit(self.name, self.help, Unit::Seconds, metric),
            Measure::Bytes => registry.register_with_unit(self.name, self.help, Unit::Bytes, metric),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_in_the_unit_and_those_of_counters_in_total() {
        assert_eq!(Description::counter("a", &[], "").full_name(), "a_total");
        assert_eq!(Description::counter("a", &[], "").of(Measure::Seconds).full_name(), "a_seconds_total");
        assert_eq!(Description::gauge("a", &[], "").of(Measure::Bytes).full_name(), "a_bytes");
        assert_eq!(Description::times("a", &[], "").full_name(), "a_seconds");
    }
}
