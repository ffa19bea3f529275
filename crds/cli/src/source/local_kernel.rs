//! [`LocalKernel`]: the running kernel, as far as anybody may read it. IO: files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use sockeye_ebpf::{
    btf::KernelBtf,
    link::{Features, Kernel},
};

/// The kernel's types.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The running kernel.
pub struct LocalKernel {
    btf: Result<KernelBtf, String>,
    /// Its release (uname -r).
    pub release: String,
}

impl LocalKernel {
    /// Reads its types.
    pub fn read() -> Self {
        let bytes = fs::read(BTF).map_err(|error| format!("{BTF}: {error}"));
        let btf = bytes.and_then(|bytes| KernelBtf::new(Box::new(bytes)).map_err(|error| format!("{BTF}: {error}")));
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self { btf, release }
    }
}

impl Kernel for LocalKernel {
    /// Only what an object becomes depends on them, and not whether it can be linked.
    fn features(&self) -> Features {
        Features::ALL
    }

    fn btf(&self) -> Result<&KernelBtf, String> {
        self.btf.as_ref().map_err(Clone::clone)
    }

    fn config(&self) -> Option<&str> {
        None
    }

    fn version(&self) -> u32 {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0_u32));
        let mut next = || numbers.next().unwrap_or_default().min(255);
        next() << 16 | next() << 8 | next()
    }

    fn addresses(&self, _: &BTreeSet<&str>) -> Result<BTreeMap<String, Vec<u64>>, String> {
        Err("they are read by privileged readers only".to_owned())
    }

    fn page(&self) -> u32 {
        u32::try_from(rustix::param::page_size()).unwrap_or(4096)
    }

    fn cpus(&self) -> u32 {
        std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1))
    }
}
