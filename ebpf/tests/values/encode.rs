//! `Encoder`: values as bytes, compared with a layout that is computed without the encoder.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use sockeye_ebpf::{btf::Btf, values::encode::Encoder};
use sockeye_ebpf_testing::{builder::BtfBuilder, random::Rng};

use crate::types::{int, types};

/// Returns a value as a spec has it: an integer or text, and whatever is neither as JSON text.
pub fn in_spec(value: &Value) -> sockeye_crds::Value {
    match (value, value.as_i64()) {
        (_, Some(integer)) => integer.into(),
        (Value::String(text), None) => text.as_str().into(),
        (other, None) => other.to_string().as_str().into(),
    }
}

pub fn encode(btf: &[u8], id: u32, value: &Value) -> Result<Vec<u8>, String> {
    let btf = Btf::parse(btf).unwrap();
    let mut out = vec![0; btf.resolve_size(id).unwrap_or(8) as usize];
    Encoder::new(&btf).encode(id, &in_spec(value), &mut out).map(|()| out).map_err(|mistake| mistake.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn values_are_encoded_with_the_layout_of_their_types(one in types(), seed in any::<u64>()) {
        let (btf, id) = one.build();
        let mut rng = Rng(seed);
        for _ in 0..4 {
            let (value, bytes) = one.value(&mut rng);
            prop_assert_eq!(encode(&btf, id, &value), Ok(bytes), "{}", value);
        }
    }
}

#[test]
fn bit_fields_and_anonymous_members_are_encoded() {
    let mut types = BtfBuilder::new();
    let word = int(&mut types, "unsigned int", 4, 0);
    let signed = int(&mut types, "int", 4, 1);
    let [low, high, a, b, octets] = ["low", "high", "a", "b", "octets"].map(|name| types.string(name));
    let bytes = types.add(0, (3, 0), 0, &[word, word, 2]);
    let both = types.add(0, (4, 2), 8, &[a, word, 0, b, word, 32]);
    let union = types.add(0, (5, 2), 8, &[0, both, 0, octets, bytes, 0]);
    // A struct with bit fields of three unsigned and five signed bits, then an anonymous union.
    let name = types.string("packed");
    let [off, many, below, mode] = ["OFF", "MANY", "BELOW", "mode"].map(|name| types.string(name));
    // A signed enum of 0, 100 and -1.
    let of = types.add(0, (0x86, 3), 4, &[off, 0, many, 100, below, u32::MAX]);
    let fields = [low, word, 3 << 24, high, signed, 5 << 24 | 3, mode, of, 2 << 24 | 8, 0, union, 32];
    let id = types.add(name, (0x84, 4), 12, &fields);
    let btf = types.build();
    let encode = |value: Value| encode(&btf, id, &value);
    assert_eq!(encode(json!({"low": 5, "high": -1})).unwrap()[..4], [0xfd, 0, 0, 0]);
    assert_eq!(encode(json!({"mode": "BELOW"})).unwrap()[..4], [0, 3, 0, 0]);
    assert_eq!(encode(json!({"a": 1, "b": 2})).unwrap()[4..], [1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(encode(json!({"octets": [3]})).unwrap()[4..], [3, 0, 0, 0, 0, 0, 0, 0]);
    for (value, words) in [
        (json!({"mode": "MANY"}), ".mode: expected a bit field"),
        (json!({"low": 8}), ".low: expected a bit field, a number from 0 to 7, got 8"),
        (json!({"high": 16}), "from -16 to 15"),
        (json!({"b": 1, "octets": [1]}), ".octets: it lies over b"),
        (json!({"c": 1}), ".c: struct packed has no such field; it has: low, high, mode, a, b"),
        (json!({"": 1}), "no such field"),
    ] {
        let error = encode(value).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn endless_types_are_refused_quickly() {
    let mut types = BtfBuilder::new();
    let [me, record] = ["me", "record"].map(|name| types.string(name));
    // Each contains itself: by a named member, by many anonymous members, as an array's element.
    let named = types.add(record, (4, 1), 8, &[me, 1, 0]);
    let members: Vec<u32> = (0..1000).flat_map(|_| [0, 2, 0]).collect();
    let nameless = types.add(record, (4, 1000), 8, &members);
    let endless = types.add(0, (3, 0), 0, &[3, 3, 1]);
    let pointer = types.add(0, (2, 0), 1, &[]);
    let alias = types.add(me, (8, 0), 5, &[]);
    assert_eq!([named, nameless, endless, pointer, alias], [1, 2, 3, 4, 5]);
    let btf = types.build();
    let nested = (0..100).fold(json!({}), |inner, _| json!({"me": inner}));
    let started = Instant::now();
    for (id, value, words) in [
        (named, nested, "nested deeper"),
        (nameless, json!({"me": 1}), "too many"),
        (nameless, json!(1), "expected struct record"),
        (endless, json!([[[1]]]), "too deep"),
        (pointer, json!(1), "no value"),
        (alias, json!(1), "too deep"),
        (9, json!(1), "not there"),
    ] {
        let error = encode(&btf, id, &value).unwrap_err();
        assert!(error.contains(words) && error.len() < 4096, "{words}: {error}");
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
