//! Layers as tools build them and as no tool builds them: which object is found, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use sockeye_image::{
    Digest, Error, Limits,
    chain::read_manifest,
    fixtures::{bpfman, entry, entry_of_size, gzip, object, pax, tar},
    format::ObjectLayer,
    layer::{Extracted, Extractor},
};

/// Takes the object out of a packed layer that arrives in pieces of `piece` bytes.
fn extract(layer: &[u8], piece: usize, limits: &Limits) -> Result<Extracted, Error> {
    let manifest = bpfman(layer);
    let manifest = read_manifest(&Digest::of(&manifest), &manifest, limits)?;
    let mut extractor = Extractor::new(ObjectLayer::of(&manifest, limits)?, limits);
    for piece in layer.chunks(piece) {
        extractor.push(piece)?;
    }
    extractor.finish()
}

fn refused(layer: &[u8], named: &str) {
    let error = extract(layer, 4096, &Limits::default()).expect_err(named).to_string();
    assert!(error.contains(named), "{named}: {error}");
    assert!(error.chars().all(|char| !char.is_control()) && error.len() < 1200, "{error}");
}

fn object_of(entries: &[Vec<u8>]) -> Vec<u8> {
    let layer = gzip(&tar(entries));
    let whole = extract(&layer, usize::MAX, &Limits::default()).unwrap();
    for piece in [1, 7, 511, 513] {
        assert_eq!(extract(&layer, piece, &Limits::default()).unwrap(), whole, "in pieces of {piece}");
    }
    assert_eq!(whole.layer.as_deref(), Some(layer.as_slice()));
    whole.object
}

#[test]
fn the_object_is_found_wherever_it_lies_and_whatever_lies_beside_it() {
    let object = object(&[7; 3000]);
    let big_endian = [b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x01\0\xf7".as_slice(), &[0; 100]].concat();
    let program = [b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".as_slice(), &[0; 5000]].concat();
    for entries in [
        vec![entry(b'0', "pass.bpf.o", &object)],
        vec![entry(0, "./pass.bpf.o", &object)],
        vec![
            entry(0, "etc/", b""),
            entry(b'5', "etc/", b""),
            entry(b'0', "etc/x", b"x"),
            entry(b'0', "deep/er/pass.o", &object),
        ],
        vec![entry(b'0', "empty", b""), entry(b'0', "/pass.bpf.o", &object), entry(b'0', "short", b"\x7fELF")],
        vec![entry(b'0', "bpf_bpfeb.o", &big_endian), entry(b'0', "bpf_bpfel.o", &object)],
        vec![entry(b'0', "agent", &program), entry(b'7', "pass.o", &object)],
        vec![pax("path", &"long/".repeat(60)), entry(b'0', "long", &object)],
        vec![entry(b'L', "././@LongLink", &[b'a'; 300]), entry(b'0', "aaa", &object)],
        vec![pax("mtime", "1.5"), entry(b'g', "pax", b"13 comment=x\n"), entry(b'0', "x", &object)],
        vec![entry(b'2', "pass.o", b""), entry(b'0', "real.o", &object), entry(b'4', "dev", b"")],
        vec![entry(b'0', ".wh.old", b""), entry(b'0', "x", &object)],
    ] {
        assert_eq!(object_of(&entries), object);
    }
}

#[test]
fn several_gzip_members_are_one_layer() {
    let object = object(&[7; 3000]);
    let archive = tar(&[entry(b'0', "x", &object)]);
    let layer: Vec<u8> = archive.chunks(100).flat_map(gzip).collect();
    for piece in [1, 64, 4096, usize::MAX] {
        assert_eq!(extract(&layer, piece, &Limits::default()).unwrap().object, object, "in pieces of {piece}");
    }
}

#[test]
fn gzip_headers_are_read_in_all_forms() {
    let object = object(b"x");
    let plain = gzip(&tar(&[entry(b'0', "x", &object)]));
    let all_fields = [b"\x1f\x8b\x08\x1e\0\0\0\0\0\x03\x05\0extra".as_slice(), b"name\0", b"comment\0", b"cc"].concat();
    let layer = [all_fields.as_slice(), &plain[10..]].concat();
    for piece in [1, 3, usize::MAX] {
        assert_eq!(extract(&layer, piece, &Limits::default()).unwrap().object, object);
    }
}

#[test]
fn an_archive_may_end_without_its_zeros() {
    let object = object(b"x");
    assert_eq!(extract(&gzip(&entry(b'0', "x", &object)), 4096, &Limits::default()).unwrap().object, object);
}

#[test]
fn links_devices_and_paths_that_lead_out_are_no_objects_and_are_named() {
    let object = object(b"x");
    for (entry, named) in [
        (entry(b'0', "../../etc/x.o", &object), "\"../../etc/x.o\" (its path has ..)"),
        (entry(b'0', "a/../x.o", &object), "(its path has ..)"),
        (entry(b'1', "x.o", b""), "\"x.o\" (a hard link)"),
        (entry(b'2', "x.o", b""), "\"x.o\" (a symbolic link)"),
        (entry(b'3', "x.o", b""), "(a device)"),
        (entry(b'4', "x.o", b""), "(a device)"),
        (entry(b'6', "x.o", b""), "(a pipe)"),
        (entry(b'Z', "x.o", &object), "(an entry of an unknown kind)"),
        (entry(b'0', "README", b"text"), "no ELF object for BPF among its 1 entries"),
        (entry(b'2', "a\r\nb\x1b[31m", b""), "\\r\\n"),
    ] {
        refused(&gzip(&tar(&[entry])), named);
    }
    refused(&gzip(&tar(&[entry(b'S', "x.o", &object)])), "sparse file");
    let sparse = [pax("GNU.sparse.major", "1"), entry(b'0', "x.o", &object)];
    refused(&gzip(&tar(&sparse)), "\"x.o\" (a sparse file)");
    refused(&gzip(&tar(&[])), "among its 0 entries");
}

#[test]
fn a_link_has_no_content_whatever_its_size_says() {
    let object = object(b"x");
    let link = entry_of_size(b'2', "link", b"", 512);
    assert_eq!(object_of(&[link, entry(b'0', "x", &object)]), object);
}

#[test]
fn several_objects_are_refused_by_name() {
    let entries = [entry(b'0', "a.o", &object(b"a")), entry(b'0', "b.o", &object(b"b"))];
    refused(&gzip(&tar(&entries)), "\"a.o\" and \"b.o\"");
}

#[test]
fn damaged_archives_are_refused() {
    let object = object(&[7; 3000]);
    let archive = tar(&[entry(b'0', "x", &object)]);
    let packed = gzip(&archive);
    let mut sum = archive.clone();
    sum[0] ^= 1;
    let mut size = entry(b'0', "x", b"");
    size[124..136].copy_from_slice(b"99999999999\0");
    let checked: u32 =
        size.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { *byte as u32 }).sum();
    size[148..156].copy_from_slice(format!("{checked:06o}\0 ").as_bytes());
    let mut crc = packed.clone();
    let at = crc.len() - 6;
    crc[at] ^= 1;
    for (layer, named) in [
        (gzip(&sum), "no tar archive"),
        (gzip(&archive[..2000]), "ends within an entry"),
        (gzip(&archive[..100]), "ends within an entry"),
        (gzip(&size), "without a valid size"),
        (gzip(&[entry(b'x', "pax", b"99 path=x\n"), archive.clone()].concat()), "damaged pax header"),
        (gzip(&entry_of_size(b'x', "pax", b"", 1 << 20)), "extended header of 1048576 bytes"),
        (archive.clone(), "not packed by gzip"),
        (b"\x28\xb5\x2f\xfdzstd".to_vec(), "not packed by gzip"),
        (packed[..packed.len() - 9].to_vec(), "ends within its gzip data"),
        (packed[..5].to_vec(), "ends within its gzip data"),
        (crc, "checksum is wrong"),
        ([packed.as_slice(), b"more"].concat(), "something behind"),
        ([b"\x1f\x8b\x08\x08\0\0\0\0\0\x03".to_vec(), vec![b'n'; 200 << 10]].concat(), "gzip header of more than"),
        ([b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), b"\x07damaged"].concat(), "damaged gzip data"),
    ] {
        refused(&layer, named);
    }
}

#[test]
fn sizes_beyond_octal_are_read_as_gnu_and_pax_have_them() {
    let limits = Limits::default();
    let huge = [0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let mut header = entry_of_size(b'0', "x", b"", 0);
    header[124..136].copy_from_slice(&huge);
    let sum: u32 =
        header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { *byte as u32 }).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let layer = gzip(&[header, object(b"x")].concat());
    assert!(extract(&layer, 4096, &limits).unwrap_err().to_string().contains("the object \"x\" of 4294967296 bytes"));
    let pax = [pax("size", "9999999999"), entry_of_size(b'0', "x", &object(b"x"), 21)].concat();
    assert!(extract(&gzip(&pax), 4096, &limits).unwrap_err().to_string().contains("of 9999999999 bytes"));
}

#[test]
fn bombs_end_at_their_limits() {
    let limits = Limits { unpacked: 1 << 20, entries: 10, object: 1 << 10, ..Limits::default() };
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 128 << 10);
    let text = |layer: &[u8]| extract(layer, 4096, &limits).unwrap_err().to_string();
    // Zeros are an archive's end, so only the limit of what is unpacked ends this.
    assert!(text(&bomb).contains("unpacks to more than 1048576 bytes"));
    let entries: Vec<_> = (0..20).map(|at| entry(b'0', &at.to_string(), b"")).collect();
    assert!(text(&gzip(&tar(&entries))).contains("more than 10 entries"));
    let large = gzip(&tar(&[entry(b'0', "x", &object(&[0; 2 << 10]))]));
    assert!(text(&large).contains("the object \"x\" of 2068 bytes; sockeye takes 1024"));
    let many = gzip(&gzip(b"").repeat(200));
    assert!(text(&many).contains("no tar archive"));
}

#[test]
fn a_layer_larger_than_is_kept_still_gives_its_object() {
    let limits = Limits { kept_layer: 100, object: 10_000, ..Limits::default() };
    let object = object(&(0..3000u32).flat_map(|at| (at * at).to_le_bytes()).take(8000).collect::<Vec<_>>());
    let layer = gzip(&tar(&[entry(b'0', "x", &object)]));
    assert!(layer.len() > 100);
    let extracted = extract(&layer, 4096, &limits).unwrap();
    assert_eq!((extracted.layer, extracted.object), (None, object));
}

#[test]
fn a_wrong_digest_is_reported_before_what_the_bytes_are() {
    let layer = gzip(&tar(&[entry(b'0', "x", &object(b"x"))]));
    let limits = Limits::default();
    let manifest = bpfman(&layer);
    let manifest = read_manifest(&Digest::of(&manifest), &manifest, &limits).unwrap();
    let push = |bytes: &[u8]| {
        let mut extractor = Extractor::new(ObjectLayer::of(&manifest, &limits).unwrap(), &limits);
        extractor.push(bytes)?;
        extractor.finish()
    };
    let other = vec![0; layer.len()];
    assert!(matches!(push(&other), Err(Error::WrongDigest { .. })));
    assert!(matches!(push(&layer[1..]), Err(Error::WrongDigest { .. })));
    assert!(matches!(push(&[layer.as_slice(), b"x"].concat()), Err(Error::WrongSize { .. })));
}
