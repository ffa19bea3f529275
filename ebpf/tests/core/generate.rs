//! Random types of an object, and types of a kernel that differ from them as versions of a kernel do.

use sockeye_ebpf_testing::{builder::BtfBuilder, random::Rng};

/// A type.
#[derive(Clone, Debug)]
pub enum T {
    Void,
    Int {
        name: &'static str,
        size: u32,
        encoding: u32,
        offset: u32,
    },
    Float(u32),
    Ptr(Box<T>),
    Array(Box<T>, u32),
    Record {
        union: bool,
        name: String,
        bit_fields: bool,
        members: Vec<Member>,
    },
    Enum {
        wide: bool,
        name: String,
        signed: bool,
        size: u32,
        values: Vec<(String, u64)>,
    },
    Fwd {
        name: String,
        union: bool,
    },
    /// A typedef (8), qualifier (9 to 11) or tag (18).
    Alias(u32, String, Box<T>),
    Proto(Vec<T>, Box<T>),
}

/// A member of a struct or union.
#[derive(Clone, Debug)]
pub struct Member {
    name: String,
    of: T,
    /// The width of a bit field.
    width: u32,
    /// A hole before it, in bits.
    hole: u32,
}

const ROOTS: [&str; 6] = ["alpha", "beta", "gamma", "delta", "int", "omega"];
const FLAVOURS: [&str; 6] = ["", "", "", "___one", "___two", "___one___two"];
const INTS: [(&str, u32, u32); 8] = [
    ("int", 4, 1),
    ("unsigned int", 4, 0),
    ("char", 1, 2),
    ("signed char", 1, 1),
    ("short", 2, 1),
    ("long", 8, 1),
    ("unsigned long", 8, 0),
    ("_Bool", 1, 4),
];

fn chance(rng: &mut Rng, one_in: usize) -> bool {
    rng.below(one_in) == 0
}

fn named(rng: &mut Rng) -> String {
    format!("{}{}", ROOTS[rng.below(ROOTS.len())], FLAVOURS[rng.below(FLAVOURS.len())])
}

/// Names of members, each once, so that no two members of a struct share one.
#[derive(Default)]
struct Scope(usize);

impl Scope {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("m{}", self.0)
    }
}

impl T {
    fn int(rng: &mut Rng) -> Self {
        let (name, size, encoding) = INTS[rng.below(INTS.len())];
        Self::Int { name, size, encoding, offset: if chance(rng, 40) { 4 } else { 0 } }
    }

    /// Returns a type that a name finds.
    pub fn root(rng: &mut Rng) -> Self {
        let name = named(rng);
        match rng.below(16) {
            0 => Self::Fwd { name, union: chance(rng, 2) },
            1 => Self::int(rng),
            2 | 3 => Self::enumeration(rng, name),
            4..=6 => Self::Alias(8, name, Box::new(Self::any(rng, 3))),
            _ => Self::record(rng, name, &mut Scope::default(), 4),
        }
    }

    fn any(rng: &mut Rng, depth: usize) -> Self {
        let inner = |rng: &mut Rng| Box::new(Self::any(rng, depth.saturating_sub(1)));
        match if depth == 0 { rng.below(3) } else { rng.below(16) } {
            0..=2 => Self::int(rng),
            3 => Self::Float(if chance(rng, 2) { 4 } else { 8 }),
            4 | 5 => Self::Ptr(if chance(rng, 4) { Box::new(Self::Void) } else { inner(rng) }),
            6 | 7 => Self::Array(inner(rng), rng.below(4) as u32),
            8 => {
                let name = if chance(rng, 3) { String::new() } else { named(rng) };
                Self::enumeration(rng, name)
            }
            9 => Self::Fwd { name: named(rng), union: chance(rng, 2) },
            10 | 11 => {
                let kind = [8, 9, 10, 11, 18][rng.below(5)];
                let name = if matches!(kind, 8 | 18) { named(rng) } else { String::new() };
                Self::Alias(kind, name, inner(rng))
            }
            12 => {
                let count = rng.below(3);
                Self::Proto((0..count).map(|_| *inner(rng)).collect(), inner(rng))
            }
            _ => {
                let name = named(rng);
                Self::record(rng, name, &mut Scope::default(), depth - 1)
            }
        }
    }

    fn enumeration(rng: &mut Rng, name: String) -> Self {
        let wide = chance(rng, 3);
        let count = rng.below(5);
        let value = |rng: &mut Rng, i: usize| {
            let name = format!("V{i}{}", FLAVOURS[rng.below(FLAVOURS.len())]);
            (name, if chance(rng, 3) { rng.below(usize::MAX) as u64 } else { i as u64 })
        };
        let values = (0..count).map(|i| value(rng, i)).collect();
        let size = if wide { 8 } else { [4, 4, 4, 1, 8][rng.below(5)] };
        Self::Enum { wide, name, signed: chance(rng, 2), size, values }
    }

    fn record(rng: &mut Rng, name: String, scope: &mut Scope, depth: usize) -> Self {
        let bit_fields = chance(rng, 3);
        let count = rng.below(6);
        let members = (0..count).map(|_| Self::member(rng, scope, depth, bit_fields)).collect();
        Self::Record { union: chance(rng, 4), name, bit_fields, members }
    }

    fn member(rng: &mut Rng, scope: &mut Scope, depth: usize, bit_fields: bool) -> Member {
        let hole = if chance(rng, 3) { 8 * rng.below(9) as u32 } else { 0 };
        if depth > 0 && chance(rng, 4) {
            let of = Self::record(rng, String::new(), scope, depth - 1);
            return Member { name: String::new(), of, width: 0, hole };
        }
        let is_bit_field = bit_fields && chance(rng, 2);
        let of = if is_bit_field { Self::int(rng) } else { Self::any(rng, depth) };
        let width = if is_bit_field { 1 + rng.below(8 * of.size() as usize) as u32 } else { 0 };
        let hole = if is_bit_field { rng.below(9) as u32 } else { hole };
        Member { name: scope.next(), of, width, hole }
    }

    fn size(&self) -> u32 {
        match self {
            Self::Void | Self::Fwd { .. } | Self::Proto(..) => 0,
            Self::Int { size, .. } | Self::Float(size) | Self::Enum { size, .. } => *size,
            Self::Ptr(_) => 8,
            Self::Array(of, len) => of.size() * len,
            Self::Record { union, members, .. } => Self::layout(*union, members).1,
            Self::Alias(.., of) => of.size(),
        }
    }

    /// Returns the offsets of the members in bits, and the size of all in bytes.
    fn layout(union: bool, members: &[Member]) -> (Vec<u32>, u32) {
        let (mut end, mut most) = (0u32, 0u32);
        let place = |member: &Member| {
            let start = if union { 0 } else { end + member.hole };
            // Only bit fields begin within a byte.
            let start = if member.width == 0 { start.next_multiple_of(8) } else { start };
            end = start + if member.width == 0 { 8 * member.of.size() } else { member.width };
            most = most.max(end);
            start
        };
        let offsets = members.iter().map(place).collect();
        (offsets, most.div_ceil(8))
    }

    /// Changes a type as another version of a kernel may have it.
    pub fn change(&mut self, rng: &mut Rng) {
        match self {
            Self::Int { name, size, encoding, offset } if chance(rng, 8) => {
                let other = INTS[rng.below(INTS.len())];
                (*name, *size, *encoding) = other;
                *offset = if chance(rng, 20) { 8 } else { 0 };
            }
            Self::Ptr(of) => of.change(rng),
            Self::Array(of, len) => {
                of.change(rng);
                if chance(rng, 4) {
                    *len = rng.below(4) as u32;
                }
            }
            Self::Alias(kind, name, of) => {
                of.change(rng);
                if *kind == 8 && chance(rng, 6) {
                    *name = named(rng);
                }
            }
            Self::Proto(params, result) => {
                result.change(rng);
                params.iter_mut().for_each(|param| param.change(rng));
                if chance(rng, 6) {
                    params.push(Self::int(rng));
                }
            }
            Self::Fwd { union, .. } if chance(rng, 8) => *union = !*union,
            Self::Enum { .. } => self.change_enum(rng),
            Self::Record { .. } => self.change_record(rng),
            _ => {}
        }
        if chance(rng, 12) {
            let kind = [8, 9, 10, 11, 18][rng.below(5)];
            let name = if kind == 8 { named(rng) } else { String::new() };
            *self = Self::Alias(kind, name, Box::new(self.clone()));
        }
        if chance(rng, 40) {
            *self = Self::any(rng, 2);
        }
    }

    fn is_number(&self) -> bool {
        match self {
            Self::Int { .. } | Self::Enum { .. } => true,
            Self::Alias(.., of) => of.is_number(),
            _ => false,
        }
    }

    fn is_same_record(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Alias(.., of), _) => of.is_same_record(other),
            (Self::Record { name, .. }, Self::Record { name: other, .. }) => name == other,
            _ => false,
        }
    }

    fn change_enum(&mut self, rng: &mut Rng) {
        let Self::Enum { wide, values, size, signed, name } = self else { return };
        match rng.below(12) {
            0 => *wide = !*wide,
            1 => *size = 4,
            2 => *signed = !*signed,
            3 => values.push(("V9".to_owned(), 9)),
            4 => values.reverse(),
            5 => drop(values.pop()),
            6 => values.iter_mut().for_each(|(_, value)| *value = value.wrapping_add(7)),
            7 => name.push_str("___new"),
            _ => {}
        }
    }

    fn change_record(&mut self, rng: &mut Rng) {
        let Self::Record { union, members, bit_fields, name } = self else { return };
        for member in members.iter_mut() {
            let before = member.of.clone();
            member.of.change(rng);
            // An anonymous struct that becomes another one would have names of the outer struct's a second time, which
            // C refuses. libbpf then adds up offsets of both.
            // By a bit field of a type that has no size of its own libbpf divides by zero.
            let is_lost = member.name.is_empty() && !member.of.is_same_record(&before);
            if is_lost || member.width > 0 && !member.of.is_number() {
                member.of = before;
            }
        }
        for _ in 0..rng.below(3) {
            let at = rng.below(members.len());
            match rng.below(9) {
                0 if !members.is_empty() => drop(members.remove(at)),
                1 if members.len() > 1 => members.swap(0, at),
                2 => {
                    let mut scope = Scope(1000 + rng.below(1000));
                    let mut new = Self::member(rng, &mut scope, 1, *bit_fields);
                    new.hole = 0;
                    members.insert(at, new);
                }
                // Some members move into an anonymous struct.
                3 if members.len() > 1 => {
                    let inner = members.split_off(at);
                    let of = Self::Record {
                        union: chance(rng, 3),
                        name: String::new(),
                        bit_fields: *bit_fields,
                        members: inner,
                    };
                    members.push(Member { name: String::new(), of, width: 0, hole: 0 });
                }
                4 if !members.is_empty() => members[at].hole += 8 * rng.below(9) as u32,
                5 => *union = !*union,
                6 if !name.is_empty() => *name = named(rng),
                _ => {}
            }
        }
    }

    /// Adds the type and all that it refers to, and returns its ID.
    pub fn add(&self, types: &mut BtfBuilder) -> u32 {
        let flagged = |kind: u32, flag: bool| kind | u32::from(flag) << 7;
        match self {
            Self::Void => 0,
            Self::Int { name, size, encoding, offset } => {
                let name = types.string(name);
                types.add(name, (1, 0), *size, &[encoding << 24 | offset << 16 | (8 * size)])
            }
            Self::Float(size) => {
                let name = types.string("float");
                types.add(name, (16, 0), *size, &[])
            }
            Self::Ptr(of) => {
                let of = of.add(types);
                types.add(0, (2, 0), of, &[])
            }
            Self::Array(of, len) => {
                let of = of.add(types);
                types.add(0, (3, 0), 0, &[of, of, *len])
            }
            Self::Record { union, name, bit_fields, members } => {
                let (offsets, size) = Self::layout(*union, members);
                let mut rest = Vec::new();
                for (member, offset) in members.iter().zip(offsets) {
                    let of = member.of.add(types);
                    rest.extend([string(types, &member.name), of, offset | member.width << 24]);
                }
                let (kind, count) = (if *union { 5 } else { 4 }, members.len() as u32);
                let name = string(types, name);
                types.add(name, (flagged(kind, *bit_fields), count), size, &rest)
            }
            Self::Enum { wide, name, signed, size, values } => {
                let mut rest = Vec::new();
                for (name, value) in values {
                    rest.extend([string(types, name), *value as u32]);
                    rest.extend(wide.then_some((*value >> 32) as u32));
                }
                let name = string(types, name);
                let kind = flagged(if *wide { 19 } else { 6 }, *signed);
                types.add(name, (kind, values.len() as u32), *size, &rest)
            }
            Self::Fwd { name, union } => {
                let name = string(types, name);
                types.add(name, (flagged(7, *union), 0), 0, &[])
            }
            Self::Alias(kind, name, of) => {
                let of = of.add(types);
                let name = string(types, name);
                types.add(name, (*kind, 0), of, &[])
            }
            Self::Proto(params, result) => {
                let result = result.add(types);
                let params: Vec<u32> = params.iter().flat_map(|param| [0, param.add(types)]).collect();
                types.add(0, (13, params.len() as u32 / 2), result, &params)
            }
        }
    }

    /// Gives a root another flavour.
    pub fn rename(&mut self, rng: &mut Rng) {
        if let Self::Record { name, .. } | Self::Enum { name, .. } | Self::Fwd { name, .. } | Self::Alias(8, name, _) =
            self
            && chance(rng, 3)
        {
            let plain = name.split("___").next().unwrap_or_default();
            *name = format!("{plain}{}", FLAVOURS[rng.below(FLAVOURS.len())]);
        }
    }
}

fn string(types: &mut BtfBuilder, text: &str) -> u32 {
    if text.is_empty() { 0 } else { types.string(text) }
}
