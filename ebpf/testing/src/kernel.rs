//! `TableKernel`: the facts of a kernel from a table, as tests/oracle/README.md describes it, and its BTF from a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use sockeye_ebpf::{
    btf::KernelBtf,
    link::{Features, Kernel},
};

/// The facts of a kernel.
#[derive(Debug, Default)]
pub struct TableKernel {
    features: Features,
    btf: Option<KernelBtf>,
    config: Option<String>,
    version: u32,
    cpus: u32,
    symbols: BTreeMap<String, Vec<u64>>,
}

impl TableKernel {
    /// Returns a kernel with all features or none, and these types.
    pub fn new(all: bool, btf: Option<Vec<u8>>) -> Self {
        let btf = btf.and_then(|bytes| KernelBtf::new(Box::new(bytes)).ok());
        let features = if all { Features::ALL } else { Features::default() };
        Self { features, btf, cpus: 4, version: 6 << 16, ..Self::default() }
    }

    /// Gives the kernel the facts of a table, but for its types.
    pub fn with(mut self, table: &str) -> Result<Self, String> {
        self.take(table)?;
        Ok(self)
    }

    /// Reads a table, and the kernel's BTF from a file.
    pub fn read(table: &str, btf: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(btf).map_err(|error| format!("{}: {error}", btf.display()))?;
        let btf = KernelBtf::new(Box::new(bytes)).map_err(|error| error.to_string())?;
        let mut kernel = Self { btf: Some(btf), cpus: 1, config: Some(String::new()), ..Self::default() };
        kernel.take(table)?;
        Ok(kernel)
    }

    fn take(&mut self, table: &str) -> Result<(), String> {
        let mut release = (String::new(), String::new());
        for line in table.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "release" => rest.clone_into(&mut release.0),
                "version" => rest.clone_into(&mut release.1),
                "feature" => {
                    let (name, has) = rest.split_once(' ').ok_or_else(|| format!("no value: {line}"))?;
                    self.features.set(name, has == "1");
                }
                "config" => {
                    let config = self.config.get_or_insert_default();
                    config.push_str(rest);
                    config.push('\n');
                }
                "noconfig" => self.config = None,
                "cpus" => self.cpus = cpus(rest).ok_or_else(|| format!("no range of processors: {line}"))?,
                "ksym" => self.symbol(rest),
                _ => {}
            }
        }
        if !release.0.is_empty() {
            self.version = version(&release.0, &release.1);
        }
        Ok(())
    }

    fn symbol(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let [address, letter, name] = words[..] else { return };
        // libbpf takes a variable's name without what LLVM adds to it.
        let name = if letter == "d" { name.split(".llvm.").next().unwrap_or(name) } else { name };
        if let Ok(address) = u64::from_str_radix(address, 16) {
            self.symbols.entry(name.to_owned()).or_default().push(address);
        }
    }
}

/// Returns the number of processors in a list as the kernel prints it, `0-3,8`.
fn cpus(list: &str) -> Option<u32> {
    let last = list.trim().rsplit([',', '-']).next()?;
    last.parse::<u32>().ok().map(|last| last + 1)
}

/// Returns `LINUX_VERSION_CODE` of a kernel, as libbpf's `get_kernel_version` finds it: Debian's own number is in the
/// version, after `Debian`.
fn version(release: &str, version: &str) -> u32 {
    let text = version.split_once("Debian ").map_or(release, |(_, text)| text);
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse::<u32>().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    let (major, minor, patch) = (next(), next(), next());
    major << 16 | minor << 8 | patch.min(255)
}

impl Kernel for TableKernel {
    fn features(&self) -> Features {
        self.features
    }

    fn btf(&self) -> Result<&KernelBtf, String> {
        self.btf.as_ref().ok_or_else(|| "there is none".to_owned())
    }

    fn config(&self) -> Option<&str> {
        self.config.as_deref()
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn addresses(&self, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Vec<u64>>, String> {
        let found = self.symbols.iter().filter(|(name, _)| names.contains(name.as_str()));
        Ok(found.map(|(name, addresses)| (name.clone(), addresses.clone())).collect())
    }

    fn page(&self) -> u32 {
        4096
    }

    fn cpus(&self) -> u32 {
        self.cpus
    }
}
