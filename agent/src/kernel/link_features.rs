//! The features of the running kernel that change what an object becomes, found by libbpf's probes (src/features.c).
//!
//! They are asked for once. A probe that fails for another reason than the missing feature, such as memory, counts as
//! a missing feature, as in libbpf.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::OnceLock,
};

use sockeye_ebpf::{
    btf::fit::BtfFeatures,
    kinds::map_type::{ARRAY, F_MMAPABLE},
    link::{Features, Records},
};

use super::bpf::{self, MapAttr, PROBE_NAME, ProgAttr, ProgBtf};

/// `BPF_PROG_TYPE_SOCKET_FILTER`, `BPF_PROG_TYPE_KPROBE`, `BPF_PROG_TYPE_TRACEPOINT`
const SOCKET_FILTER: u32 = 1;
const KPROBE: u32 = 2;
const TRACEPOINT: u32 = 5;

/// `BTF_KIND_*` in the word `info` of a type.
const INT: u32 = 1 << 24;
const PTR: u32 = 2 << 24;
const FUNC: u32 = 12 << 24;
const FUNC_PROTO: u32 = 13 << 24;
const VAR: u32 = 14 << 24;
const DATASEC: u32 = 15 << 24;
const FLOAT: u32 = 16 << 24;
const DECL_TAG: u32 = 17 << 24;
const TYPE_TAG: u32 = 18 << 24;
const ENUM64: u32 = 19 << 24;
/// An integer of four bytes without a name, and one with the name at offset 1.
const NAMELESS_INT: [u32; 4] = [0, INT, 4, 1 << 24 | 32];
const NAMED_INT: [u32; 4] = [1, INT, 4, 1 << 24 | 32];

/// Returns the features of the running kernel.
pub fn features() -> Features {
    static FEATURES: OnceLock<Features> = OnceLock::new();
    *FEATURES.get_or_init(probe)
}

#[rustfmt::skip]
fn probe_btf() -> BtfFeatures {
    let int_x_a = "\0int\0x\0a";
    let function = |linkage| [&NAMED_INT[..], &[0, FUNC_PROTO | 1, 0, 7, 1], &[5, FUNC | linkage, 2]].concat();
    let section = [&NAMELESS_INT[..], &[1, VAR, 1, 0], &[3, DATASEC | 1, 4, 2, 0, 4]].concat();
    BtfFeatures {
        func: takes(&function(0), int_x_a),
        global_func: takes(&function(1), int_x_a),
        datasec: takes(&section, "\0x\0.data"),
        qmark_datasec: takes(&section, "\0x\0?.data"),
        float: takes(&[1, FLOAT, 4], "\0float"),
        decl_tag: takes(&[&NAMELESS_INT[..], &[1, VAR, 1, 0], &[1, DECL_TAG, 2, u32::MAX]].concat(), "\0tag"),
        type_tag: takes(&[&NAMELESS_INT[..], &[1, TYPE_TAG, 1], &[0, PTR, 2]].concat(), "\0tag"),
        enum64: takes(&[1, ENUM64, 8], "\0enum64"),
    }
}

fn probe() -> Features {
    Features {
        btf: takes(&NAMED_INT, "\0int"),
        btf_kinds: probe_btf(),
        array_mmap: array(F_MMAPABLE).is_some(),
        probe_read_kern: load(TRACEPOINT, &code(&[READ_STACK, &[CALL(113), EXIT]].concat()), None).is_some(),
        prog_bind_map: can_bind(),
        arg_ctx_tag: takes_context_tag(),
        bpf_cookie: load(TRACEPOINT, &code(&[CALL(174), EXIT]), None).is_some(),
        // libbpf asks whether a probe of `__x64_sys_bpf` can be made. Both processors have wrappers since 4.17, 4.19.
        syscall_wrapper: cfg!(any(target_arch = "x86_64", target_arch = "aarch64")),
    }
}

/// An instruction: operation, registers and immediate.
type Instruction = (u8, u8, i32);

const MOV0: Instruction = (0xb7, 0, 0);
const EXIT: Instruction = (0x95, 0, 0);
#[expect(non_snake_case, reason = "it stands for a constant instruction")]
const fn CALL(helper: i32) -> Instruction {
    (0x85, 0, helper)
}
/// `r1 = fp - 8; r2 = 8; r3 = 0`
const READ_STACK: &[Instruction] = &[(0xbf, 0xa1, 0), (0x07, 1, -8), (0xb7, 2, 8), (0xb7, 3, 0)];

fn code(instructions: &[Instruction]) -> Vec<u8> {
    let bytes = |&(code, registers, immediate): &Instruction| bpf::instruction(code, registers, 0, immediate);
    instructions.iter().flat_map(bytes).collect()
}

/// Loads BTF of these types and strings.
fn btf(types: &[u32], strings: &str) -> Option<OwnedFd> {
    let (types_len, strings_len) = (4 * u32::try_from(types.len()).ok()?, u32::try_from(strings.len() + 1).ok()?);
    let mut bytes: Vec<u8> = Vec::new();
    for word in [0x0001_eb9f, 24, 0, types_len, types_len, strings_len].iter().chain(types) {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(strings.bytes().chain([0]));
    bpf::btf_load(&bytes, &mut []).ok()
}

fn takes(types: &[u32], strings: &str) -> bool {
    btf(types, strings).is_some()
}

fn array(flags: u32) -> Option<OwnedFd> {
    let attr = MapAttr {
        name: PROBE_NAME,
        map_type: ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        flags,
        ..MapAttr::default()
    };
    bpf::map_create(&attr).ok()
}

fn load(prog_type: u32, code: &[u8], btf: Option<ProgBtf<'_>>) -> Option<OwnedFd> {
    let attr = ProgAttr {
        name: PROBE_NAME,
        prog_type,
        expected_attach_type: 0,
        code,
        license: c"GPL",
        kernel_version: 0,
        btf,
    };
    bpf::prog_load(&attr, &mut []).ok()
}

fn can_bind() -> bool {
    let program = load(SOCKET_FILTER, &code(&[MOV0, EXIT]), None);
    let both = array(0).zip(program);
    both.is_some_and(|(map, program)| bpf::prog_bind_map(program.as_fd(), map.as_fd()).is_ok())
}

/// Asks whether the verifier knows the tag `arg:ctx`: a global function has a `void *` so tagged, and calls a helper
/// that takes a context.
fn takes_context_tag() -> bool {
    #[rustfmt::skip]
    let types = [
        &NAMED_INT[..],
        &[0, PTR, 0],
        &[0, FUNC_PROTO | 1, 1, 1, 2],
        &[1, FUNC | 1, 3],
        &[0, FUNC_PROTO | 1, 1, 3, 2],
        &[3, FUNC | 1, 5],
        &[5, DECL_TAG, 6, 0],
    ]
    .concat();
    let Some(fd) = btf(&types, "\0a\0b\0arg:ctx\0") else { return false };
    let records = [0u32, 4, 2, 6].iter().flat_map(|word| word.to_le_bytes()).collect();
    let functions = Records { size: 8, bytes: records };
    // `call +1; exit`, and the function: a call of bpf_get_func_ip, `exit`
    let code = code(&[(0x85, 0x10, 1), EXIT, CALL(173), EXIT]);
    let lines = Records::default();
    load(KPROBE, &code, Some(ProgBtf { fd: fd.as_fd(), functions: &functions, lines: &lines })).is_some()
}
