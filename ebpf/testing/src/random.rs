//! `Rng`: random numbers that a seed reproduces.

/// A random number generator (splitmix64), seeded with a number.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`, or 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Returns a number that parsers often handle wrongly, or one near `here`.
    pub(crate) fn number(&mut self, here: u64, len: usize) -> u64 {
        match self.below(8) {
            0 => here ^ (1 << self.below(64)),
            1 => here.wrapping_add(self.below(17) as u64).wrapping_sub(8),
            2 => self.below(len) as u64,
            3 => self.below(128) as u64,
            4 => (len as u64).wrapping_add(self.below(17) as u64).wrapping_sub(8),
            5 => self.pick(&[0, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fff8, 0xffff_ffff]),
            6 => self.pick(&[1 << 20, 1 << 31, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 7, i64::MAX as u64]),
            _ => self.next(),
        }
    }
}
