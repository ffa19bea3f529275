//! `RunningKernel`: the facts of the running kernel that linking needs. Each is found when the first object needs it,
//! and shared by all loads that get the same value.
#![expect(unsafe_code, reason = "the kernel's BTF is mapped into memory")]

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    os::fd::AsRawFd as _,
    path::PathBuf,
    ptr::{self, NonNull},
};

use sockeye_ebpf::{
    btf::KernelBtf,
    link::{Features, Kernel},
};

use super::{facts, link_features};

/// The kernel's types.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// The kernel's configuration, where CONFIG_IKCONFIG_PROC is set.
const CONFIG: &str = "/proc/config.gz";
/// The kernel's symbols and their addresses.
const SYMBOLS: &str = "/proc/kallsyms";
/// The most bytes of a configuration. Distributions have some 300 KiB.
const MAX_CONFIG: usize = 16 << 20;

/// The facts of the running kernel.
#[derive(Default)]
pub struct RunningKernel {
    /// A file with the kernel's configuration, or a folder with `config-RELEASE`, for kernels that don't show it.
    config_file: Option<PathBuf>,
    btf: OnceCell<Result<KernelBtf, String>>,
    config: OnceCell<Option<String>>,
}

impl RunningKernel {
    /// Returns a kernel whose configuration a file holds, unless the kernel itself shows it.
    pub fn new(config_file: Option<PathBuf>) -> Self {
        Self { config_file, ..Self::default() }
    }

    /// Frees what was read: the kernel's types are large.
    pub fn forget(&mut self) {
        (self.btf, self.config) = Default::default();
    }

    /// Returns whether the kernel's types have been read.
    pub fn has_read_types(&self) -> bool {
        self.btf.get().is_some()
    }

    fn read_config(&self) -> Option<String> {
        let shown = fs::read(CONFIG).ok();
        let file = || {
            let path = self.config_file.as_deref()?;
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            let file = if path.is_dir() { path.join(format!("config-{release}")) } else { path.to_owned() };
            fs::read(&file).inspect_err(|error| tracing::warn!(file = %file.display(), %error, "no configuration")).ok()
        };
        let bytes = shown.or_else(file)?;
        if bytes.starts_with(&[0x1f, 0x8b]) { unzip(&bytes) } else { String::from_utf8(bytes).ok() }
    }
}

impl Kernel for RunningKernel {
    fn features(&self) -> Features {
        link_features::features()
    }

    fn btf(&self) -> Result<&KernelBtf, String> {
        let read = || {
            let bytes = types().map_err(|error| format!("{BTF}: {error}"))?;
            KernelBtf::new(bytes).map_err(|error| error.to_string())
        };
        self.btf.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    fn config(&self) -> Option<&str> {
        self.config.get_or_init(|| self.read_config()).as_deref()
    }

    fn version(&self) -> u32 {
        facts::kernel_version()
    }

    fn addresses(&self, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Vec<u64>>, String> {
        let text = fs::read_to_string(SYMBOLS).map_err(|error| format!("{SYMBOLS} can't be read: {error}"))?;
        Ok(addresses(&text, names))
    }

    fn page(&self) -> u32 {
        u32::try_from(rustix::param::page_size()).unwrap_or(4096)
    }

    fn cpus(&self) -> u32 {
        facts::machine().map_or(1, |machine| machine.cpus)
    }
}

/// Finds symbols in lines of an address, a letter and a name, as libbpf's `kallsyms_cb` does.
fn addresses(text: &str, names: &BTreeSet<&str>) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(letter), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
        // LLVM gives static variables a suffix where it links a whole program.
        let name = if letter == "d" { name.split(".llvm.").next().unwrap_or(name) } else { name };
        if let (true, Ok(address)) = (names.contains(name), u64::from_str_radix(address, 16)) {
            found.entry(name.to_owned()).or_default().push(address);
        }
    }
    found
}

/// Unpacks a file that gzip (RFC 1952) has packed.
fn unzip(bytes: &[u8]) -> Option<String> {
    const HEADER: usize = 10;
    let flags = *bytes.get(3)?;
    let mut at = HEADER;
    if flags & 4 != 0 {
        at += 2 + usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    }
    // The name of the file, and a comment.
    for flag in [8, 16] {
        if flags & flag != 0 {
            at += bytes.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    at += if flags & 2 != 0 { 2 } else { 0 };
    let text = miniz_oxide::inflate::decompress_to_vec_with_limit(bytes.get(at..)?, MAX_CONFIG).ok()?;
    String::from_utf8(text).ok()
}

/// Returns the kernel's types: mapped where the kernel can, from 6.16 on, else read.
fn types() -> io::Result<Box<dyn AsRef<[u8]> + Send + Sync>> {
    let mut file = File::open(BTF)?;
    let len = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    if let Ok(mapped) = Mapped::new(&file, len) {
        return Ok(Box::new(mapped));
    }
    let mut bytes = Vec::with_capacity(len);
    file.read_to_end(&mut bytes)?;
    Ok(Box::new(bytes))
}

/// A file of the kernel's in memory, which never changes.
struct Mapped {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is read-only, and belongs to no thread.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses an address that is free.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, len })
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping has `len` bytes, which nobody changes, until it is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_by_their_names() {
        let text = "ffffffff81000000 T _text\nffffffff82d10040 d counter.llvm.8317\n0000000000000000 D hidden\n\
                    ffffffff82d10080 d counter\nffffffff82d10090 t counterx\n";
        let found = addresses(text, &BTreeSet::from(["counter", "hidden", "absent"]));
        assert_eq!(found["counter"], [0xffff_ffff_82d1_0040, 0xffff_ffff_82d1_0080]);
        assert_eq!(found["hidden"], [0]);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_packed_file_is_unpacked_and_a_damaged_one_is_not_read() {
        // printf 'CONFIG_HZ=250\n' | gzip -n
        let packed = [
            0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x73, 0xf6, 0xf7, 0x73, 0xf3, 0x74, 0x8f, 0xf7, 0x88, 0xb2, 0x35, 0x32,
            0x35, 0xe0, 0x02, 0x00, 0xfb, 0x5f, 0x3a, 0x01, 0x0e, 0, 0, 0,
        ];
        assert_eq!(unzip(&packed).as_deref(), Some("CONFIG_HZ=250\n"));
        for len in 0..20 {
            assert_eq!(unzip(&packed[..len]), None, "{len}");
        }
    }
}
