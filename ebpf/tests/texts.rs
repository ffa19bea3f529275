//! The texts of composite values, as hostile as a spec may have them: each is encoded or refused with its place, soon.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use sockeye_crds::{Value, value::MAX_TEXT};
use sockeye_ebpf::{btf::Btf, values::encode::Encoder};
use sockeye_ebpf_testing::builder::BtfBuilder;

const HINT: &str = ": write an integer beyond 64 bits as text, in quotes";

fn int(types: &mut BtfBuilder, name: &str, size: u32, encoding: u32) -> u32 {
    let name = types.string(name);
    types.add(name, (1, 0), size, &[(encoding << 24) + 8 * size])
}

fn array(types: &mut BtfBuilder, of: u32, len: u32) -> u32 {
    types.add(0, (3, 0), 0, &[of, of, len])
}

/// Returns the BTF of `struct pair { u64 a; bool on; char text[4]; u8 list[3]; }` and the ID of the struct.
fn pair() -> (Vec<u8>, u32) {
    let mut types = BtfBuilder::new();
    let word = int(&mut types, "u64", 8, 0);
    let bool = int(&mut types, "_Bool", 1, 4);
    let (char, byte) = (int(&mut types, "char", 1, 1), int(&mut types, "u8", 1, 0));
    let (text, list) = (array(&mut types, char, 4), array(&mut types, byte, 3));
    let names = ["a", "on", "text", "list"].map(|name| types.string(name));
    let members = [(word, 0), (bool, 64), (text, 72), (list, 104)].into_iter().zip(names);
    let members: Vec<u32> = members.flat_map(|((of, bit), name)| [name, of, bit]).collect();
    let name = types.string("pair");
    let id = types.add(name, (4, 4), 16, &members);
    (types.build(), id)
}

fn encode(btf: &[u8], id: u32, text: &str) -> Result<Vec<u8>, String> {
    let btf = Btf::parse(btf).unwrap();
    let mut out = vec![0; btf.resolve_size(id).unwrap() as usize];
    Encoder::new(&btf).encode(id, &Value::from(text), &mut out).map(|()| out).map_err(|mistake| mistake.to_string())
}

#[test]
fn the_text_of_a_struct_is_json() {
    let (btf, id) = pair();
    let with = |at: usize, bytes: &[u8]| {
        let mut all = vec![0; 16];
        all[at..at + bytes.len()].copy_from_slice(bytes);
        all
    };
    for (text, bytes) in [
        (" {\n}\t", vec![0; 16]),
        (r#"{"a": 18446744073709551615}"#, with(0, &[0xff; 8])),
        (r#"{"a": "0xff"}"#, with(0, &[0xff])),
        (r#"{"\u0061": 1}"#, with(0, &[1])),
        (r#"{"on": true}"#, with(8, &[1])),
        (r#"{"text": "[1]"}"#, with(9, b"[1]")),
        (r#"{"text": [97, -1]}"#, with(9, &[97, 255])),
        (r#"{"list": [], "on": false}"#, vec![0; 16]),
        (r#"{"list": [7, "8"], "a": 1}"#, [with(0, &[1])[..13].to_vec(), vec![7, 8, 0]].concat()),
    ] {
        assert_eq!(encode(&btf, id, text), Ok(bytes), "{text}");
    }
}

#[test]
fn each_fault_of_a_text_is_refused_with_its_place() {
    let (btf, id) = pair();
    let huge = format!("{{\"a\": {}}}", "9".repeat(400));
    let open = "[".repeat(MAX_TEXT as usize);
    let name = format!("{{\"{}\": 1}}", "n".repeat(MAX_TEXT as usize - 7));
    for (text, words) in [
        ("", &[": expected struct pair, JSON text of an object with any of: a, on, text, list, got \"\"", "EOF"][..]),
        ("{", &["which can't be read as JSON: EOF while parsing an object at line 1 column 1"]),
        ("{\"a\": 1,\n \"on\": yes}", &["expected value at line 2 column 8"]),
        ("{\"a\": 1} x", &["trailing characters at line 1 column 10"]),
        ("{\"a\": 1}{\"a\": 2}", &["trailing characters at line 1 column 9"]),
        ("{\"a\": 1, \"a\": 1}", &["field \"a\" is there twice at line 1 column "]),
        ("\u{feff}{}", &["expected value at line 1 column 1"]),
        ("{\"a\": null}", &[".a: expected u64", "got null: leave out what has no value"]),
        ("{\"list\": [1, null]}", &[".list[1]: expected u8", "got null: leave out what has no value"]),
        ("null", &["JSON text of an object", "got null: leave out what has no value"]),
        ("[{}]", &["JSON text of an object", "got a list of 1"]),
        ("\"{}\"", &["JSON text of an object", "got \"{}\""]),
        ("{\"a\": 18446744073709551616}", &[".a: expected u64", "got 1.8446744073709552e19", HINT]),
        ("{\"a\": -9223372036854775809}", &[".a: expected u64", "got -9.223372036854776e18", HINT]),
        (&huge, &["number out of range at line 1 column ", HINT]),
        ("{\"a\": 1e3}", &[".a: expected u64", "got 1000.0"]),
        ("{\"a\": 1.5}", &[".a: expected u64", "got 1.5"]),
        ("{\"a\": -0}", &[".a: expected u64", "got -0.0"]),
        ("{\"on\": 1}", &[".on: expected _Bool, true or false, got 1"]),
        ("{\"on\": \"true\"}", &[".on: expected _Bool, true or false, got \"true\""]),
        ("{\"text\": \"four\"}", &[".text: expected char[4], text of at most 3 bytes, or a list of at most 4 numbers"]),
        ("{\"list\": \"[1]\"}", &[".list: expected u8[3], a list of at most 3, got \"[1]\""]),
        ("{\"list\": [1, 2, 3, 4]}", &[".list: expected u8[3], a list of at most 3, got a list of 4"]),
        ("{\"a\\u0000\": 1}", &[".a?: struct pair has no such field"]),
        (&open, &["lists and objects are nested deeper than 16 at line 1 column "]),
        (&name, &["struct pair has no such field"]),
    ] {
        let error = encode(&btf, id, text).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)) && error.len() < 1024, "{words:?}: {error}");
    }
}

#[test]
fn values_are_nested_no_deeper_than_the_limit() {
    let mut types = BtfBuilder::new();
    let byte = int(&mut types, "u8", 1, 0);
    let arrays: Vec<u32> = (0..17)
        .scan(byte, |of, _| {
            *of = array(&mut types, *of, 1);
            Some(*of)
        })
        .collect();
    let btf = types.build();
    let text = |levels: usize| format!("{}7{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(encode(&btf, arrays[15], &text(16)), Ok(vec![7]));
    assert!(encode(&btf, arrays[16], &text(17)).unwrap_err().contains("nested deeper than 16"));
}

#[test]
fn texts_are_no_longer_than_the_schema_allows() {
    let mut types = BtfBuilder::new();
    let char = int(&mut types, "char", 1, 1);
    let id = array(&mut types, char, 40_000);
    let btf = types.build();
    let text = "é".repeat(MAX_TEXT as usize);
    assert_eq!(encode(&btf, id, &text).unwrap()[..text.len()], *text.as_bytes());
    let error = encode(&btf, id, &format!("{text}é")).unwrap_err();
    assert_eq!(error, ": the text has 16385 characters; it may have 16384");
}

#[test]
fn long_texts_are_encoded_or_refused_quickly() {
    let mut types = BtfBuilder::new();
    let byte = int(&mut types, "u8", 1, 0);
    let bytes = array(&mut types, byte, 8192);
    let members: Vec<u32> = (0..6000).flat_map(|i| [types.string(format!("m{i}")), byte, 8 * i]).collect();
    let name = types.string("wide");
    let wide = types.add(name, (4, 6000), 6000, &members);
    let btf = types.build();
    let started = Instant::now();
    let list = format!("[{}1]", "1,".repeat(8190));
    assert_eq!(encode(&btf, bytes, &list).unwrap()[8189..], [1, 1, 0]);
    // Each field is searched for among all those before it.
    let fields: Vec<String> = (4400..6000).map(|i| format!("\"m{i}\":1")).collect();
    assert!(encode(&btf, wide, &format!("{{{}}}", fields.join(","))).unwrap_err().contains("too many"));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

/// Returns texts of the words that JSON and the struct are made of.
fn texts() -> impl Strategy<Value = String> {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\"a\":",
        "\"on\":",
        "\"text\":",
        "\"list\":",
        "{\"a\":",
        "1",
        "-",
        "0x1",
        "1e9",
        "18446744073709551616",
        "true",
        "null",
        "\"\"",
        "\"\\u0061\":",
        "\"é\"",
        "\"\\ud800\"",
        "\u{1b}",
        "\u{202e}",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..24).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_text_is_encoded_or_refused(text in texts()) {
        let (btf, id) = pair();
        match encode(&btf, id, &text) {
            Ok(_) => prop_assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object()),
            Err(error) => {
                let is_unsafe = |c: char| c.is_control() || c == '\u{202e}';
                prop_assert!(error.len() < 1024 && !error.contains(is_unsafe), "{}", error);
            }
        }
    }
}
