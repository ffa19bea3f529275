//! [`Counters`] and [`Histograms`]: metrics by the values of their labels, which clones share. [`Scrape`]: the values
//! that are known only when somebody asks. IO: none.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::description::Description;

/// The most series of one family.
pub const MAX_SERIES: usize = 512;

/// The value of every label once a family has all the series that it may have.
const OTHER: &str = "other";

/// Bounds of buckets, in seconds: from a millisecond to a minute.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

/// The labels of one series.
type Labels = Vec<(&'static str, String)>;

/// Counts series as they are created.
#[derive(Clone, Debug, Default)]
struct Bound(Arc<AtomicUsize>);

impl Bound {
    /// Returns the labels of a series. Those of a new one are `other` once there are too many. Two that are new at the
    /// same time may both count: the bound is exact to the number of threads.
    fn labels(&self, names: &[&'static str], values: &[&str], is_known: impl Fn(&Labels) -> bool) -> Labels {
        debug_assert_eq!(names.len(), values.len(), "a value for each label of {names:?}");
        let labels: Labels = names.iter().copied().zip(values.iter().map(|value| (*value).to_owned())).collect();
        if is_known(&labels) {
            return labels;
        }
        if self.0.fetch_add(1, Ordering::Relaxed) < MAX_SERIES {
            return labels;
        }
        names.iter().map(|name| (*name, OTHER.to_owned())).collect()
    }
}

/// Counters by the values of their labels. Clones count together.
#[derive(Clone, Debug)]
pub struct Counters {
    names: &'static [&'static str],
    family: Family<Labels, Counter>,
    bound: Bound,
}

impl Counters {
    /// Registers counters.
    pub(crate) fn new(registry: &mut Registry, description: &Description) -> Self {
        let family = Family::default();
        description.register(registry, family.clone());
        Self { names: description.labels, family, bound: Bound::default() }
    }

    /// Counts one.
    pub fn inc(&self, values: &[&str]) {
        self.add(values, 1);
    }

    /// Counts several.
    pub fn add(&self, values: &[&str], count: u64) {
        let labels = self.bound.labels(self.names, values, |labels| self.family.get(labels).is_some());
        self.family.get_or_create(&labels).inc_by(count);
    }

    /// Returns the count of one series; 0 if it was never counted.
    pub fn get(&self, values: &[&str]) -> u64 {
        let labels = self.names.iter().copied().zip(values.iter().map(|value| (*value).to_owned())).collect();
        self.family.get(&labels).map_or(0, |counter| counter.get())
    }
}

/// Histograms of times by the values of their labels. Clones observe together.
#[derive(Clone, Debug)]
pub struct Histograms {
    names: &'static [&'static str],
    family: Family<Labels, Histogram, fn() -> Histogram>,
    bound: Bound,
}

impl Histograms {
    /// Registers histograms.
    pub(crate) fn new(registry: &mut Registry, description: &Description) -> Self {
        let family = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        description.register(registry, family.clone());
        Self { names: description.labels, family, bound: Bound::default() }
    }

    /// Observes a time.
    pub fn observe(&self, values: &[&str], time: std::time::Duration) {
        let labels = self.bound.labels(self.names, values, |labels| self.family.get(labels).is_some());
        self.family.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// Returns the number of observations in one series.
    pub fn count(&self, values: &[&str]) -> u64 {
        let labels = self.names.iter().copied().zip(values.iter().map(|value| (*value).to_owned())).collect();
        self.family.get(&labels).map_or(0, |histogram| histogram.count())
    }
}

/// One value of a metric, with those of its labels.
pub type Sample = (Vec<String>, f64);

/// The values of one scrape, asked of whoever knows them.
#[derive(Debug, Default)]
pub struct Scrape(pub(crate) Registry);

impl Scrape {
    /// Adds a gauge.
    pub fn gauge(&mut self, description: &Description, samples: impl IntoIterator<Item = Sample>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in series(description, samples) {
            family.get_or_create(&labels).set(value);
        }
        description.register(&mut self.0, family);
    }

    /// Adds a gauge without labels.
    pub fn value(&mut self, description: &Description, value: f64) {
        self.gauge(description, [(Vec::new(), value)]);
    }

    /// Adds a counter that somebody else counts, such as the kernel.
    pub fn counter(&mut self, description: &Description, samples: impl IntoIterator<Item = Sample>) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in series(description, samples) {
            family.get_or_create(&labels).inc_by(value);
        }
        description.register(&mut self.0, family);
    }
}

/// Returns the labels and values of as many samples as there may be.
fn series(description: &Description, samples: impl IntoIterator<Item = Sample>) -> impl Iterator<Item = (Labels, f64)> {
    let names = description.labels;
    samples.into_iter().take(MAX_SERIES).map(move |(values, value)| {
        debug_assert_eq!(names.len(), values.len(), "a value for each label of {names:?}");
        (names.iter().copied().zip(values).collect(), value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTED: Description = Description::counter("counted", &["kind"], "What was counted");

    #[test]
    fn clones_count_together_and_series_apart() {
        let counters = Counters::new(&mut Registry::default(), &COUNTED);
        counters.clone().inc(&["a"]);
        counters.add(&["b"], 2);
        assert_eq!((counters.get(&["a"]), counters.get(&["b"]), counters.get(&["c"])), (1, 2, 0));
    }

    #[test]
    fn a_family_has_only_so_many_series_and_the_rest_is_counted_as_other() {
        let counters = Counters::new(&mut Registry::default(), &COUNTED);
        for n in 0..MAX_SERIES + 10 {
            counters.inc(&[&n.to_string()]);
        }
        counters.inc(&["0"]);
        assert_eq!((counters.get(&["0"]), counters.get(&["other"])), (2, 10));
    }
}
