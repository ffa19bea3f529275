//! Formats of fields: shown, and refused where they do not fit.

use serde_json::{Value, json};
use sockeye_crds::program::Format::{self, Decimal, Enum, Hex, IPAddress, Pod, Port, Text};
use sockeye_ebpf::{
    btf::Btf,
    values::{Budget, FormatError, Shape},
};
use sockeye_ebpf_testing::builder::BtfBuilder;

use crate::types::int;

/// A struct with a field of each kind of type, named after the type, at byte 0; and one in a struct at byte 4.
fn shape() -> Shape {
    let mut types = BtfBuilder::new();
    let word = int(&mut types, "unsigned int", 4, 0);
    let signed = int(&mut types, "int", 4, 1);
    let half = int(&mut types, "unsigned short", 2, 0);
    let long = int(&mut types, "unsigned long", 8, 0);
    let char_ = int(&mut types, "char", 1, 1);
    let byte = int(&mut types, "unsigned char", 1, 0);
    let float = types.add(0, (16, 0), 4, &[]);
    let pointer = types.add(0, (2, 0), 0, &[]);
    let [be, up, low] = ["__be16", "UP", "low"].map(|name| types.string(name));
    let state = types.add(0, (6, 1), 4, &[up, 1]);
    let be16 = types.add(be, (8, 0), half, &[]);
    let [text, octets, words, address] =
        [(char_, 8), (byte, 4), (word, 4), (byte, 16)].map(|(of, len)| types.add(0, (3, 0), 0, &[of, word, len]));
    let pair = types.add(low, (4, 2), 8, &[low, word, 0, up, word, 32]);
    let either = types.add(low, (5, 2), 16, &[low, word, 0, up, address, 0]);
    let mut members = Vec::new();
    for (name, of) in [
        ("word", word),
        ("signed", signed),
        ("half", half),
        ("long", long),
        ("float", float),
        ("pointer", pointer),
        ("state", state),
        ("be16", be16),
        ("text", text),
        ("octets", octets),
        ("words", words),
        ("pair", pair),
        ("either", either),
    ] {
        members.extend([types.string(name), of, 0]);
    }
    for (name, of, width, at) in [("bits", word, 3, 0), ("mode", state, 1, 0)] {
        members.extend([types.string(name), of, width << 24 | at]);
    }
    let count = members.len() as u32 / 3;
    let id = types.add(low, (0x84, count), 16, &members);
    Shape::of(&Btf::parse(&types.build()).unwrap(), id).unwrap()
}

#[test]
fn each_format_shows_what_it_says() {
    let shape = shape();
    let show = |path: &str, format, bytes: &[u8]| {
        let mut all = bytes.to_vec();
        all.resize(16, 0);
        let value = shape.with_format(path, format).unwrap().decode(&all, &Budget::default()).unwrap();
        path.split('.').fold(value, |value, name| value[name].clone())
    };
    let mapped = [&[0; 10][..], &[0xff, 0xff, 10, 0, 0, 1]].concat();
    for (path, format, bytes, expected) in [
        ("word", Decimal, &[1, 2, 0, 0][..], json!(0x201)),
        ("word", Hex, &[1, 2, 0, 0], json!("0x201")),
        ("signed", Decimal, &[0xff; 4], json!(-1)),
        ("signed", Hex, &[0xff; 4], json!("0xffffffff")),
        ("be16", Hex, &[1, 0xbb], json!("0x1bb")),
        ("pointer", Decimal, &[9], json!(9)),
        ("state", Decimal, &[1], json!(1)),
        ("state", Enum, &[1], json!("UP")),
        ("state", Hex, &[1], json!("0x1")),
        ("bits", Hex, &[7], json!("0x7")),
        ("bits", Decimal, &[5], json!(5)),
        ("mode", Enum, &[1], json!("UP")),
        ("mode", Decimal, &[1], json!(1)),
        ("text", Hex, b"ab", json!("6162000000000000")),
        ("text", Text, b"a\x1b\xff\0b", json!("a\u{fffd}\u{fffd}")),
        ("octets", Text, b"curl", json!("curl")),
        ("octets", Hex, &[1, 2, 3, 0xff], json!("010203ff")),
        ("word", IPAddress, &[10, 0, 0, 1], json!("10.0.0.1")),
        ("octets", IPAddress, &[10, 0, 0, 1], json!("10.0.0.1")),
        ("words", IPAddress, &mapped, json!("10.0.0.1")),
        ("either", IPAddress, &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], json!("fd00::1")),
        ("half", Port, &[1, 0xbb], json!(443)),
        ("be16", Port, &[1, 0xbb], json!(443)),
        ("word", Port, &[1, 0xbb, 0, 0], json!(443)),
        ("word", Port, &[0, 0, 1, 0xbb], json!(443)),
        ("word", Port, &[0; 4], json!(0)),
        ("word", Port, &[1, 2, 3, 4], json!("0x4030201")),
        ("long", Pod, &[77], json!(77)),
        ("pair.low", Hex, &[16], json!("0x10")),
    ] {
        assert_eq!(show(path, format, bytes), expected, "{path} as {format:?}");
    }
    // Others are shown as before.
    let value = shape.with_format("pair.low", Hex).unwrap().decode(&[1; 16], &Budget::default()).unwrap();
    assert_eq!((&value["word"], &value["pair"]["UP"]), (&json!(0x0101_0101), &json!(0x0101_0101)));
    // A field that is not all there is not shown.
    let value = shape.with_format("either", IPAddress).unwrap().decode(&[1; 8], &Budget::default()).unwrap();
    assert_eq!(value.get("either"), None::<&Value>);
}

#[test]
fn a_format_that_does_not_fit_is_refused() {
    let shape = shape();
    let fits: [(Format, &[&str]); 7] = [
        (Decimal, &["word", "signed", "half", "long", "pointer", "state", "be16", "bits", "mode"]),
        (Hex, &["word", "signed", "half", "long", "pointer", "state", "be16", "text", "octets", "bits", "mode"]),
        (Text, &["text", "octets"]),
        (IPAddress, &["word", "octets", "words", "either"]),
        (Port, &["word", "half", "be16"]),
        (Enum, &["state", "mode"]),
        (Pod, &["long"]),
    ];
    let all = [
        "word", "signed", "half", "long", "float", "pointer", "state", "be16", "text", "octets", "words", "pair",
        "either", "bits", "mode",
    ];
    for (format, fit) in fits {
        let found: Vec<&str> = all.into_iter().filter(|name| shape.with_format(name, format).is_ok()).collect();
        assert_eq!(found, fit, "{format:?}");
    }
    let error = shape.with_format("float", Port).unwrap_err();
    assert_eq!(error.to_string(), "Port takes an unsigned integer of two or four bytes");
    for (path, words) in [("nothing", "no field \"nothing\"; there are: word"), ("word.x", "there are: none")] {
        let error = shape.with_format(path, Hex).unwrap_err();
        assert!(matches!(error, FormatError::NoField { .. }) && error.to_string().contains(words), "{error}");
        assert_eq!(shape.place(path).unwrap_err(), error);
    }
}

#[test]
fn a_number_is_read_at_its_place() {
    let shape = shape();
    let bytes = [1, 0, 0, 0, 2, 0, 0, 0];
    assert_eq!(shape.place("long").unwrap().number(&bytes), Some(0x2_0000_0001));
    assert_eq!(shape.place("pair.UP").unwrap().number(&bytes), Some(2));
    assert_eq!(shape.place("pair.UP").unwrap().number(&bytes[..7]), None);
    assert_eq!(shape.place("bits").unwrap().number(&bytes), None);
}
