//! Tests of the reader of ELF files, on files written byte by byte.

use super::{name::UNREADABLE, *};

/// Writes a file of the null section, names, symbols, and these further sections: name, kind, flags, info, bytes.
fn file(sections: &[(u32, u32, u64, u32, &[u8])], symbols: &[u8]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0sockops\0.relsockops\0p0\0long";
    let none: &[u8] = &[];
    let mut all = vec![(0, 0, 0, 0, none), (0, 3, 0, 0, NAMES), (0, SYMTAB, 0, 0, symbols)];
    all.extend_from_slice(sections);
    let mut bytes = vec![0; HEADER];
    let mut table = Vec::new();
    for (name, kind, flags, info, content) in &all {
        let mut header = [0u8; SECTION_HEADER];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[8..16].copy_from_slice(&flags.to_le_bytes());
        header[24..32].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
        header[40..44].copy_from_slice(&1u32.to_le_bytes());
        header[44..48].copy_from_slice(&info.to_le_bytes());
        table.extend(header);
        bytes.extend_from_slice(content);
    }
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[16..20].copy_from_slice(&[1, 0, 247, 0]);
    let at = bytes.len() as u64;
    bytes[40..48].copy_from_slice(&at.to_le_bytes());
    bytes[58..64].copy_from_slice(&[64, 0, all.len() as u8, 0, 1, 0]);
    bytes.extend(table);
    bytes
}

/// Writes a symbol.
fn symbol(name: u32, info: u8, other: u8, section: u16, (value, size): (u64, u64)) -> Vec<u8> {
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend([info, other]);
    bytes.extend(section.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes
}

fn small() -> Vec<u8> {
    let symbols = [vec![0; 24], symbol(21, 0x22, 2, 3, (8, 8)), symbol(21, 0x10, 0, 0, (0, 0))].concat();
    let relocation = [8u64.to_le_bytes(), (2u64 << 32 | 10).to_le_bytes()].concat();
    file(&[(1, PROGBITS, 6, 0, &[0; 16]), (9, REL, 0, 3, &relocation)], &symbols)
}

#[test]
fn sections_symbols_and_relocations_are_read() {
    let bytes = small();
    let image = Image::parse(&bytes).unwrap();
    let section = image.section_named("sockops").unwrap();
    assert!(section.is_code() && section.has_bits() && !section.is_zeroed());
    assert_eq!((section.index, section.data().unwrap().len()), (3, 16));
    let one = image.symbol(1).unwrap();
    assert_eq!((one.name(), one.kind, one.binding), ("p0", SymbolKind::Function, Binding::Weak));
    assert_eq!((one.section(), one.visibility, one.offset, one.size), (Some(3), Visibility::Hidden, 8, 8));
    assert!(image.symbol(2).unwrap().is_extern() && image.symbol(3).is_none());
    assert_eq!(image.relocations(3).collect::<Vec<_>>(), [Relocation { offset: 8, symbol: 2 }]);
    assert!(!image.has_unread_relocations(3));
}

#[test]
fn files_of_other_kinds_are_refused_by_name() {
    let change = |at: usize, byte: u8| {
        let mut bytes = small();
        bytes[at] = byte;
        Image::parse(&bytes).unwrap_err()
    };
    assert_eq!(change(0, 0), ImageError::NotElf);
    assert_eq!(change(4, 1), ImageError::NotElf64);
    assert_eq!(change(5, 2), ImageError::BigEndian);
    assert_eq!(change(16, 2), ImageError::Linked);
    assert_eq!(change(18, 62), ImageError::Machine(62));
    assert_eq!(change(60, 0), ImageError::NoSections);
    let old = {
        let mut bytes = small();
        bytes[18] = 0;
        Image::parse(&bytes).is_ok()
    };
    assert!(old, "early compilers wrote no machine");
    for len in 0..small().len() {
        assert!(Image::parse(&small()[..len]).is_err(), "cut to {len}");
    }
    assert_eq!(Image::parse(&file(&[], &[])).unwrap_err(), ImageError::NoSymbols);
    let two = file(&[(0, SYMTAB, 0, 0, &[0; 24])], &[0; 24]);
    assert_eq!(Image::parse(&two).unwrap_err(), ImageError::TwoSymbolTables);
}

#[test]
fn an_object_whose_section_headers_were_taken_off_is_told_so() {
    // As llvm-strip --strip-sections leaves it.
    let mut bytes = small();
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
    let error = Image::parse(&bytes).unwrap_err();
    assert_eq!(error, ImageError::NoSections);
    assert!(error.to_string().contains("--strip-sections"), "{error}");
}

#[test]
fn of_several_sections_of_a_name_the_first_and_the_last_are_found() {
    let bytes = file(&[(1, PROGBITS, 6, 0, &[0; 8]), (1, PROGBITS, 6, 0, &[0; 16])], &[0; 24]);
    let image = Image::parse(&bytes).unwrap();
    let sizes = [image.section_named("sockops"), image.last_section_named("sockops")].map(|found| found.unwrap().size);
    assert_eq!(sizes, [8, 16]);
    assert!(image.last_section_named("xdp").is_none());
}

#[test]
fn what_lies_outside_the_file_is_an_error_of_who_asks_for_it() {
    let mut bytes = small();
    let header = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize + 3 * SECTION_HEADER;
    bytes[header + 32] = 255;
    bytes[header + 33] = 255;
    let image = Image::parse(&bytes).unwrap();
    assert_eq!(image.section(3).unwrap().data(), Err(ImageError::Outside("sockops".to_owned())));
}

#[test]
fn names_that_can_not_be_read_equal_none() {
    // The last name has no end.
    let symbols = [vec![0; 24], symbol(24, 0, 0, 0, (0, 0)), symbol(9999, 0, 0, 0, (0, 0))].concat();
    let bytes = file(&[], &symbols);
    let image = Image::parse(&bytes).unwrap();
    assert_eq!(image.symbol(1).unwrap().name(), UNREADABLE);
    assert_eq!(image.symbol(2).unwrap().name(), UNREADABLE);
}

#[test]
fn relocations_of_other_forms_are_told() {
    let bytes = file(&[(1, PROGBITS, 6, 0, &[0; 8]), (0, CREL, 0, 3, &[0; 8])], &[0; 24]);
    assert!(Image::parse(&bytes).unwrap().has_unread_relocations(3));
}
