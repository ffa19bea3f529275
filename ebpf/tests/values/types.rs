//! Types of generated BTF, and values of them as bytes, computed without the encoder and the decoder.

use proptest::prelude::*;
use serde_json::{Value, json};
use sockeye_ebpf_testing::{builder::BtfBuilder, random::Rng};

/// A type of the generated BTF.
#[derive(Clone, Debug)]
pub enum T {
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
    pub fn size(&self) -> u32 {
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
    pub fn offsets(members: &[Self]) -> Vec<(u32, u32)> {
        let mut end = 0;
        let place = |(i, member): (usize, &Self)| {
            let start = end + i as u32 % 3;
            end = start + member.size();
            (end, start)
        };
        members.iter().enumerate().map(place).collect()
    }

    /// Returns BTF that has the type, and the type's ID.
    pub fn build(&self) -> (Vec<u8>, u32) {
        let mut types = BtfBuilder::new();
        let id = self.make(&mut types);
        (types.build(), id)
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
    pub fn value(&self, rng: &mut Rng) -> (Value, Vec<u8>) {
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

pub fn int(types: &mut BtfBuilder, name: &str, size: u32, encoding: u32) -> u32 {
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

pub fn types() -> impl Strategy<Value = T> {
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
