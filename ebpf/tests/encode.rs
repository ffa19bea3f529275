//! `Encoder`: values as bytes, compared with a layout that is computed without the encoder.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use sockeye_ebpf::{btf::Btf, values::encode::Encoder};
use sockeye_ebpf_testing::{builder::BtfBuilder, random::Rng};

/// A type of the generated BTF.
#[derive(Clone, Debug)]
enum T {
    Int { size: u32, signed: bool },
    BigEndian(u32),
    Bool,
    Enum { wide: bool },
    Text(u32),
    Address(u32),
    Array(Box<T>, u32),
    Struct(Vec<T>),
    Union(Vec<T>),
    Alias(Box<T>),
}

/// The enumerators of every generated enum.
const NAMES: [(&str, u64); 3] = [("OFF", 0), ("ON", 1), ("MANY", 0xfffe)];

impl T {
    fn size(&self) -> u32 {
        match self {
            Self::Int { size, .. } | Self::BigEndian(size) | Self::Text(size) | Self::Address(size) => *size,
            Self::Bool => 1,
            Self::Enum { wide } => {
                if *wide {
                    8
                } else {
                    4
                }
            }
            Self::Array(of, len) => of.size() * len,
            Self::Struct(members) => Self::offsets(members).last().map_or(0, |(end, _)| *end),
            Self::Union(members) => members.iter().map(Self::size).max().unwrap_or_default(),
            Self::Alias(of) => of.size(),
        }
    }

    /// Returns the end and the start of each member, with holes as from alignment.
    fn offsets(members: &[Self]) -> Vec<(u32, u32)> {
        let mut end = 0;
        let place = |(i, member): (usize, &Self)| {
            let start = end + i as u32 % 3;
            end = start + member.size();
            (end, start)
        };
        members.iter().enumerate().map(place).collect()
    }

    /// Adds the type to the BTF and returns its ID.
    fn make(&self, types: &mut BtfBuilder) -> u32 {
        match self {
            Self::Int { size, signed } => int(types, "a number", *size, u32::from(*signed)),
            Self::BigEndian(size) => {
                let of = int(types, "a number", *size, 0);
                let name = types.string(format!("__be{}", 8 * size));
                types.add(name, (8, 0), of, &[])
            }
            Self::Bool => int(types, "_Bool", 1, 4),
            Self::Enum { wide } => {
                let words = NAMES.map(|(name, value)| {
                    let name = types.string(name);
                    let words = [name, value as u32, 0];
                    words[..if *wide { 3 } else { 2 }].to_vec()
                });
                types.add(0, (if *wide { 19 } else { 6 }, 3), self.size(), &words.concat())
            }
            Self::Text(len) => {
                let of = int(types, "char", 1, 1);
                types.add(0, (3, 0), 0, &[of, of, *len])
            }
            Self::Address(size) => {
                let of = int(types, "unsigned char", 1, 0);
                types.add(0, (3, 0), 0, &[of, of, *size])
            }
            Self::Array(of, len) => {
                let of = of.make(types);
                types.add(0, (3, 0), 0, &[of, of, *len])
            }
            Self::Struct(members) => {
                let offsets: Vec<u32> = Self::offsets(members).into_iter().map(|(_, start)| start).collect();
                composite(types, 4, self.size(), members, &offsets)
            }
            Self::Union(members) => composite(types, 5, self.size(), members, &vec![0; members.len()]),
            Self::Alias(of) => {
                let of = of.make(types);
                let name = types.string("alias");
                let of = types.add(name, (8, 0), of, &[]);
                // const, volatile
                let of = types.add(0, (10, 0), of, &[]);
                types.add(0, (9, 0), of, &[])
            }
        }
    }

    /// Returns a random value and its bytes.
    fn value(&self, rng: &mut Rng) -> (Value, Vec<u8>) {
        let mut number = |size: u32| (0..size).map(|_| [0, 1, 0x7f, 0x80, 0xff][rng.below(5)]).collect::<Vec<u8>>();
        match self {
            Self::Int { size, signed } => {
                let bytes = number(*size);
                (number_from(&bytes, *signed, rng), bytes)
            }
            Self::BigEndian(size) => {
                let bytes = number(*size);
                let value: Vec<u8> = bytes.iter().rev().copied().collect();
                (number_from(&value, false, rng), bytes)
            }
            Self::Bool => [(json!(false), vec![0]), (json!(true), vec![1])][rng.below(2)].clone(),
            Self::Enum { .. } => {
                let (name, value) = NAMES[rng.below(3)];
                let bytes = value.to_le_bytes()[..self.size() as usize].to_vec();
                (if rng.below(2) == 0 { json!(name) } else { json!(value) }, bytes)
            }
            Self::Text(len) => {
                let text = "tä".repeat(9)[..].chars().take(rng.below(*len as usize / 2)).collect::<String>();
                let mut bytes = text.clone().into_bytes();
                bytes.resize(*len as usize, 0);
                (json!(text), bytes)
            }
            Self::Address(4) => (json!("10.0.255.1"), vec![10, 0, 255, 1]),
            Self::Address(_) => (json!("fd00::1"), [&[0xfd][..], &[0; 14], &[1]].concat()),
            Self::Array(of, len) => {
                let given = rng.below(*len as usize + 1);
                let (values, bytes): (Vec<Value>, Vec<Vec<u8>>) = (0..given).map(|_| of.value(rng)).unzip();
                let mut bytes = bytes.concat();
                bytes.resize(self.size() as usize, 0);
                (json!(values), bytes)
            }
            Self::Struct(members) => {
                let (mut value, mut bytes) = (json!({}), vec![0; self.size() as usize]);
                for (i, (member, (end, start))) in members.iter().zip(Self::offsets(members)).enumerate() {
                    if rng.below(4) > 0 {
                        let (of, written) = member.value(rng);
                        value[format!("m{i}")] = of;
                        bytes[start as usize..end as usize].copy_from_slice(&written);
                    }
                }
                (value, bytes)
            }
            Self::Union(members) => {
                let i = rng.below(members.len());
                let (value, mut bytes) = members[i].value(rng);
                bytes.resize(self.size() as usize, 0);
                (json!({format!("m{i}"): value}), bytes)
            }
            Self::Alias(of) => of.value(rng),
        }
    }
}

/// Returns the number of little-endian bytes, as a JSON number or a string.
fn number_from(bytes: &[u8], signed: bool, rng: &mut Rng) -> Value {
    let unsigned = bytes.iter().rev().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    let bits = 8 * bytes.len() as u32;
    let negative = signed && unsigned >> (bits - 1) & 1 == 1;
    let value = if negative { (unsigned | u128::MAX.checked_shl(bits).unwrap_or(0)) as i128 } else { 0 };
    match rng.below(3) {
        0 if negative => json!(value.to_string()),
        0 => json!(unsigned.to_string()),
        1 if !negative => json!(format!("{unsigned:#x}")),
        _ if negative && value >= i64::MIN.into() => json!(value as i64),
        _ if negative => json!(value.to_string()),
        _ => u64::try_from(unsigned).map_or_else(|_| json!(unsigned.to_string()), |number| json!(number)),
    }
}

fn int(types: &mut BtfBuilder, name: &str, size: u32, encoding: u32) -> u32 {
    let name = types.string(name);
    types.add(name, (1, 0), size, &[(encoding << 24) + 8 * size])
}

fn composite(types: &mut BtfBuilder, kind: u32, size: u32, members: &[T], offsets: &[u32]) -> u32 {
    let mut words = Vec::new();
    for (i, (member, offset)) in members.iter().zip(offsets).enumerate() {
        let id = member.make(types);
        words.extend([types.string(format!("m{i}")), id, 8 * offset]);
    }
    let name = types.string("record");
    types.add(name, (kind, members.len() as u32), size, &words)
}

fn types() -> impl Strategy<Value = T> {
    let leaf = prop_oneof![
        (prop::sample::select(vec![1, 2, 4, 8, 16]), any::<bool>()).prop_map(|(size, signed)| T::Int { size, signed }),
        prop::sample::select(vec![2, 4, 8]).prop_map(T::BigEndian),
        Just(T::Bool),
        any::<bool>().prop_map(|wide| T::Enum { wide }),
        (2..20u32).prop_map(T::Text),
        prop::sample::select(vec![4, 16]).prop_map(T::Address),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0..4u32).prop_map(|(of, len)| T::Array(Box::new(of), len)),
            prop::collection::vec(inner.clone(), 1..5).prop_map(T::Struct),
            prop::collection::vec(inner.clone(), 1..4).prop_map(T::Union),
            inner.prop_map(|of| T::Alias(Box::new(of))),
        ]
    })
}

/// Returns a value as a spec has it: an integer or text, and whatever is neither as JSON text.
fn in_spec(value: &Value) -> sockeye_crds::Value {
    match (value, value.as_i64()) {
        (_, Some(integer)) => integer.into(),
        (Value::String(text), None) => text.as_str().into(),
        (other, None) => other.to_string().as_str().into(),
    }
}

fn encode(btf: &[u8], id: u32, value: &Value) -> Result<Vec<u8>, String> {
    let btf = Btf::parse(btf).unwrap();
    let mut out = vec![0; btf.resolve_size(id).unwrap_or(8) as usize];
    Encoder::new(&btf).encode(id, &in_spec(value), &mut out).map(|()| out).map_err(|mistake| mistake.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn values_are_encoded_with_the_layout_of_their_types(one in types(), seed in any::<u64>()) {
        let mut types = BtfBuilder::new();
        let id = one.make(&mut types);
        let btf = types.build();
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
    let id = types.add(name, (0x84, 3), 12, &[low, word, 3 << 24, high, signed, 5 << 24 | 3, 0, union, 32]);
    let btf = types.build();
    let encode = |value: Value| encode(&btf, id, &value);
    assert_eq!(encode(json!({"low": 5, "high": -1})).unwrap()[..4], [0xfd, 0, 0, 0]);
    assert_eq!(encode(json!({"a": 1, "b": 2})).unwrap()[4..], [1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(encode(json!({"octets": [3]})).unwrap()[4..], [3, 0, 0, 0, 0, 0, 0, 0]);
    for (value, words) in [
        (json!({"low": 8}), ".low: expected a bit field, a number from 0 to 7, got 8"),
        (json!({"high": 16}), "from -16 to 15"),
        (json!({"b": 1, "octets": [1]}), ".octets: it lies over b"),
        (json!({"c": 1}), ".c: struct packed has no such field; it has: low, high, a, b"),
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
