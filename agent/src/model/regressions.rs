//! `Regressions`: what the probes of this kernel's known regressions answered. Values.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_crds::Regression;

/// The answers of the probes of known regressions. A regression that is in neither is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regressions {
    /// The regressions that this kernel has.
    pub found: BTreeSet<Regression>,
    /// Those of which the probe could not tell, each with the reason. They are probed again.
    pub unknown: BTreeMap<Regression, String>,
}

impl Regressions {
    /// Returns the names of those that were found.
    pub fn names(&self) -> Vec<String> {
        self.found.iter().map(|found| found.info().name.to_owned()).collect()
    }
}
