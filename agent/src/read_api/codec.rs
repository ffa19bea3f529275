//! `Codec`: what the bytes of a map mean, by the types of the object that defines it, and by what the kernel itself
//! puts into maps of its type. Pure.

use std::cell::RefCell;

use aya_obj::generated::bpf_map_type;
use serde_json::Value;
use sockeye_crds::names::{hex, parse_hex};
use sockeye_ebpf::{
    object::Object,
    values::{Budget, MapShapes, Mistake, Shape, settings},
};
use sockeye_read_api::route::Cpus;

use super::sum::sum;
use crate::model::{kernel::MapInfo, map_access::MapAccess, page::RawEntry, per_cpu};

/// The most bytes of JSON that the entries of a page make.
const BUDGET: usize = 4 << 20;

/// Decodes the entries of a map.
pub(super) struct Codec<'a> {
    name: &'a str,
    info: &'a MapInfo,
    object: Option<Object<'a>>,
    shapes: MapShapes,
    /// Why there are no types, or not all.
    untyped: String,
    budget: Budget,
    /// The first reason why something was not decoded.
    undecoded: RefCell<Option<String>>,
}

/// A value, decoded or not; or those of each processor.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decoded {
    pub value: Option<Value>,
    pub values: Vec<Value>,
}

impl<'a> Codec<'a> {
    /// Returns the codec of a map of this name, by the bytes of its object; or without, for this reason.
    pub(super) fn new(name: &'a str, info: &'a MapInfo, object: Result<&'a [u8], String>) -> Self {
        let read = |bytes| Object::read(bytes).map_err(|error| format!("the object can't be read: {error}"));
        let object = object.and_then(read);
        let shapes = match &object {
            Ok(object) => MapShapes::of(object, name).map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        let untyped = shapes.as_ref().err().cloned();
        Self {
            name,
            info,
            object: object.ok(),
            shapes: shapes.unwrap_or_default(),
            untyped: untyped.unwrap_or_else(|| "the map's definition does not say both types".to_owned()),
            budget: Budget::new(BUDGET),
            undecoded: RefCell::default(),
        }
    }

    /// Returns why some bytes were not decoded, if any were not.
    pub(super) fn undecoded(self) -> Option<String> {
        self.undecoded.into_inner()
    }

    /// Reads a key, as a spec's `entries[].key` writes it; where it is not known what keys are, as hexadecimal bytes.
    pub(super) fn encode_key(&self, key: &str) -> Result<Vec<u8>, String> {
        let size = self.info.key_size as usize;
        if let Some(object) = self.object.as_ref().filter(|_| self.shapes.key.is_some()) {
            let value = sockeye_crds::Value::Text(key.to_owned());
            let encoded = settings::encode_key(object, self.name, &value, self.info.max_entries);
            return encoded.map_err(|Mistake { at, what }| if at.is_empty() { what } else { format!("{at}: {what}") });
        }
        if self.has_slots() {
            let index = key.parse::<u32>().map_err(|_| format!("expected an index, got {key}"))?;
            return Ok(index.to_ne_bytes().to_vec());
        }
        let bytes = parse_hex(key).filter(|bytes| bytes.len() == size);
        bytes.ok_or_else(|| format!("expected {size} bytes in hexadecimal, since it is not known what the keys are"))
    }

    /// Decodes the key of an entry.
    pub(super) fn key(&self, key: &[u8]) -> Value {
        if key.is_empty() {
            return Value::Null;
        }
        let index = key.first_chunk().filter(|_| self.has_slots()).map(|bytes| u32::from_ne_bytes(*bytes));
        match &self.shapes.key {
            Some(shape) => self.decode(shape, key).unwrap_or_else(|why| self.raw(key, why)),
            None => index.map_or_else(|| self.raw(key, self.untyped.clone()), Value::from),
        }
    }

    /// Decodes the value of an entry.
    pub(super) fn value(&self, RawEntry { value, .. }: &RawEntry, cpus: Cpus) -> Decoded {
        let Some(value) = value else { return Decoded::default() };
        if !per_cpu::is_per_cpu(self.info.map_type) {
            let decoded = self.one_value(value).unwrap_or_else(|why| self.raw(value, why));
            return Decoded { value: Some(decoded), values: Vec::new() };
        }
        let values = || per_cpu::split(value, self.info.value_size as usize);
        match values().map(|value| self.one_value(value)).collect::<Result<Vec<Value>, String>>() {
            Ok(values) if cpus == Cpus::Sum => Decoded { value: Some(sum(values)), values: Vec::new() },
            Ok(values) => Decoded { value: None, values },
            Err(why) => Decoded { value: None, values: values().map(|value| self.raw(value, why.clone())).collect() },
        }
    }

    fn one_value(&self, bytes: &[u8]) -> Result<Value, String> {
        let short = || "the value is cut short".to_owned();
        match value_kind(self.info.map_type) {
            ValueKind::Bytes => self.decode(self.shapes.value.as_ref().ok_or_else(|| self.untyped.clone())?, bytes),
            ValueKind::Objects => bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes).into()).ok_or_else(short),
            ValueKind::Sockets => bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes).into()).ok_or_else(short),
        }
    }

    fn decode(&self, shape: &Shape, bytes: &[u8]) -> Result<Value, String> {
        shape.decode(bytes, &self.budget).map_err(|error| error.to_string())
    }

    /// Returns bytes in hexadecimal, and remembers why they are not decoded.
    fn raw(&self, bytes: &[u8], why: String) -> Value {
        self.undecoded.borrow_mut().get_or_insert(why);
        hex(bytes).into()
    }

    fn has_slots(&self) -> bool {
        MapAccess::of(self.info.map_type) == MapAccess::Slots
    }
}

/// The kind of a map's values, as the kernel gives them.
enum ValueKind {
    /// Bytes that programs wrote.
    Bytes,
    /// The ID of a program or a map.
    Objects,
    /// The cookie of a socket.
    Sockets,
}

fn value_kind(map_type: u32) -> ValueKind {
    use bpf_map_type::*;
    match bpf_map_type::try_from(map_type) {
        Ok(BPF_MAP_TYPE_PROG_ARRAY | BPF_MAP_TYPE_ARRAY_OF_MAPS | BPF_MAP_TYPE_HASH_OF_MAPS) => ValueKind::Objects,
        Ok(BPF_MAP_TYPE_SOCKMAP | BPF_MAP_TYPE_SOCKHASH | BPF_MAP_TYPE_REUSEPORT_SOCKARRAY) => ValueKind::Sockets,
        _ => ValueKind::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sockeye_ebpf::programs::TCP_EVENTS_BTF;

    use super::*;

    const ARRAY: u32 = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    const HASH: u32 = bpf_map_type::BPF_MAP_TYPE_HASH as u32;
    const PERCPU_HASH: u32 = bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH as u32;

    fn info(map_type: u32) -> MapInfo {
        MapInfo { map_type, key_size: 4, value_size: 4, max_entries: 10, ..MapInfo::default() }
    }

    fn entry(value: &[u8]) -> RawEntry {
        RawEntry { key: vec![0; 4], value: Some(value.to_vec()) }
    }

    #[test]
    fn without_types_bytes_are_hexadecimal_and_indices_numbers() {
        let why = || Err("no object".to_owned());
        let (array, hash) = (info(ARRAY), info(HASH));
        let codec = Codec::new("m", &array, why());
        assert_eq!((codec.key(&[3, 0, 0, 0]), codec.encode_key("3")), (json!(3), Ok(vec![3, 0, 0, 0])));
        assert!(codec.encode_key("three").is_err());
        let codec = Codec::new("m", &hash, why());
        assert_eq!((codec.key(&[3, 0, 0, 0]), codec.encode_key("03000000")), (json!("03000000"), Ok(vec![3, 0, 0, 0])));
        assert!(codec.encode_key("0300").unwrap_err().contains("4 bytes"));
        assert_eq!(codec.value(&entry(&[1, 2, 3, 4]), Cpus::Sum).value, Some(json!("01020304")));
        assert_eq!(codec.undecoded().as_deref(), Some("no object"));
    }

    #[test]
    fn values_of_processors_that_are_only_bytes_are_not_added() {
        let info = info(PERCPU_HASH);
        let codec = Codec::new("m", &info, Err("no object".to_owned()));
        let decoded = codec.value(&entry(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]), Cpus::Sum);
        assert_eq!(decoded, Decoded { value: None, values: vec![json!("01000000"), json!("02000000")] });
    }

    #[test]
    fn programs_maps_and_sockets_are_ids_whatever_the_types_say() {
        use bpf_map_type::{BPF_MAP_TYPE_PROG_ARRAY, BPF_MAP_TYPE_SOCKHASH};
        let (programs, sockets) = (info(BPF_MAP_TYPE_PROG_ARRAY as u32), info(BPF_MAP_TYPE_SOCKHASH as u32));
        let codec = Codec::new("my_map", &programs, Ok(TCP_EVENTS_BTF));
        assert_eq!(codec.value(&entry(&[7, 0, 0, 0]), Cpus::Sum).value, Some(json!(7)));
        let codec = Codec::new("my_map", &sockets, Ok(TCP_EVENTS_BTF));
        assert_eq!(codec.value(&entry(&[7, 0, 0, 0, 1, 0, 0, 0]), Cpus::Sum).value, Some(json!((1_u64 << 32) + 7)));
        assert_eq!(codec.value(&RawEntry::default(), Cpus::Sum), Decoded::default());
    }

    #[test]
    fn types_say_what_bytes_mean() {
        let info = info(ARRAY);
        let codec = Codec::new("my_map", &info, Ok(TCP_EVENTS_BTF));
        assert_eq!(codec.value(&entry(&[7, 0, 0, 0, 0, 0, 0, 0]), Cpus::Sum).value, Some(json!(7)));
        assert_eq!(codec.encode_key("9"), Ok(vec![9, 0, 0, 0]));
        assert!(codec.encode_key("10").unwrap_err().contains("from 0 to 9"));
        assert_eq!(codec.undecoded(), None);
        let codec = Codec::new("absent", &info, Ok(TCP_EVENTS_BTF));
        codec.value(&entry(&[7; 8]), Cpus::Sum);
        assert!(codec.undecoded().unwrap().contains("no such map"));
    }
}
