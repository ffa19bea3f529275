//! `Values`: the values of the kernel's configuration that an object reads (`__kconfig`), as libbpf sets them
//! (`bpf_object__process_kconfig_line`).

use std::collections::BTreeMap;

use super::{Kernel, LinkError};
use crate::object::{
    Object,
    externs::{Config, ConfigForm, Extern, ExternKind},
};

/// The values to find, and the map's content.
pub(super) struct Values<'o, 'a> {
    object: &'o Object<'a>,
    content: Vec<u8>,
    /// By name: the variable, and the function that reads it.
    wanted: BTreeMap<&'a str, (usize, &'o str)>,
}

impl<'o, 'a> Values<'o, 'a> {
    /// Prepares the content of the map with the object's values.
    pub(super) fn new(object: &'o Object<'a>, map: Option<usize>) -> Self {
        let size = map.and_then(|map| object.maps.get(map)).map_or(0, |map| map.definition.value_size as usize);
        // The map's fault, if it is too large, keeps it from being selected.
        let is_sound = map.and_then(|map| object.maps.get(map)).is_some_and(|map| map.fault.is_none());
        Self { object, content: vec![0; if is_sound { size } else { 0 }], wanted: BTreeMap::new() }
    }

    /// Wants the value of an extern, which a function reads.
    pub(super) fn want(&mut self, index: usize, function: &'o str) {
        if let Some(one) = self.object.externs.get(index) {
            self.wanted.insert(one.name, (index, function));
        }
    }

    /// Finds all values and returns the map's content. Those that nobody reads are set too, where they can be.
    pub(super) fn fill(mut self, kernel: &dyn Kernel, notes: &mut Vec<String>) -> Result<Vec<u8>, LinkError> {
        let wanted = std::mem::take(&mut self.wanted);
        if self.content.is_empty() {
            return Ok(self.content);
        }
        let is_config = |one: &Extern<'_>| matches!(one.kind, ExternKind::Config(_));
        let all = self.object.externs.iter().enumerate().filter(|(_, one)| is_config(one));
        let (mut configured, own): (BTreeMap<&str, usize>, BTreeMap<&str, usize>) =
            all.map(|(index, one)| (one.name, index)).partition(|(name, _)| name.starts_with("CONFIG_"));
        for (name, index) in own {
            let set = self.own(name, index, kernel).and_then(|value| self.set_number(index, value));
            check(name, &wanted, set)?;
        }
        // Reading the configuration costs more than all else.
        let text = if configured.is_empty() { None } else { kernel.config() };
        for line in text.unwrap_or_default().lines() {
            let Some((name, value)) = line.split_once('=').filter(|_| line.starts_with("CONFIG_")) else { continue };
            let Some(index) = configured.remove(name) else { continue };
            let set = self.set(index, value);
            check(name, &wanted, set)?;
        }
        let absent = match text {
            Some(_) => "this kernel's configuration does not set it",
            None => {
                "this node does not show its kernel's configuration: there is no /proc/config.gz, and the chart's \
                 value agent.kernelConfig names no file"
            }
        };
        for (name, index) in configured {
            if !self.object.externs.get(index).is_some_and(|one| one.is_weak) {
                check(name, &wanted, Err(absent.to_owned()))?;
            } else if let (None, Some((_, function))) = (text, wanted.get(name)) {
                notes.push(format!("function {function} reads {name} as 0: {absent}"));
            }
        }
        Ok(self.content)
    }

    /// Returns a value that does not come from the configuration.
    fn own(&self, name: &str, index: usize, kernel: &dyn Kernel) -> Result<u64, String> {
        match name {
            "LINUX_KERNEL_VERSION" => Ok(kernel.version().into()),
            "LINUX_HAS_BPF_COOKIE" => Ok(kernel.features().bpf_cookie.into()),
            "LINUX_HAS_SYSCALL_WRAPPER" => Ok(kernel.features().syscall_wrapper.into()),
            _ if name.starts_with("LINUX_") && self.object.externs.get(index).is_some_and(|one| one.is_weak) => Ok(0),
            _ => Err("libbpf and sockeye give no such value: there are CONFIG_..., LINUX_KERNEL_VERSION, \
                      LINUX_HAS_BPF_COOKIE and LINUX_HAS_SYSCALL_WRAPPER"
                .to_owned()),
        }
    }

    fn config(&self, index: usize) -> Option<Config> {
        match self.object.externs.get(index)?.kind {
            ExternKind::Config(config) => Some(config),
            _ => None,
        }
    }

    /// Sets the value that the configuration has.
    fn set(&mut self, index: usize, value: &str) -> Result<(), String> {
        let config = self.config(index).ok_or("it is no value of the configuration")?;
        match value.bytes().next() {
            Some(letter @ (b'y' | b'n' | b'm')) => {
                let number = match (config.form, letter) {
                    (ConfigForm::Bool, b'm') => return Err("it is m, a module, which a bool can't be".to_owned()),
                    (ConfigForm::Bool, _) => u64::from(letter == b'y'),
                    // enum libbpf_tristate: TRI_NO, TRI_YES, TRI_MODULE
                    (ConfigForm::Tristate, b'n') => 0,
                    (ConfigForm::Tristate, b'y') => 1,
                    (ConfigForm::Tristate, _) => 2,
                    (ConfigForm::Char { .. }, _) => letter.into(),
                    _ => return Err(format!("it is {value}, which a bool, a char or an enum libbpf_tristate can be")),
                };
                self.put(config, &number.to_le_bytes())
            }
            Some(b'"') => {
                let text =
                    value.strip_prefix('"').and_then(|text| text.strip_suffix('"')).ok_or("it is no whole text")?;
                if config.form != ConfigForm::Text {
                    return Err("it is text, which an array of char can be".to_owned());
                }
                // libbpf cuts what is too long, and ends it with NUL.
                let room = (config.size as usize).saturating_sub(1);
                let text = text.as_bytes().get(..room).unwrap_or(text.as_bytes());
                self.put(config, text)
            }
            _ => {
                let number = parse(value).ok_or_else(|| format!("it is {value}, which is no number"))?;
                match config.form {
                    ConfigForm::Int { .. } | ConfigForm::Char { .. } => self.set_number(index, number),
                    _ => Err("it is a number, which an integer can be".to_owned()),
                }
            }
        }
    }

    /// Sets a number (libbpf's `set_kcfg_value_num`).
    fn set_number(&mut self, index: usize, number: u64) -> Result<(), String> {
        let config = self.config(index).ok_or("it is no value of the configuration")?;
        let bits = 8 * config.size;
        let fits = match config.form {
            ConfigForm::Bool => number <= 1,
            _ if bits >= 64 => true,
            ConfigForm::Int { signed: true } | ConfigForm::Char { signed: true } => {
                number.wrapping_add(1 << (bits - 1)) < 1 << bits
            }
            ConfigForm::Int { signed: false } | ConfigForm::Char { signed: false } => number >> bits == 0,
            ConfigForm::Tristate | ConfigForm::Text => {
                return Err("it is a number, which an integer, a char or a bool can be".to_owned());
            }
        };
        if !fits {
            return Err(format!("{number} does not fit into {} bytes", config.size));
        }
        self.put(config, &number.to_le_bytes())
    }

    /// Writes the first bytes of a value, as many as the variable has.
    fn put(&mut self, config: Config, bytes: &[u8]) -> Result<(), String> {
        let (start, size) = (config.offset as usize, (config.size as usize).min(bytes.len()));
        let place = start.checked_add(size).and_then(|end| self.content.get_mut(start..end));
        let place = place.ok_or("it lies outside .kconfig")?;
        place.copy_from_slice(bytes.get(..size).unwrap_or_default());
        Ok(())
    }
}

/// Refuses a value that can't be given to a function that reads it.
fn check(name: &str, wanted: &BTreeMap<&str, (usize, &str)>, set: Result<(), String>) -> Result<(), LinkError> {
    match (set, wanted.get(name)) {
        (Err(why), Some((_, function))) => {
            Err(LinkError::Config { function: (*function).to_owned(), name: name.to_owned(), why })
        }
        _ => Ok(()),
    }
}

/// Reads a number as C's `strtoull(text, NULL, 0)` does, to its end.
fn parse(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let number = u64::from_str_radix(digits, radix).ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn numbers_are_read_as_strtoull_does() {
        for (text, number) in [
            ("250", Some(250)),
            ("0x1000000", Some(0x0100_0000)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("-1", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("0x", None),
            ("12z", None),
            ("--1", None),
            ("08", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }
}
