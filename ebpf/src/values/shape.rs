//! `Shape`: a BTF type as the decoder of values needs it, copied out of the object. So a reader of maps or rings keeps
//! no object in memory. No IO.
//!
//! Types may come from anyone. Each type is read once, whatever refers to it; a type that contains itself, or is nested
//! too deep, is refused.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sockeye_crds::program::Format;

use crate::{
    btf::{
        Btf, BtfError, Int, Kind,
        value_type::{Enumerators, Form, Record},
    },
    values::variables::Variable,
};

/// Structs and arrays within each other. The kernel allows 32 (`MAX_RESOLVE_DEPTH` of kernel/bpf/btf.c).
const MAX_DEPTH: usize = 32;
/// The bytes that fields and the names of enums' values may take. Each has a name, and many may share one.
const MAX_BYTES: usize = 4 << 20;
/// About what a field takes beside its name.
const FIELD: usize = 48;

/// The reason why values of a type can't be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The types are damaged.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The type contains itself, or types are nested too deep.
    #[error("BTF: types are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// There are too many fields, or too long names.
    #[error("BTF: a type has too many fields")]
    TooManyFields,
}

type Result<T> = std::result::Result<T, ShapeError>;

/// A type whose values can be decoded. A copy shares everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    node: Arc<Node>,
    /// The number of types within each other. It bounds the recursion of whoever walks the shape.
    height: usize,
}

/// A value of an enum as bits, and its name.
pub(crate) type EnumName = (u64, Box<str>);

/// The kind of a [`Shape`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// An integer that fills whole bytes.
    Integer { size: usize, signed: bool, big_endian: bool },
    /// An integer of some of the bits of its bytes (`BTF_INT_OFFSET`), as old compilers encode bit fields.
    Bits { size: usize, signed: bool, offset: u32, bits: u32 },
    /// `bool`
    Bool,
    /// `char`: a number by itself, text in an array.
    Char,
    /// An enum; the names of its values are sorted by value.
    Enum { size: usize, signed: bool, names: Box<[EnumName]> },
    /// A floating-point number.
    Float { size: usize },
    /// A pointer.
    Pointer { size: usize },
    /// An array; one of length 0 at the end of a struct may be longer.
    Array { element: Shape, each: usize, len: usize },
    /// A struct, a union, or a section of variables.
    Record { size: usize, fields: Box<[Field]> },
    /// A type whose values are shown in another format.
    Formatted { of: Shape, format: Format },
    /// A type without values: `void`, a function, a struct that is only declared.
    Nothing,
}

/// A field, also one of an anonymous struct or union within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Box<str>,
    /// The offset from the record's start, in bits.
    pub(crate) bit: u32,
    /// The width of a bit field.
    pub(crate) width: Option<u32>,
    pub(crate) shape: Shape,
    /// True if the field goes on to the end of the bytes: it ends the record, and is or ends in an array of length 0
    /// (C's flexible array member).
    pub(crate) is_open: bool,
}

impl Shape {
    /// Reads a type.
    ///
    /// # Errors
    /// Fails if the types are damaged, nested deeper than the kernel allows, or too many.
    pub fn of(btf: &Btf<'_>, id: u32) -> Result<Self> {
        Reader::new(btf).read(id, 0)
    }

    /// Reads the types of a data section's variables, as one record.
    pub(crate) fn of_section(btf: &Btf<'_>, size: u32, variables: &[Variable<'_>]) -> Result<Self> {
        let mut reader = Reader::new(btf);
        let mut fields = Vec::new();
        for one in variables {
            let Some(bit) = u32::try_from(one.offset).ok().and_then(|offset| offset.checked_mul(8)) else { continue };
            fields.push(reader.field(one.name, one.type_id, (bit, None), 1)?);
        }
        Ok(Self::new(record(size, fields)))
    }

    pub(crate) fn new(node: Node) -> Self {
        let height = match &node {
            Node::Array { element, .. } => 1 + element.height,
            Node::Formatted { of, .. } => of.height,
            Node::Record { fields, .. } => fields.iter().map(|field| 1 + field.shape.height).max().unwrap_or_default(),
            _ => 0,
        };
        Self { node: Arc::new(node), height }
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Returns the size of a value in bytes.
    pub fn size(&self) -> usize {
        match self.node() {
            Node::Integer { size, .. }
            | Node::Bits { size, .. }
            | Node::Enum { size, .. }
            | Node::Float { size }
            | Node::Pointer { size }
            | Node::Record { size, .. } => *size,
            Node::Bool | Node::Char => 1,
            Node::Formatted { of, .. } => of.size(),
            Node::Array { each, len, .. } => each.saturating_mul(*len),
            Node::Nothing => 0,
        }
    }

    /// Returns whether a value may be longer than its size: it is or ends in an array of length 0.
    pub(crate) fn is_open(&self) -> bool {
        match self.node() {
            Node::Array { each, len: 0, .. } => *each > 0,
            Node::Formatted { of, .. } => of.is_open(),
            Node::Record { fields, .. } => fields.iter().any(|field| field.is_open),
            _ => false,
        }
    }
}

/// Reads types, each once.
struct Reader<'b, 'a> {
    btf: &'b Btf<'a>,
    /// None while the type is being read.
    known: HashMap<u32, Option<Shape>>,
    bytes: usize,
}

impl<'b, 'a> Reader<'b, 'a> {
    fn new(btf: &'b Btf<'a>) -> Self {
        Self { btf, known: HashMap::new(), bytes: 0 }
    }

    fn read(&mut self, id: u32, depth: usize) -> Result<Shape> {
        match self.known.get(&id) {
            Some(Some(shape)) if depth + shape.height <= MAX_DEPTH => return Ok(shape.clone()),
            None if depth <= MAX_DEPTH => self.known.insert(id, None),
            _ => return Err(ShapeError::TooDeep),
        };
        let shape = self.node(id, depth).map(Shape::new)?;
        self.known.insert(id, Some(shape.clone()));
        Ok(shape)
    }

    fn node(&mut self, id: u32, depth: usize) -> Result<Node> {
        let look = self.btf.value_type(id)?;
        Ok(match look.form {
            Form::Number { size, signed } => Node::Integer { size, signed, big_endian: look.big_endian },
            Form::Bool => Node::Bool,
            Form::Char => Node::Char,
            Form::Enum(of) => Node::Enum { size: of.size, signed: of.signed, names: self.names(&of)? },
            Form::Record(of) => {
                let mut fields = Vec::new();
                self.collect(&of, 0, depth, &mut fields)?;
                record(self.btf.size(id)?, fields)
            }
            Form::Array { element, len } => {
                let each = self.btf.resolve_size(element).unwrap_or_default() as usize;
                Node::Array { element: self.read(element, depth + 1)?, each, len: len as usize }
            }
            Form::Other(_) => self.other(id, depth)?,
        })
    }

    /// Reads a type that no value can be written for.
    fn other(&mut self, id: u32, depth: usize) -> Result<Node> {
        let Some(one) = self.btf.skip_modifiers(id) else { return Ok(Node::Nothing) };
        let size = self.btf.resolve_size(id).unwrap_or_default();
        Ok(match one.kind {
            Kind::Ptr => Node::Pointer { size: size as usize },
            Kind::Float => Node::Float { size: size as usize },
            Kind::Int if size <= 16 => {
                let Int { encoding, offset, bits } = one.int();
                Node::Bits { size: size as usize, signed: encoding & Int::SIGNED != 0, offset, bits }
            }
            Kind::Var => return self.read(one.type_id(), depth + 1).map(|shape| (*shape.node).clone()),
            Kind::Datasec => {
                let variables =
                    one.vars().filter_map(|var| Some((var.offset.checked_mul(8)?, self.btf.get(var.type_id)?)));
                let variables = variables.filter(|(_, one)| one.kind == Kind::Var);
                let fields = variables.map(|(bit, one)| self.field(&one.text(), one.type_id(), (bit, None), depth + 1));
                record(size, fields.collect::<Result<_>>()?)
            }
            _ => Node::Nothing,
        })
    }

    /// Reads the names of an enum's values, sorted by value. Of several names of a value the first counts.
    fn names(&mut self, of: &Enumerators<'a>) -> Result<Box<[EnumName]>> {
        let mask = u64::MAX >> (64 - 8 * of.size);
        let mut names: Vec<EnumName> = Vec::new();
        for one in self.btf.enumerators(of) {
            let (name, value) = one?;
            self.count(name)?;
            names.push((value & mask, name.into()));
        }
        names.sort_by_key(|(value, _)| *value);
        names.dedup_by_key(|(value, _)| *value);
        Ok(names.into())
    }

    /// Collects the fields of a record, and in their places those of anonymous structs and unions in it.
    fn collect(&mut self, of: &Record<'a>, base: u32, depth: usize, into: &mut Vec<Field>) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(ShapeError::TooDeep);
        }
        for member in self.btf.members(of) {
            let member = member?;
            let Some(bit) = base.checked_add(member.bit) else { continue };
            if !member.name.is_empty() {
                into.push(self.field(member.name, member.type_id, (bit, member.width), depth + 1)?);
                continue;
            }
            self.count("")?;
            // An anonymous bit field is padding.
            if let Form::Record(inner) = self.btf.value_type(member.type_id)?.form {
                self.collect(&inner, bit, depth + 1, into)?;
            }
        }
        Ok(())
    }

    /// Reads a field at a bit, with its width if it is a bit field.
    fn field(&mut self, name: &str, id: u32, (bit, width): (u32, Option<u32>), depth: usize) -> Result<Field> {
        self.count(name)?;
        Ok(Field { name: name.into(), bit, width, shape: self.read(id, depth)?, is_open: false })
    }

    fn count(&mut self, name: &str) -> Result<()> {
        self.bytes += FIELD + name.len();
        if self.bytes > MAX_BYTES { Err(ShapeError::TooManyFields) } else { Ok(()) }
    }
}

/// Makes a record of fields: finds those that go on to its end, and gives each one a name of its own.
fn record(size: u32, mut fields: Vec<Field>) -> Node {
    let end = |field: &Field| match field.width {
        Some(width) => (u64::from(field.bit) + u64::from(width)).div_ceil(8),
        None => u64::from(field.bit) / 8 + field.shape.size() as u64,
    };
    let last = fields.iter().map(end).max().unwrap_or_default();
    for field in &mut fields {
        field.is_open = end(field) == last && field.width.is_none() && field.shape.is_open();
    }
    Node::Record { size: size as usize, fields: unique(fields).into() }
}

/// Gives each field that has the name of an earlier one the next free name, as `value_2`. In C only static variables of
/// several files can share one.
fn unique(mut fields: Vec<Field>) -> Vec<Field> {
    let mut names: HashSet<Box<str>> = fields.iter().map(|field| field.name.clone()).collect();
    if names.len() == fields.len() {
        return fields;
    }
    let (mut seen, mut numbers) = (HashSet::new(), HashMap::<Box<str>, usize>::new());
    for field in &mut fields {
        if seen.insert(field.name.clone()) {
            continue;
        }
        let number = numbers.entry(field.name.clone()).or_insert(1);
        field.name = loop {
            *number += 1;
            let name: Box<str> = format!("{}_{number}", field.name).into();
            if names.insert(name.clone()) {
                break name;
            }
        };
    }
    fields
}
