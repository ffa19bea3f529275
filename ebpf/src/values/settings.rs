//! `Settings`: everything that a spec sets in an object, as bytes: global variables and the entries of maps. No IO.
//!
//! The operator encodes the settings before it dispatches a revision, to find mistakes. The agent encodes them again
//! from the same bytes and the same spec.

use std::collections::BTreeMap;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use sockeye_crds::{
    Reason, Value,
    names::clip,
    program::{Entry, MapSpec},
};

use crate::{
    btf::Btf,
    contain::contain,
    object::{
        ObjectError,
        elf::{self, Elf, section_data},
        maps::{self, Map},
    },
    values::{
        encode::Encoder,
        mistake::{Mistake, field, shown},
        number::prefix,
    },
};

/// The maximum size of all settings in bytes. The object determines the sizes of its types, so it could ask for any
/// amount.
const MAX_BYTES: usize = 4 << 20;
/// The maximum number of variables in a section.
const MAX_VARIABLES: usize = 16_384;

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
    /// Encodes the `globals` and `maps` of a spec by the object's types.
    pub fn read(bytes: &[u8], globals: &BTreeMap<String, Value>, maps: &[MapSpec]) -> Result<Self, SettingsError> {
        if globals.is_empty() && maps.iter().all(|map| map.entries.is_empty()) {
            return Ok(Self::default());
        }
        contain(|| Self::encode(bytes, globals, maps))
            .unwrap_or_else(|panicked| Err(ObjectError::Defect(panicked).into()))
    }

    fn encode(bytes: &[u8], globals: &BTreeMap<String, Value>, specs: &[MapSpec]) -> Result<Self, SettingsError> {
        let elf = elf::open(bytes)?;
        let btf = section_data(&elf, ".BTF")?.map(Btf::parse).transpose().map_err(ObjectError::from)?;
        let maps = maps::read(&elf, btf.as_ref())?;
        let Some(btf) = &btf else {
            let what = "the object has no BTF, which says what variables and maps are made of: compile it with -g";
            let at = if globals.is_empty() { "spec.maps" } else { "spec.globals" };
            return Err(Mistake::new(what).within(at).into());
        };
        let mut writer = Writer { encoder: Encoder::new(btf), btf, left: MAX_BYTES };
        let mut settings = Self::default();
        if !globals.is_empty() {
            let variables = variables(&elf, btf, &maps)?;
            for (name, value) in globals {
                let at = format!("spec.globals.{}", field(name));
                let (map, offset, bytes) = writer.global(name, value, &variables).map_err(|m| m.within(&at))?;
                settings.globals.entry(map).or_default().push((offset, bytes));
            }
        }
        for (i, spec) in specs.iter().enumerate().filter(|(_, spec)| !spec.entries.is_empty()) {
            // check_map refuses a map that the object lacks.
            let Some(map) = maps.iter().find(|map| map.info.name == spec.name) else { continue };
            let at = format!("spec.maps[{i}].entries");
            let entries = writer.entries(map, spec).map_err(|mistake| mistake.within(&at))?;
            settings.entries.insert(spec.name.clone(), entries);
        }
        Ok(settings)
    }
}

/// A global variable.
struct Variable {
    map: String,
    offset: usize,
    size: usize,
    type_id: u32,
}

/// Returns all global variables by name; `None` for a name that several sections have.
fn variables<'a>(
    elf: &Elf<'a>,
    btf: &Btf<'a>,
    maps: &[Map],
) -> Result<BTreeMap<&'a str, Option<Variable>>, ObjectError> {
    let mut all = BTreeMap::new();
    for map in maps.iter().filter(|map| map.info.definition.is_data()) {
        let mut symbols = BTreeMap::new();
        for symbol in elf.symbols().filter(|symbol| symbol.section_index() == Some(map.section)) {
            symbols.insert(symbol.name().map_err(ObjectError::elf)?, (symbol.address(), symbol.size()));
        }
        let len = elf.section_by_index(map.section).map_err(ObjectError::elf)?.size();
        for (name, type_id) in btf.variables(&map.info.name, MAX_VARIABLES)? {
            let Some(&(address, size)) = symbols.get(name) else { continue };
            let within = address.checked_add(size).is_some_and(|end| end <= len);
            if !within || btf.size(type_id).map(u64::from) != Ok(size) {
                continue;
            }
            let (offset, size) = (address as usize, size as usize);
            let variable = Variable { map: map.info.name.clone(), offset, size, type_id };
            all.entry(name).and_modify(|known| *known = None).or_insert(Some(variable));
        }
    }
    Ok(all)
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
        variables: &BTreeMap<&str, Option<Variable>>,
    ) -> Result<(String, usize, Vec<u8>), Mistake> {
        let variable = variables.get(name).ok_or_else(|| {
            let names: Vec<String> = variables.keys().map(|name| field(name)).collect();
            let there = if names.is_empty() { "none".to_owned() } else { clip(&names.join(", "), 512) };
            Mistake::new(format!("the object has no such global variable; it has: {there}"))
        })?;
        let Variable { map, offset, size, type_id } =
            variable.as_ref().ok_or_else(|| Mistake::new("the object has several variables of that name"))?;
        let mut bytes = self.zeroes(*size)?;
        self.encoder.encode(*type_id, value, &mut bytes)?;
        Ok((map.clone(), *offset, bytes))
    }

    fn entries(&mut self, map: &Map, spec: &MapSpec) -> Result<Vec<Encoded>, Mistake> {
        let kind = map.info.map_type.as_str();
        let has_keys = KEYED.contains(&kind);
        if map.info.definition.is_data() {
            return Err(Mistake::new("it is global data: set spec.globals instead"));
        }
        if !has_keys && !KEYLESS.contains(&kind) {
            let what = format!(
                "a map of type {kind} can't be given entries, only {} and {} can",
                KEYED.join(", "),
                KEYLESS.join(", ")
            );
            return Err(Mistake::new(what));
        }
        let most = spec.max_entries.unwrap_or(map.info.max_entries);
        if i64::try_from(spec.entries.len()).is_ok_and(|count| count > most) {
            return Err(Mistake::new(format!("{} entries are more than the map's {most}", spec.entries.len())));
        }
        let mut keys = BTreeMap::new();
        let mut entries = Vec::new();
        for (i, Entry { key, value }) in spec.entries.iter().enumerate() {
            let within = |mistake: Mistake, part: &str| mistake.within(&format!("[{i}].{part}"));
            let key = match (key, has_keys) {
                (Some(key), true) => self.key(map, key, most).map_err(|m| within(m, "key"))?,
                (None, false) => Vec::new(),
                (None, true) => return Err(within(Mistake::new("it must be set"), "key")),
                (Some(_), false) => {
                    return Err(within(Mistake::new(format!("a {kind} has no keys: leave it out")), "key"));
                }
            };
            if has_keys && let Some(other) = keys.insert(key.clone(), i) {
                return Err(within(Mistake::new(format!("it is the key of entries[{other}], too")), "key"));
            }
            let value = self.typed(map.value_type, map.info.value_size_bytes, value).map_err(|m| within(m, "value"))?;
            entries.push((key, value));
        }
        Ok(entries)
    }

    fn key(&mut self, map: &Map, key: &Value, most: i64) -> Result<Vec<u8>, Mistake> {
        if let ("LpmTrie", Value::Text(text)) = (map.info.map_type.as_str(), key)
            && !text.trim_start().starts_with(['{', '['])
        {
            let size = usize::try_from(map.info.key_size_bytes).unwrap_or_default();
            return prefix(text, size).map_err(|what| {
                Mistake::new(format!("expected an address prefix as 10.0.0.0/8, got {}: {what}", shown(&key.into())))
            });
        }
        let bytes = self.typed(map.key_type, map.info.key_size_bytes, key)?;
        let index = bytes.first_chunk().copied().map_or(0, u32::from_le_bytes);
        if map.info.map_type.ends_with("Array") && i64::from(index) >= most {
            return Err(Mistake::new(format!("expected an index from 0 to {}, got {}", most - 1, shown(&key.into()))));
        }
        Ok(bytes)
    }

    /// Encodes a key or value, and checks that its type has the size that the map's definition says.
    fn typed(&mut self, type_id: Option<u32>, size: i64, value: &Value) -> Result<Vec<u8>, Mistake> {
        let type_id = type_id.ok_or_else(|| {
            Mistake::new(
                "the map's definition says no type of it: define the map in .maps, with __type(key, ...) and \
                 __type(value, ...)",
            )
        })?;
        let typed = self.btf.size(type_id)?;
        if i64::from(typed) != size {
            return Err(Mistake::new("the map's definition says one size of it, and its type another"));
        }
        let mut bytes = self.zeroes(typed as usize)?;
        self.encoder.encode(type_id, value, &mut bytes)?;
        Ok(bytes)
    }
}
