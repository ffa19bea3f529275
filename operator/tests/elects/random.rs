//! `Random`: a seeded generator, so that a failure can be repeated.

use std::time::Duration;

/// A linear congruential generator with its high bits mixed (PCG).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 22)) >> 22;
        (mixed ^ (self.0 >> 40)) % bound
    }

    /// Returns a duration up to `most`, in microseconds.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(most.as_micros() as u64 + 1))
    }
}
