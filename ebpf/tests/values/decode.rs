//! `Shape` and `Decoded`: bytes as JSON, the inverse of the encoder.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sockeye_ebpf::{
    btf::Btf,
    values::{Budget, DecodeError, Shape, ShapeError},
};
use sockeye_ebpf_testing::{builder::BtfBuilder, random::Rng, types::mutate_word};

use crate::{
    encode::encode,
    types::{T, int, types},
};

fn shape(btf: &[u8], id: u32) -> Result<Shape, ShapeError> {
    Shape::of(&Btf::parse(btf).unwrap(), id)
}

/// Decodes, also by the other way, and checks that both say the same.
fn decode(btf: &[u8], id: u32, bytes: &[u8]) -> Value {
    let (shape, budget) = (shape(btf, id).unwrap(), Budget::default());
    let value = shape.decode(bytes, &Budget::default()).unwrap();
    let text = serde_json::to_string(&shape.with(bytes, &budget).unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value, "{text}");
    value
}

/// Leaves the member of each union that was given. The encoder takes one only.
fn reduce(one: &T, decoded: Value, given: Option<&Value>) -> Value {
    match (one, decoded) {
        (T::Alias(of), decoded) => reduce(of, decoded, given),
        (T::Array(of, _), Value::Array(items)) => {
            let given = |i| given.and_then(|given| given.get(i));
            items.into_iter().enumerate().map(|(i, item)| reduce(of, item, given(i))).collect()
        }
        (T::Struct(members) | T::Union(members), Value::Object(mut fields)) => {
            let given = given.and_then(Value::as_object);
            if let T::Union(_) = one {
                let name = given.and_then(|given| given.keys().next().cloned()).unwrap_or_else(|| "m0".to_owned());
                fields.retain(|field, _| *field == name);
            }
            let of = |name: &str| &members[name[1..].parse::<usize>().unwrap()];
            let reduced = fields.into_iter().map(|(name, value)| {
                let value = reduce(of(&name), value, given.and_then(|given| given.get(&name)));
                (name, value)
            });
            Value::Object(reduced.collect::<Map<_, _>>())
        }
        (_, decoded) => decoded,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_is_decoded_is_encoded_again_to_the_same_bytes(one in types(), seed in any::<u64>()) {
        let (btf, id) = one.build();
        let mut rng = Rng(seed);
        for _ in 0..4 {
            let (value, bytes) = one.value(&mut rng);
            let decoded = decode(&btf, id, &bytes);
            let reduced = reduce(&one, decoded.clone(), Some(&value));
            prop_assert_eq!(encode(&btf, id, &reduced), Ok(bytes), "{} was decoded as {}", value, decoded);
        }
    }

    #[test]
    fn no_types_and_no_bytes_are_too_much(one in types(), seed in any::<u64>()) {
        let (mut btf, id) = one.build();
        let strings = btf.len() - 64.min(btf.len() / 2);
        let mut rng = Rng(seed);
        for _ in 0..8 {
            mutate_word(&mut btf[24..strings], &mut rng);
            let Ok(types) = Btf::parse(&btf) else { continue };
            let bytes: Vec<u8> = (0..rng.below(200)).map(|_| rng.below(256) as u8).collect();
            for id in [id, types.len() - 1] {
                let Ok(shape) = Shape::of(&types, id) else { continue };
                if let Ok(value) = shape.decode(&bytes, &Budget::new(4096)) {
                    // A byte may take six characters of JSON, and a small number's name more than its cost.
                    prop_assert!(value.to_string().len() < 8 * 4096);
                }
            }
        }
    }
}

#[test]
fn each_form_is_decoded_as_the_contract_says() {
    let mut types = BtfBuilder::new();
    let word = int(&mut types, "unsigned int", 4, 0);
    let long = int(&mut types, "long", 8, 1);
    let wide = int(&mut types, "__int128", 16, 1);
    let bool_ = int(&mut types, "_Bool", 1, 4);
    let char_ = int(&mut types, "char", 1, 1);
    let byte = int(&mut types, "unsigned char", 1, 0);
    let [up, down, name, wide_enum] = ["UP", "DOWN", "state", "wide"].map(|name| types.string(name));
    let state = types.add(name, (0x86, 3), 4, &[up, 1, down, u32::MAX, name, 1]);
    let wide_state = types.add(wide_enum, (19, 2), 8, &[up, 0, 1, down, 5, 0]);
    let [float, double, quad] = [4, 8, 16].map(|size| types.add(name, (16, 0), size, &[]));
    let pointer = types.add(0, (2, 0), word, &[]);
    let text = types.add(0, (3, 0), 0, &[char_, word, 8]);
    let texts = types.add(0, (3, 0), 0, &[text, word, 2]);
    let octets = types.add(0, (3, 0), 0, &[byte, word, 4]);
    let be16 = types.string("__be16");
    let short = int(&mut types, "unsigned short", 2, 0);
    let port = types.add(be16, (8, 0), short, &[]);
    let declared = types.add(name, (7, 0), 0, &[]);
    // Five bits from bit 3 of a word on.
    let odd = types.add(name, (1, 0), 4, &[1 << 24 | 3 << 16 | 5]);
    let btf = types.build();
    let double_of = |number: f64| number.to_le_bytes().to_vec();
    for (id, bytes, expected) in [
        (word, vec![0xff; 4], json!(u32::MAX)),
        (long, vec![0xff; 8], json!(-1)),
        (long, i64::MIN.to_le_bytes().to_vec(), json!(i64::MIN)),
        (wide, (1i128 << 70).to_le_bytes().to_vec(), json!((1i128 << 70).to_string())),
        (wide, i128::MIN.to_le_bytes().to_vec(), json!(i128::MIN.to_string())),
        (wide, (-3i128).to_le_bytes().to_vec(), json!(-3)),
        (bool_, vec![0], json!(false)),
        (bool_, vec![1], json!(true)),
        (bool_, vec![7], json!(7)),
        (char_, vec![0xff], json!(-1)),
        (state, vec![1, 0, 0, 0], json!("UP")),
        (state, vec![0xff; 4], json!("DOWN")),
        (state, vec![0xfe, 0xff, 0xff, 0xff], json!(-2)),
        (wide_state, (1u64 << 32).to_le_bytes().to_vec(), json!("UP")),
        (wide_state, vec![0xff; 8], json!(u64::MAX)),
        (float, 1.5f32.to_le_bytes().to_vec(), json!(1.5)),
        (double, double_of(-0.1), json!(-0.1)),
        (double, double_of(f64::NAN), json!("NaN")),
        (double, double_of(f64::NEG_INFINITY), json!("-Infinity")),
        (quad, vec![1; 16], json!("01".repeat(16))),
        (pointer, 0xffff_8880_0000_1000u64.to_le_bytes().to_vec(), json!("0xffff888000001000")),
        (text, b"curl\0xyz".to_vec(), json!("curl")),
        (text, b"12345678".to_vec(), json!("12345678")),
        (text, b"t\xc3\xa4\n\0\0\0\0".to_vec(), json!("tä\n")),
        (text, b"\x1b[2J\0\0\0\0".to_vec(), json!([27, 91, 50, 74, 0, 0, 0, 0])),
        (text, b"a\xff\0\0\0\0\0\0".to_vec(), json!([97, -1, 0, 0, 0, 0, 0, 0])),
        (texts, b"a\0\0\0\0\0\0\0b\0\0\0\0\0\0\0".to_vec(), json!(["a", "b"])),
        (octets, vec![10, 0, 0, 1], json!([10, 0, 0, 1])),
        (port, vec![1, 0xbb], json!(443)),
        (declared, vec![], Value::Null),
        (0, vec![], Value::Null),
        (odd, vec![0b1000_1111, 0, 0, 0], json!(-15)),
        // More bytes than the type has, as from a perf buffer, are padding.
        (word, vec![1, 0, 0, 0, 9, 9], json!(1)),
        (octets, vec![1, 2, 3, 4, 5], json!([1, 2, 3, 4])),
    ] {
        assert_eq!(decode(&btf, id, &bytes), expected, "type {id} of {bytes:?}");
    }
    let short = shape(&btf, long).unwrap().decode(&[0; 7], &Budget::default());
    assert_eq!(short, Err(DecodeError::TooShort { given: 7, needed: 8 }));
}

#[test]
fn records_show_anonymous_members_bit_fields_and_what_goes_on_after_them() {
    let mut types = BtfBuilder::new();
    let word = int(&mut types, "unsigned int", 4, 0);
    let signed = int(&mut types, "int", 4, 1);
    let char_ = int(&mut types, "char", 1, 1);
    let bool_ = int(&mut types, "_Bool", 1, 4);
    let names = ["low", "high", "a", "b", "whole", "len", "tail", "on", "mode", "MANY", "BELOW"];
    let [low, high, a, b, whole, len, tail, on, mode, many, below] = names.map(|name| types.string(name));
    let pair = types.add(0, (4, 2), 8, &[a, word, 0, b, word, 32]);
    let words = types.add(0, (3, 0), 0, &[word, word, 2]);
    let union = types.add(0, (5, 2), 8, &[0, pair, 0, whole, words, 0]);
    let of = types.add(0, (0x86, 2), 4, &[many, 1, below, u32::MAX]);
    // An anonymous bit field is padding.
    let fields = [
        [low, word, 3 << 24],
        [high, signed, 5 << 24 | 3],
        [mode, of, 2 << 24 | 8],
        [on, bool_, 1 << 24 | 10],
        [0, word, 5 << 24 | 11],
        [0, union, 32],
    ];
    let packed = types.add(low, (0x84, 6), 12, &fields.concat());
    let open = types.add(0, (3, 0), 0, &[char_, word, 0]);
    let pairs = types.add(0, (3, 0), 0, &[pair, word, 0]);
    let event = types.add(low, (4, 2), 4, &[len, word, 0, tail, open, 32]);
    let outer = types.add(low, (4, 2), 8, &[a, word, 0, b, event, 32]);
    let many_pairs = types.add(low, (4, 2), 4, &[len, word, 0, tail, pairs, 32]);
    // Two of one name, and one that lies over the end.
    let twice = types.add(low, (4, 3), 8, &[a, word, 0, a, word, 32, b, word, 64]);
    let btf = types.build();
    let decode = |id, bytes: &[u8]| decode(&btf, id, bytes);
    let bytes = [0xfd, 0b111, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0];
    let all = json!({"low": 5, "high": -1, "mode": "BELOW", "on": true, "a": 1, "b": 2, "whole": [1, 2]});
    assert_eq!(decode(packed, &bytes), all);
    // In the type's order.
    let (shape, budget) = (shape(&btf, packed).unwrap(), Budget::default());
    let text = serde_json::to_string(&shape.with(&bytes, &budget).unwrap()).unwrap();
    assert!(text.starts_with(r#"{"low":5,"high":-1,"mode":"BELOW","on":true,"a":1"#), "{text}");
    // A program may submit only the beginning.
    assert_eq!(
        decode(packed, &bytes[..8]),
        json!({
            "low": 5, "high": -1, "mode": "BELOW", "on": true, "a": 1, "whole": [1],
        })
    );
    assert_eq!(decode(packed, &[]), json!({}));
    assert_eq!(decode(event, b"\x05\0\0\0hello"), json!({"len": 5, "tail": "hello"}));
    assert_eq!(decode(event, b"\x05\0\0\0"), json!({"len": 5, "tail": ""}));
    assert_eq!(decode(outer, b"\x01\0\0\0\x02\0\0\0hi"), json!({"a": 1, "b": {"len": 2, "tail": "hi"}}));
    let two = [1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 9];
    assert_eq!(decode(many_pairs, &two), json!({"len": 1, "tail": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}));
    assert_eq!(decode(twice, &[1, 0, 0, 0, 2, 0, 0, 0]), json!({"a": 1, "a_2": 2}));
}

#[test]
fn endless_and_huge_types_are_refused_quickly() {
    let mut types = BtfBuilder::new();
    let [me, long] = ["me", &"x".repeat(500)].map(|name| types.string(name));
    let named = types.add(me, (4, 1), 8, &[me, 1, 0]);
    let members: Vec<u32> = (0..1000).flat_map(|_| [0, 2, 0]).collect();
    let nameless = types.add(me, (4, 1000), 8, &members);
    let endless = types.add(0, (3, 0), 0, &[3, 3, 1]);
    let empty = types.add(me, (4, 0), 0, &[]);
    let billions = types.add(0, (3, 0), 0, &[empty, empty, u32::MAX]);
    let holder = types.add(me, (4, 1), 8, &[me, billions, 0]);
    // Each holds the one before it, a thousand times over, and a chain of them is read from both ends.
    let mut last = int(&mut types, "unsigned int", 4, 0);
    let mut chain = vec![last];
    for _ in 0..100 {
        last = types.add(me, (4, 2), 4, &[me, last, 0, me, last, 0]);
        chain.push(last);
    }
    let from_below: Vec<u32> = chain.iter().flat_map(|id| [me, *id, 0]).collect();
    let all = types.add(me, (4, chain.len() as u32), 4, &from_below);
    let names: Vec<u32> = (0..60_000).flat_map(|i| [long, i]).collect();
    let enumerators = types.add(me, (6, 60_000), 4, &names);
    let btf = types.build();
    let started = Instant::now();
    for (id, expected) in [
        (named, ShapeError::TooDeep),
        (nameless, ShapeError::TooDeep),
        (last, ShapeError::TooDeep),
        (all, ShapeError::TooDeep),
        (enumerators, ShapeError::TooManyFields),
    ] {
        assert_eq!(shape(&btf, id).unwrap_err(), expected, "{id}");
    }
    assert!(matches!(shape(&btf, endless), Err(ShapeError::TooDeep | ShapeError::Btf(_))));
    for id in [billions, holder] {
        let refused = shape(&btf, id).unwrap().decode(&[0; 8], &Budget::default());
        assert_eq!(refused, Err(DecodeError::TooLarge), "{id}");
    }
    // Two fields of each of thirty levels are two to the power of thirty.
    let refused = shape(&btf, chain[30]).unwrap().decode(&[0; 4], &Budget::default());
    assert_eq!(refused, Err(DecodeError::TooLarge));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn long_names_of_small_values_count() {
    let mut types = BtfBuilder::new();
    let [me, long] = ["me", &"x".repeat(500)].map(|name| types.string(name));
    let byte = types.add(me, (6, 1), 1, &[long, 0]);
    let bytes = types.add(0, (3, 0), 0, &[byte, byte, 4096]);
    // Each field has three bits from bit 0 on.
    let fields: Vec<u32> = (0..2000).flat_map(|_| [me, byte, 3 << 24]).collect();
    let bit_fields = types.add(me, (0x84, 2000), 1, &fields);
    let btf = types.build();
    for (id, bytes) in [(bytes, &[0; 4096][..]), (bit_fields, &[0])] {
        let shape = shape(&btf, id).unwrap();
        assert_eq!(shape.decode(bytes, &Budget::new(64 << 10)), Err(DecodeError::TooLarge), "{id}");
        assert!(shape.decode(bytes, &Budget::new(4 << 20)).is_ok(), "{id}");
    }
}
