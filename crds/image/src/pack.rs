//! Archives and layers, as tools build them: tar (POSIX, ustar) and gzip. IO: none.

/// Returns an entry of a tar archive (POSIX, ustar).
pub fn entry(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
    entry_of_size(kind, name, content, content.len() as u64)
}

/// Returns an entry of a tar archive whose header has this size.
pub fn entry_of_size(kind: u8, name: &str, content: &[u8], size: u64) -> Vec<u8> {
    let mut block = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, byte) in block.iter_mut().skip(at).zip(bytes) {
            *to = *byte;
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let mut entry = block.to_vec();
    entry.splice(148..156, format!("{sum:06o}\0 ").into_bytes());
    entry.extend_from_slice(content);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

/// Returns a tar archive.
pub fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Packs bytes as gzip does.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
    packed.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
    packed.extend((!crate::gzip::crc32(!0, bytes)).to_le_bytes());
    packed.extend(u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or_default().to_le_bytes());
    packed
}
