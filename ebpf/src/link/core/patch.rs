//! Writes an answer into an instruction (libbpf's `bpf_core_patch_insn`).

use super::{Cause, Reason, answer::Answer};

/// The size of an instruction.
pub(super) const INSTRUCTION: usize = 8;
/// The operation that loads a constant of 64 bits, which takes two instructions.
const LOAD_IMM64: u8 = 0x18;
/// The operation of a call.
const CALL: u8 = 0x85;
/// The helper that a poisoned instruction calls. There is none: `0xbad2310`, "bad relo".
pub const BAD_RELO: i32 = 195_896_080;

/// An instruction (`struct bpf_insn`) as its bytes.
type Instruction = [u8; INSTRUCTION];

/// Writes an answer into the instruction that the code begins with. Returns why the instruction has become invalid, if
/// it has.
pub(super) fn patch(code: &mut [u8], answer: &Answer) -> Result<Option<Cause>, Reason> {
    let (first, rest) = code.split_first_chunk_mut::<INSTRUCTION>().ok_or(Reason::Instruction)?;
    let second = rest.first_chunk_mut::<INSTRUCTION>();
    let Some(new) = answer.new else {
        poison(first, second);
        return Ok(Some(Cause::Missing));
    };
    let expect = |held: u64| {
        let differs = answer.original.is_certain && held != answer.original.value;
        if differs { Err(Reason::Value(held, answer.original.value)) } else { Ok(()) }
    };
    match first[0] & 7 {
        // ALU and ALU64 with a constant.
        4 | 7 if first[0] & 8 == 0 => {
            expect(i64::from(imm(first)).cast_unsigned())?;
            set_imm(first, new.value as u32);
        }
        // LDX, ST and STX.
        1..=3 => {
            expect(i64::from(i16::from_le_bytes([first[2], first[3]])).cast_unsigned())?;
            let offset = i16::try_from(new.value).map_err(|_| Reason::Range(new.value))?;
            if !answer.can_resize {
                poison(first, second);
                return Ok(Some(Cause::Size));
            }
            [first[2], first[3]] = offset.to_le_bytes();
            if new.size != answer.original.size {
                resize(first, answer.original.size, new.size)?;
            }
        }
        0 => {
            let second = second.ok_or(Reason::Instruction)?;
            let is_plain = first[0] == LOAD_IMM64 && first[1] >> 4 == 0 && first[2..4] == [0; 2];
            if !is_plain || second[..4] != [0; 4] {
                return Err(Reason::Instruction);
            }
            let low = u64::from(imm(first).cast_unsigned());
            expect(low | u64::from(imm(second).cast_unsigned()) << 32)?;
            set_imm(first, new.value as u32);
            set_imm(second, (new.value >> 32) as u32);
        }
        _ => return Err(Reason::Instruction),
    }
    Ok(None)
}

const fn imm(instruction: &Instruction) -> i32 {
    let [.., a, b, c, d] = *instruction;
    i32::from_le_bytes([a, b, c, d])
}

fn set_imm(instruction: &mut Instruction, value: u32) {
    instruction[4..].copy_from_slice(&value.to_le_bytes());
}

/// Makes a load or store of one size one of another.
fn resize(instruction: &mut Instruction, from: u32, to: u32) -> Result<(), Reason> {
    const SIZES: [(u32, u8); 4] = [(4, 0x00), (2, 0x08), (1, 0x10), (8, 0x18)];
    let bits = |size: u32| SIZES.iter().find(|(bytes, _)| *bytes == size).map(|(_, bits)| *bits);
    if bits(from) != Some(instruction[0] & 0x18) {
        return Err(Reason::Instruction);
    }
    instruction[0] = instruction[0] & !0x18 | bits(to).ok_or(Reason::Question)?;
    Ok(())
}

/// Makes an instruction one that the verifier refuses if it can be reached (libbpf's `bpf_core_poison_insn`).
fn poison(first: &mut Instruction, second: Option<&mut Instruction>) {
    let mut call = [CALL, 0, 0, 0, 0, 0, 0, 0];
    set_imm(&mut call, BAD_RELO.cast_unsigned());
    if let Some(second) = second.filter(|_| first[0] == LOAD_IMM64) {
        *second = call;
    }
    *first = call;
}
