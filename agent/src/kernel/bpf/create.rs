//! Commands that create maps, BTF and programs, and that fill maps.

use std::{
    ffi::CStr,
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn};
use sockeye_ebpf::{kinds::map_type, link::Records};

use super::call::{bpf, bpf_fd, bpf_fd_logged, raw, zeroed};
use crate::kernel::{Call as _, SysError};

/// The name as the kernel accepts it: 15 characters (`BPF_OBJ_NAME_LEN` is 16, with the NUL) of letters, digits, `_`
/// and `.`.
fn kernel_name(name: &str) -> [libc::c_char; 16] {
    let mut out = [0; 16];
    for (slot, byte) in out.iter_mut().zip(name.bytes().take(15)) {
        let legal = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        *slot = if legal { byte } else { b'_' } as libc::c_char;
    }
    out
}

/// Returns an instruction (`struct bpf_insn`). The source's register stands above the destination's.
pub fn instruction(operation: u8, registers: u8, offset: i16, constant: i32) -> [u8; 8] {
    let ([o0, o1], [c0, c1, c2, c3]) = (offset.to_le_bytes(), constant.to_le_bytes());
    [operation, registers, o0, o1, c0, c1, c2, c3]
}

/// The arguments of `BPF_MAP_CREATE`. The default asks for nothing beyond type and sizes.
#[derive(Clone, Debug, Default)]
pub struct MapAttr<'a> {
    /// The map's name.
    pub name: &'a str,
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// Entries.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// The node whose memory the map is in, with `BPF_F_NUMA_NODE`.
    pub numa_node: u32,
    /// `map_extra`, whose meaning depends on the type.
    pub extra: u64,
    /// The object's BTF, and the types of key and value in it.
    pub btf: Option<(BorrowedFd<'a>, u32, u32)>,
    /// For a map of maps: a map with the shape of the inner ones.
    pub inner: Option<BorrowedFd<'a>>,
}

/// `BPF_MAP_CREATE`
pub fn map_create(map: &MapAttr<'_>) -> Result<OwnedFd, SysError> {
    let MapAttr { name, map_type, key_size, value_size, max_entries, flags, .. } = map;
    bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut map_attr(map)).call(|| {
        let map_type = map_type::name(*map_type);
        format!(
            "BPF_MAP_CREATE of map {name} (type {map_type}, keys of {key_size} bytes, values of {value_size}, \
             {max_entries} entries, flags {flags:#x})"
        )
    })
}

/// `BPF_MAP_CREATE` with `BPF_COMMON_ATTRS`, which kernels have from 7.2 on: the kernel says in the log why it refuses
/// the map. Other kernels refuse the command.
pub fn map_create_logged(map: &MapAttr<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    bpf_fd_logged(bpf_cmd::BPF_MAP_CREATE, &mut map_attr(map), log)
}

fn map_attr(map: &MapAttr<'_>) -> bpf_attr {
    let mut attr = zeroed();
    let MapAttr { name, map_type, key_size, value_size, max_entries, flags, numa_node, extra, btf, inner } = *map;
    // SAFETY: every member of the union is plain integers, zeroed above.
    let create = unsafe { &mut attr.__bindgen_anon_1 };
    create.map_type = map_type;
    create.key_size = key_size;
    create.value_size = value_size;
    create.max_entries = max_entries;
    create.map_flags = flags;
    create.numa_node = numa_node;
    create.map_extra = extra;
    create.map_name = kernel_name(name);
    if let Some((fd, key_type, value_type)) = btf {
        create.btf_fd = raw(fd);
        create.btf_key_type_id = key_type;
        create.btf_value_type_id = value_type;
    }
    if let Some(inner) = inner {
        create.inner_map_fd = raw(inner);
    }
    attr
}

/// `BPF_MAP_UPDATE_ELEM`; without a key it pushes. Key and value must have as many bytes as the kernel reads for this
/// map: [`map`](crate::kernel::map) checks that.
pub fn map_update(map: BorrowedFd<'_>, key: Option<&[u8]>, value: &[u8]) -> Result<(), SysError> {
    let mut attr = zeroed();
    // SAFETY: as above.
    let elem = unsafe { &mut attr.__bindgen_anon_2 };
    elem.map_fd = raw(map);
    elem.key = key.map_or(0, |key| key.as_ptr() as u64);
    elem.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop).call(|| "BPF_MAP_UPDATE_ELEM")
}

/// `BPF_MAP_FREEZE`: user space can no longer write the map, so the verifier may treat its content as constant.
pub fn map_freeze(map: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = raw(map);
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop).call(|| "BPF_MAP_FREEZE")
}

/// `BPF_BTF_LOAD`. The kernel writes its log into `log`; an empty buffer asks for none.
pub fn btf_load(btf: &[u8], log: &mut [u8]) -> Result<OwnedFd, SysError> {
    let mut attr = zeroed();
    // SAFETY: as above.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = btf.as_ptr() as u64;
    load.btf_size = u32::try_from(btf.len()).unwrap_or(u32::MAX);
    if !log.is_empty() {
        load.btf_log_level = 1;
        load.btf_log_buf = log.as_mut_ptr() as u64;
        load.btf_log_size = u32::try_from(log.len()).unwrap_or(u32::MAX);
    }
    bpf_fd(bpf_cmd::BPF_BTF_LOAD, &mut attr).call(|| "BPF_BTF_LOAD")
}

/// `BPF_PROG_BIND_MAP`: the program keeps a map that it does not refer to.
pub fn prog_bind_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut attr = zeroed();
    attr.prog_bind_map.prog_fd = raw(program);
    attr.prog_bind_map.map_fd = raw(map);
    bpf(bpf_cmd::BPF_PROG_BIND_MAP, &mut attr).map(drop).call(|| "BPF_PROG_BIND_MAP")
}

/// The arguments of `BPF_PROG_LOAD`.
pub struct ProgAttr<'a> {
    /// The function's name.
    pub name: &'a str,
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// The `enum bpf_attach_type` that the program is verified for; 0 if its type has none.
    pub expected_attach_type: u32,
    /// The instructions, eight bytes each.
    pub code: &'a [u8],
    /// The licence.
    pub license: &'a CStr,
    /// The kernel's version, which kernels before 5.0 compare.
    pub kernel_version: u32,
    /// The object's BTF, with function and line information encoded for it.
    pub btf: Option<ProgBtf<'a>>,
}

/// A program's debug information.
pub struct ProgBtf<'a> {
    /// The loaded BTF.
    pub fd: BorrowedFd<'a>,
    /// `struct bpf_func_info`s.
    pub functions: &'a Records,
    /// `struct bpf_line_info`s.
    pub lines: &'a Records,
}

/// `BPF_PROG_LOAD`. The verifier writes its log into `log`; an empty buffer asks for none.
pub fn prog_load(prog: &ProgAttr<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    let ProgAttr { name, prog_type, expected_attach_type, code, license, kernel_version, btf } = prog;
    // SAFETY: as above.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_name = kernel_name(name);
    load.prog_type = *prog_type;
    load.expected_attach_type = *expected_attach_type;
    load.insns = code.as_ptr() as u64;
    load.insn_cnt = u32::try_from(code.len() / size_of::<bpf_insn>()).unwrap_or(u32::MAX);
    load.license = license.as_ptr() as u64;
    load.kern_version = *kernel_version;
    if let Some(ProgBtf { fd, functions, lines }) = btf {
        load.prog_btf_fd = raw(*fd);
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        if !functions.is_empty() {
            load.func_info = functions.bytes.as_ptr() as u64;
            load.func_info_cnt = number(functions.len());
            load.func_info_rec_size = number(functions.size);
        }
        if !lines.is_empty() {
            load.line_info = lines.bytes.as_ptr() as u64;
            load.line_info_cnt = number(lines.len());
            load.line_info_rec_size = number(lines.size);
        }
    }
    if !log.is_empty() {
        // Level 1 logs the path to the refused instruction; libbpf asks for the same.
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = u32::try_from(log.len()).unwrap_or(u32::MAX);
    }
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}
