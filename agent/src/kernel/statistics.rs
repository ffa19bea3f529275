//! The runs of programs. The kernel counts them only while somebody asks for it (`kernel.bpf_stats_enabled`, or a
//! descriptor of `BPF_ENABLE_STATS`; the setting stays 0 with the latter).
#![expect(unsafe_code, reason = "the kernel fills C structs")]

use std::{
    fs, mem,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use aya_obj::generated::bpf_prog_info;

use super::{
    Call as _, SysError, bpf,
    verifier::{self, EXIT, MOV},
};
use crate::model::kernel::ProgramKind;

/// `BPF_PROG_TYPE_SOCKET_FILTER`
const SOCKET_FILTER: ProgramKind = ProgramKind { prog_type: 1, attach_type: 0 };

/// The runs of one program, as far as the kernel counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// The program's ID.
    pub id: u32,
    /// The number of runs.
    pub count: u64,
    /// Their time.
    pub nanoseconds: u64,
    /// The runs that were skipped, because the program was running on that processor.
    pub recursion_misses: u64,
}

/// Reads the runs of a program. The descriptor must be a program's.
pub fn runs(program: BorrowedFd<'_>) -> Result<Runs, SysError> {
    // SAFETY: plain integers, for which all-zero is valid.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    // SAFETY: the struct's pointers are null with length 0.
    unsafe { bpf::obj_info(program, &mut info)? };
    Ok(Runs {
        id: info.id,
        count: info.run_cnt,
        nanoseconds: info.run_time_ns,
        recursion_misses: info.recursion_misses,
    })
}

/// Finds out whether the kernel counts runs, by a program of its own. The program is loaded once: each load is a line
/// in the kernel's audit log, and a page of costs asks every other second.
#[derive(Debug, Default)]
pub struct RunProbe(OnceLock<OwnedFd>);

impl RunProbe {
    /// Runs a program of two instructions, and returns whether that was counted.
    ///
    /// # Errors
    /// Fails where the kernel refuses to load or to run it.
    pub fn counts_runs(&self) -> Result<bool, SysError> {
        let program = self.program()?;
        let before = runs(program)?.count;
        // The least packet that the kernel takes is an Ethernet header.
        bpf::prog_test_run(program, &[0; 64])?;
        Ok(runs(program)?.count > before)
    }

    fn program(&self) -> Result<BorrowedFd<'_>, SysError> {
        if let Some(program) = self.0.get() {
            return Ok(program.as_fd());
        }
        let program = verifier::prog_load(SOCKET_FILTER, &[MOV, EXIT], &mut []).call(|| "BPF_PROG_LOAD")?;
        Ok(self.0.get_or_init(|| program).as_fd())
    }
}

/// Returns the number of processors that are online.
pub fn online_cpus() -> Result<u32, SysError> {
    const LIST: &str = "/sys/devices/system/cpu/online";
    let list = fs::read_to_string(LIST).call(|| format!("read of {LIST}"))?;
    Ok(list.trim().split(',').map(count).sum())
}

/// Returns the number of items of a range as the kernel writes it: `3`, or `0-3`.
fn count(range: &str) -> u32 {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u32>().ok();
    number(first).zip(number(last)).map_or(0, |(first, last)| last.saturating_sub(first).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_processors_is_counted() {
        let counted = |list: &str| list.split(',').map(count).sum::<u32>();
        assert_eq!([counted("0"), counted("0-3"), counted("0-3,8,10-11"), counted("")], [1, 4, 7, 0]);
    }
}
