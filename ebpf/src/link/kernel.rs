//! `Kernel`: the facts of a kernel that linking needs. The caller finds them; those that cost something are asked for
//! only when an object needs them.

use std::collections::{BTreeMap, BTreeSet};

use super::Features;
use crate::btf::KernelBtf;

/// The facts of a kernel.
pub trait Kernel {
    /// Returns what the kernel can do.
    fn features(&self) -> Features;

    /// Returns the kernel's types, or why there are none.
    fn btf(&self) -> Result<&KernelBtf, String>;

    /// Returns the kernel's configuration, the text of `.config`. None if nobody can read it.
    fn config(&self) -> Option<&str>;

    /// Returns the kernel's version as `LINUX_VERSION_CODE` has it.
    fn version(&self) -> u32;

    /// Returns the addresses of the kernel's symbols of these names (`/proc/kallsyms`), or why they can't be read. A
    /// reader without privilege sees 0.
    fn addresses(&self, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Vec<u64>>, String>;

    /// Returns the size of a page in bytes.
    fn page(&self) -> u32;

    /// Returns the number of possible processors.
    fn cpus(&self) -> u32;
}
