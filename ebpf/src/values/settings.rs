//! `Settings`: everything that a spec sets in an object, as bytes: global variables and the entries of maps. No IO.
//!
//! The operator encodes the settings before it dispatches a revision, to find mistakes. The agent encodes them again
//! from the same bytes and the same spec.

use std::{borrow::Cow, collections::BTreeMap};

use sockeye_crds::{
    Reason, Value,
    names::clip,
    program::{Entry, MapSpec},
};

use crate::{
    btf::Btf,
    kinds::map_type,
    object::{
        Object, ObjectError,
        maps::{Map, MapForm},
    },
    values::{
        encode::Encoder,
        list::{self, Lists},
        mistake::{Mistake, field, shown},
        number::prefix,
        variables::{self, Variable},
    },
};

/// The maximum size of all settings in bytes. The object determines the sizes of its types, so it could ask for any
/// amount.
const MAX_BYTES: usize = 4 << 20;

/// The types of maps whose entries can be kept in sync with a spec.
pub const SYNCED: [&str; 5] = ["Hash", "Array", "PercpuHash", "PercpuArray", "LpmTrie"];
/// The types of maps with keys and values that users can write.
const KEYED: [&str; 7] = ["Hash", "Array", "PercpuHash", "PercpuArray", "LruHash", "LruPercpuHash", "LpmTrie"];
/// The types of maps that have values without keys.
const KEYLESS: [&str; 3] = ["Queue", "Stack", "BloomFilter"];

/// A key and a value. The key is empty for maps without keys.
pub type Encoded = (Vec<u8>, Vec<u8>);

/// Everything that a spec sets in an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The values of global variables by section, each with its offset.
    pub globals: BTreeMap<String, Vec<(usize, Vec<u8>)>>,
    /// The entries of new maps, by map, in the spec's order.
    pub entries: BTreeMap<String, Vec<Encoded>>,
    /// The bits that each of these values names, in the same order.
    pub named: BTreeMap<String, Vec<Vec<u8>>>,
}

/// The reason why settings cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The object cannot be read.
    #[error("spec.bytecode: the object is refused: {0}")]
    Object(#[from] ObjectError),
    /// The spec has a mistake.
    #[error(transparent)]
    Mistake(#[from] Mistake),
}

impl SettingsError {
    /// Returns the reason for the condition.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Object(_) => Reason::InvalidObject,
            Self::Mistake(_) => Reason::InvalidSpec,
        }
    }
}

impl Settings {
    /// Encodes the `globals` and `maps` of a spec by the object's types. The spec names no list of entries.
    pub fn read(
        object: &Object<'_>,
        globals: &BTreeMap<String, Value>,
        specs: &[MapSpec],
    ) -> Result<Self, SettingsError> {
        Self::read_with(object, globals, specs, &Lists::new())
    }

    /// Encodes the `globals` and `maps` of a spec by the object's types; `lists` has the lists of entries that it
    /// names.
    pub fn read_with(
        object: &Object<'_>,
        globals: &BTreeMap<String, Value>,
        specs: &[MapSpec],
        lists: &Lists,
    ) -> Result<Self, SettingsError> {
        if globals.is_empty() && !specs.iter().any(MapSpec::lists_entries) {
            return Ok(Self::default());
        }
        let Some(btf) = object.btf() else {
            let what = match object.btf_fault() {
                Some(fault) => format!("the object's BTF, which says what variables and maps are made of: {fault}"),
                None => {
                    "the object has no BTF, which says what variables and maps are made of: compile it with -g, and \
                         strip it with llvm-strip -g"
                        .to_owned()
                }
            };
            let at = if globals.is_empty() { "spec.maps" } else { "spec.globals" };
            return Err(Mistake::new(what).within(at).into());
        };
        let mut writer = Writer { encoder: Encoder::new(btf), btf, left: MAX_BYTES };
        let mut settings = Self::default();
        if !globals.is_empty() {
            let variables = variables(object, btf);
            for (name, value) in globals {
                let at = format!("spec.globals.{}", field(name));
                let (map, offset, bytes) = writer.global(name, value, &variables).map_err(|m| m.within(&at))?;
                settings.globals.entry(map).or_default().push((offset, bytes));
            }
        }
        for (i, spec) in specs.iter().enumerate().filter(|(_, spec)| spec.lists_entries()) {
            // check_map refuses a map that the object lacks.
            let Some(map) = object.maps.iter().find(|map| map.name == spec.name) else { continue };
            let (at, listed) = listed(spec, lists);
            let at = format!("spec.maps[{i}].{at}");
            let entries = listed.and_then(|listed| writer.entries(map, spec, &listed));
            let (entries, named) = entries.map_err(|mistake| mistake.within(&at))?;
            settings.entries.insert(spec.name.clone(), entries);
            settings.named.insert(spec.name.clone(), named);
        }
        Ok(settings)
    }
}

/// Encodes a key of a map, as `entries[].key` of a spec writes it. An array has so many entries.
///
/// # Errors
/// Fails with the mistake in the key, or if the object does not say what the keys are.
pub fn encode_key(object: &Object<'_>, map: &str, key: &Value, max_entries: u32) -> Result<Vec<u8>, Mistake> {
    let typed = object.btf().zip(object.maps.iter().find(|one| one.name == map));
    let (btf, map) = typed.ok_or_else(|| Mistake::new("the object does not say what the keys are"))?;
    Writer { encoder: Encoder::new(btf), btf, left: MAX_BYTES }.key(map, key, max_entries.into())
}

/// The entries of a map, each with its place.
type Listed<'a> = Vec<(String, Cow<'a, Entry>)>;

/// Returns the entries of a map, each with its place in the field that is named.
fn listed<'a>(spec: &'a MapSpec, lists: &Lists) -> (&'static str, Result<Listed<'a>, Mistake>) {
    if spec.entries_from.is_none() {
        let entries = spec.entries.iter().enumerate();
        return ("entries", Ok(entries.map(|(i, entry)| (format!("[{i}]"), Cow::Borrowed(entry))).collect()));
    }
    let unread = || Mistake::new("the list has not been read");
    let entries = lists.get(&spec.name).ok_or_else(unread).and_then(|bytes| list::parse(bytes));
    let place = |(line, entry)| (format!("[line {line}]"), Cow::Owned(entry));
    ("entriesFrom", entries.map(|entries| entries.into_iter().map(place).collect()))
}

/// A global variable, and the map that holds it.
type Placed<'a> = (&'a str, Variable<'a>);

/// Returns all global variables by name. Several files that were linked into one object may each have one of a name.
fn variables<'a>(object: &Object<'a>, btf: &Btf<'a>) -> BTreeMap<&'a str, Vec<Placed<'a>>> {
    let mut all: BTreeMap<&str, Vec<Placed<'_>>> = BTreeMap::new();
    let is_set = |map: &&Map<'_>| map.form.is_data() && map.form != MapForm::Kconfig && map.fault.is_none();
    for map in object.maps.iter().filter(is_set) {
        for variable in variables::of_map(object, btf, map) {
            all.entry(variable.name).or_default().push((map.name, variable));
        }
    }
    all
}

/// Encodes the settings of one spec.
struct Writer<'a> {
    encoder: Encoder<'a>,
    btf: &'a Btf<'a>,
    /// The number of bytes that may still be written.
    left: usize,
}

impl Writer<'_> {
    /// Returns a zeroed buffer, within the bound on all settings.
    fn zeroes(&mut self, size: usize) -> Result<Vec<u8>, Mistake> {
        let left = self.left.checked_sub(size);
        self.left = left.ok_or_else(|| Mistake::new(format!("all that is set has more than {MAX_BYTES} bytes")))?;
        Ok(vec![0; size])
    }

    fn global(
        &mut self,
        name: &str,
        value: &Value,
        variables: &BTreeMap<&str, Vec<Placed<'_>>>,
    ) -> Result<(String, usize, Vec<u8>), Mistake> {
        let variable = variables.get(name).ok_or_else(|| {
            let names: Vec<String> = variables.keys().map(|name| field(name)).collect();
            let there = if names.is_empty() { "none".to_owned() } else { clip(&names.join(", "), 512) };
            Mistake::new(format!("the object has no such global variable; it has: {there}"))
        })?;
        let [(map, Variable { offset, size, type_id, .. })] = variable[..] else {
            let places = variable.iter().map(|(map, variable)| format!("{map} at byte {}", variable.offset));
            let places = clip(&places.collect::<Vec<_>>().join(", "), 256);
            return Err(Mistake::new(format!(
                "the object has several variables of that name, in {places}: give each a name of its own"
            )));
        };
        let mut bytes = self.zeroes(size)?;
        self.encoder.encode(type_id, value, &mut bytes)?;
        Ok((map.to_owned(), offset, bytes))
    }

    /// Encodes the entries of a map; returns them, and the bits that each value names.
    fn entries(
        &mut self,
        map: &Map<'_>,
        spec: &MapSpec,
        listed: &Listed<'_>,
    ) -> Result<(Vec<Encoded>, Vec<Vec<u8>>), Mistake> {
        let kind = map_type::name(map.definition.map_type);
        let has_keys = KEYED.contains(&kind.as_ref());
        if map.form.is_data() {
            return Err(Mistake::new("it is global data: set spec.globals instead"));
        }
        if !has_keys && !KEYLESS.contains(&kind.as_ref()) {
            let what = format!(
                "a map of type {kind} can't be given entries, only {} and {} can",
                KEYED.join(", "),
                KEYLESS.join(", ")
            );
            return Err(Mistake::new(what));
        }
        let most = spec.max_entries.unwrap_or(map.definition.max_entries.into());
        if i64::try_from(listed.len()).is_ok_and(|count| count > most) {
            return Err(Mistake::new(format!("{} entries are more than the map's {most}", listed.len())));
        }
        let mut keys = BTreeMap::new();
        let (mut entries, mut named) = (Vec::new(), Vec::new());
        for (place, entry) in listed {
            let Entry { key, value } = &**entry;
            let within = |mistake: Mistake, part: &str| mistake.within(&format!("{place}.{part}"));
            let key = match (key, has_keys) {
                (Some(key), true) => self.key(map, key, most).map_err(|m| within(m, "key"))?,
                (None, false) => Vec::new(),
                (None, true) => return Err(within(Mistake::new("it must be set"), "key")),
                (Some(_), false) => {
                    return Err(within(Mistake::new(format!("a {kind} has no keys: leave it out")), "key"));
                }
            };
            if has_keys && let Some(other) = keys.insert(key.clone(), place) {
                let field = if spec.entries_from.is_some() { "" } else { "entries" };
                return Err(within(Mistake::new(format!("it is the key of {field}{other}, too")), "key"));
            }
            let mut bits = self.zeroes(map.definition.value_size as usize).map_err(|m| within(m, "value"))?;
            let value = self
                .typed(map.definition.value_type, map.definition.value_size, value, Some(&mut bits))
                .map_err(|m| within(m, "value"))?;
            entries.push((key, value));
            named.push(bits);
        }
        Ok((entries, named))
    }

    fn key(&mut self, map: &Map<'_>, key: &Value, most: i64) -> Result<Vec<u8>, Mistake> {
        let kind = map_type::name(map.definition.map_type);
        if let ("LpmTrie", Value::Text(text)) = (kind.as_ref(), key)
            && !text.trim_start().starts_with(['{', '['])
        {
            let size = map.definition.key_size as usize;
            return prefix(text, size).map_err(|what| {
                Mistake::new(format!("expected an address prefix as 10.0.0.0/8, got {}: {what}", shown(&key.into())))
            });
        }
        let mut bytes = self.typed(map.definition.key_type, map.definition.key_size, key, None)?;
        if kind == "LpmTrie" {
            let (prefix, most) = (prefix_length(&bytes), 8 * bytes.len().saturating_sub(4));
            if prefix > most {
                return Err(Mistake::new(format!("its prefix must have 0 to {most} bits, and has {prefix}")));
            }
            clear_host_bits(&mut bytes);
        }
        let index = bytes.first_chunk().copied().map_or(0, u32::from_le_bytes);
        if kind.ends_with("Array") && i64::from(index) >= most {
            return Err(Mistake::new(format!("expected an index from 0 to {}, got {}", most - 1, shown(&key.into()))));
        }
        Ok(bytes)
    }

    /// Encodes a key or value, and checks that its type has the size that the map's definition says.
    /// `named` gets the bits that the value names.
    fn typed(
        &mut self,
        type_id: u32,
        size: u32,
        value: &Value,
        named: Option<&mut Vec<u8>>,
    ) -> Result<Vec<u8>, Mistake> {
        let type_id = Some(type_id).filter(|id| *id != 0).ok_or_else(|| {
            Mistake::new(
                "the map's definition says no type of it: define the map in .maps, with __type(key, ...) and \
                 __type(value, ...)",
            )
        })?;
        let typed = self.btf.size(type_id)?;
        if typed != size {
            return Err(Mistake::new("the map's definition says one size of it, and its type another"));
        }
        let mut bytes = self.zeroes(typed as usize)?;
        match named {
            Some(named) => self.encoder.encode_named(type_id, value, &mut bytes, named)?,
            None => self.encoder.encode(type_id, value, &mut bytes)?,
        }
        Ok(bytes)
    }
}

/// Returns the number of bits in a prefix of a trie's key (`struct bpf_lpm_trie_key`).
pub fn prefix_length(key: &[u8]) -> usize {
    key.first_chunk().map_or(0, |prefix| u32::from_ne_bytes(*prefix) as usize)
}

/// Clears the bits of a trie's key beyond its prefix, which the kernel does not compare (`longest_prefix_match` in
/// kernel/bpf/lpm_trie.c): keys that differ there alone are one.
pub fn clear_host_bits(key: &mut [u8]) {
    let prefix = prefix_length(key);
    for (i, byte) in key.iter_mut().skip(4).enumerate().skip(prefix / 8) {
        let kept = prefix.saturating_sub(8 * i).min(8);
        *byte &= 0xff_u8.checked_shl(8 - kept as u32).unwrap_or_default();
    }
}
