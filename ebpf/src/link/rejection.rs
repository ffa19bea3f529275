//! `Rejection`: what the verifier's log on a refused program means for the object: the line of the source, and the
//! relocation, function or instruction that this kernel lacks.
//!
//! libbpf replaces such words in the log (`fixup_verifier_log`). Here the log stays as it is.

use std::borrow::Cow;

use sockeye_crds::names::line;

use super::{Invalid, PlannedProgram};
use crate::{
    bytes::{half, word},
    object::functions::INSTRUCTION,
};

/// The meaning of the verifier's log on a refused program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejection {
    /// The feature that the kernel lacks, if that is why.
    pub lacking: Option<Lacking>,
    /// The line that the refused instruction was compiled from.
    pub source: Option<SourceLine>,
}

/// A feature that a program needs and a kernel lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// The one that a relocation or an optional function stands for.
    Invalid(Invalid),
    /// A kernel function that programs of that type may not call.
    Function(String),
    /// The instructions of version 4 of the instruction set.
    Instructions,
}

/// A line of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// The file, as the compiler was given it.
    pub file: String,
    /// The number of the line, from 1.
    pub number: u32,
    /// The line itself.
    pub text: String,
}

/// The lines at the end of a log in which libbpf looks for known words.
const LAST_LINES: usize = 10;
/// libbpf's `BPF_CORE` poison, and the beginning of that of functions.
const NO_RELOCATION: &str = "invalid func unknown#195896080";
const NO_FUNCTION: &str = "invalid func unknown#2002";

/// Interprets the verifier's log on a program.
pub fn rejection(program: &PlannedProgram<'_>, log: &str) -> Rejection {
    let at = log.lines().rev().find_map(instruction);
    let is_invalid =
        log.lines().rev().take(LAST_LINES).any(|line| line.starts_with(NO_RELOCATION) || line.starts_with(NO_FUNCTION));
    let invalid = at.filter(|_| is_invalid).and_then(|at| program.poisoned.get(at));
    let lacking = invalid.map(Lacking::Invalid);
    let lacking = lacking.or_else(|| log.lines().rev().take(LAST_LINES).find_map(|line| lacking_by(program, line)));
    Rejection { lacking, source: at.and_then(|at| source(program, at)) }
}

/// Returns the index of the instruction that a line of the log shows: `12: (85) call bpf_map_lookup_elem#1`.
fn instruction(line: &str) -> Option<usize> {
    let (index, rest) = line.split_once(": ")?;
    if rest.starts_with('(') { index.parse().ok() } else { None }
}

fn lacking_by(program: &PlannedProgram<'_>, words: &str) -> Option<Lacking> {
    let shown = |text: &str| line(text.trim(), 128);
    if let Some((name, _)) =
        words.strip_prefix("calling kernel function ").and_then(|rest| rest.split_once(" is not allowed"))
    {
        return Some(Lacking::Function(shown(name)));
    }
    let is_unknown = words.contains("unknown opcode") || words.contains("uses reserved fields");
    (is_unknown && has_version_4(&program.code)).then_some(Lacking::Instructions)
}

/// Returns whether code has instructions of version 4 of the instruction set, which kernels have from 6.6 on.
fn has_version_4(code: &[u8]) -> bool {
    let mut is_second = false;
    code.chunks_exact(INSTRUCTION).any(|instruction| {
        let was_second = std::mem::take(&mut is_second);
        let (opcode, offset) = (instruction.first().copied().unwrap_or_default(), half(instruction, 2));
        is_second = opcode == 0x18 && !was_second;
        let offset = offset.unwrap_or_default();
        !was_second
            && match opcode {
                // gotol; sign-extending loads; bswap
                0x06 | 0x81 | 0x89 | 0x91 | 0xd7 => true,
                // sign-extending moves
                0xbf | 0xbc => matches!(offset, 8 | 16 | 32),
                // signed division and remainder
                0x34 | 0x37 | 0x3c | 0x3f | 0x94 | 0x97 | 0x9c | 0x9f => offset == 1,
                _ => false,
            }
    })
}

/// Returns the line that an instruction was compiled from.
fn source(program: &PlannedProgram<'_>, at: usize) -> Option<SourceLine> {
    let strings = program.strings?;
    let size = program.lines.size.max(1);
    let records = program.lines.bytes.chunks_exact(size);
    let before = records.take_while(|record| word(record, 0).is_some_and(|first| first as usize <= at));
    let record = before.last()?;
    let text = |offset: Option<u32>| {
        let bytes = offset.and_then(|offset| strings.get(offset)).unwrap_or_default();
        line(String::from_utf8_lossy(bytes.get(..512).unwrap_or(bytes)).trim(), 256)
    };
    let file = text(word(record, 4));
    let number = word(record, 12)? >> 10;
    (!file.is_empty() && number > 0).then(|| SourceLine { file, number, text: text(word(record, 8)) })
}

impl std::fmt::Display for SourceLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: Cow<'_, str> = if self.text.is_empty() { "".into() } else { format!(" `{}`", self.text).into() };
        write!(f, "{}:{}{text}", self.file, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        btf::{Strings, ext::CoreRelo},
        link::{
            Poisoned, Records,
            core::{Cause, Subject},
            poisoned::Poison,
        },
    };

    fn program() -> PlannedProgram<'static> {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let relo = CoreRelo { insn_off: 8, type_id: 0, access_str_off: 0, kind: 0 };
        let poisons = [(1, Poison::Core(relo, Cause::Missing)), (3, Poison::Function("absent"))].into();
        let lines = words(&[[0, 1, 7, 3 << 10], [2, 1, 10, 9 << 10 | 4]].concat());
        PlannedProgram {
            lines: Records { size: 16, bytes: lines },
            strings: Some(Strings(b"\0a.bpf\0x;\0y = 2;\0")),
            poisoned: Poisoned { btf: None, functions: vec![(0, [].into()), (2, poisons), (7, [].into())] },
            code: vec![0xd7, 0, 0, 0, 16, 0, 0, 0],
            ..PlannedProgram::default()
        }
    }

    #[test]
    fn a_refused_instruction_has_a_line_of_the_source() {
        let rejection = rejection(&program(), "0: R1=ctx\n1: (b7) r1 = 0\n2: (61) r0 = *(u32 *)(r1 +0)\nR1 invalid\n");
        let source = rejection.source.unwrap();
        assert_eq!((source.file.as_str(), source.number, source.text.as_str()), ("a.bpf", 9, "y = 2;"));
        assert_eq!(source.to_string(), "a.bpf:9 `y = 2;`");
        assert_eq!(rejection.lacking, None);
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let lacking = |log: &str| rejection(&program(), log).lacking;
        let core = Lacking::Invalid(Invalid::Core(Subject::default(), Cause::Missing));
        let log = "3: (85) call unknown#195896080\ninvalid func unknown#195896080\nprocessed 4 insns\n";
        assert_eq!(lacking(log), Some(core));
        let log = "5: (85) call unknown#2002000001\ninvalid func unknown#2002000001\n";
        assert_eq!(lacking(log), Some(Lacking::Invalid(Invalid::Function("absent".into()))));
        let log = "calling kernel function bpf_task_from_pid is not allowed\n";
        assert_eq!(lacking(log), Some(Lacking::Function("bpf_task_from_pid".into())));
        assert_eq!(lacking("unknown opcode d7\n"), Some(Lacking::Instructions));
        assert_eq!(lacking("R0 !read_ok\n"), None);
    }

    #[test]
    fn the_second_half_of_a_wide_load_is_no_instruction() {
        let wide = [[0x18, 0, 0, 0, 0, 0, 0, 0], [0xd7, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert!(!has_version_4(&wide));
        assert!(has_version_4(&[0xbf, 0, 32, 0, 0, 0, 0, 0]) && !has_version_4(&[0xbf, 0, 0, 0, 0, 0, 0, 0]));
    }
}
