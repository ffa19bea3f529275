//! Aliases: names that replace the names of sections which aya-obj does not know (`ProgramSection::from_str`). aya-obj
//! uses a section's type only to refuse unknown ones; the agent takes the type from [`crate::kinds::section`]. No IO.
//!
//! An alias has the same length as the name, so nothing in the file moves. It differs only before the first `/`,
//! because linkers let names share their ends, and a function's name may be the end of its section's. The prefix of an
//! alias, `fentry`, accepts any suffix and is no socket or cgroup type.

use std::borrow::Cow;

use object::{Object as _, ObjectSection as _, SectionKind};

use crate::object::{ObjectError, elf::Elf};

/// Returns the alias of a section that aya-obj does not know.
pub(crate) fn of(section: &str) -> Option<String> {
    const UNKNOWN: [&str; 6] = [
        "sk_skb/verdict",
        "cgroup/connect_unix",
        "cgroup/sendmsg_unix",
        "cgroup/recvmsg_unix",
        "cgroup/getpeername_unix",
        "cgroup/getsockname_unix",
    ];
    let is = |name: &&str| section.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let (_, rest) = UNKNOWN.iter().find(|name| is(name)).and_then(|_| section.split_once('/'))?;
    Some(format!("fentry/{rest}"))
}

/// Returns the file with all such sections that have programs renamed. The names are in the string tables, and in the
/// BTF, which names sections too.
pub(crate) fn rename<'a, 's>(
    bytes: &'a [u8],
    sections: impl Iterator<Item = &'s str>,
) -> Result<Cow<'a, [u8]>, ObjectError> {
    let aliases: Vec<(&str, String)> = sections.filter_map(|name| Some((name, of(name)?))).collect();
    if aliases.is_empty() {
        return Ok(Cow::Borrowed(bytes));
    }
    let elf = Elf::parse(bytes).map_err(ObjectError::elf)?;
    let mut renamed = bytes.to_vec();
    let tables = elf.sections().filter(|s| s.kind() == SectionKind::Metadata || s.name() == Ok(".BTF"));
    for (start, len) in tables.filter_map(|section| section.file_range()) {
        let range = usize::try_from(start).ok().zip(usize::try_from(start.saturating_add(len)).ok());
        let Some(table) = range.and_then(|(start, end)| renamed.get_mut(start..end)) else { continue };
        for (name, alias) in &aliases {
            replace(table, name.as_bytes(), alias.as_bytes());
        }
    }
    Ok(Cow::Owned(renamed))
}

/// Replaces each NUL-terminated `from` by `to`, which has the same length.
fn replace(table: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(found) = table.get(at..at + from.len() + 1) {
        if found.split_last() == Some((&0, from)) && to.len() == from.len() {
            table[at..at + from.len()].copy_from_slice(to);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_has_the_length_of_the_name() {
        for name in ["sk_skb/verdict", "sk_skb/verdict/mine", "cgroup/connect_unix", "cgroup/getsockname_unix/x"] {
            let alias = of(name).unwrap();
            assert_eq!(alias.len(), name.len(), "{alias}");
            assert!(alias.parse::<aya_obj::ProgramSection>().is_ok(), "{alias}");
        }
        for name in ["sk_skb/verdictx", "sk_skb/stream_verdict", "cgroup/connect4", "cgroup/bind_unix"] {
            assert_eq!(of(name), None);
        }
    }

    #[test]
    fn only_whole_strings_are_replaced() {
        let mut table = *b"\0.relsk_skb/verdict\0sk_skb/verdict/\0sk_skb/verdict";
        replace(&mut table, b"sk_skb/verdict", b"fentry/verdict");
        assert_eq!(&table, b"\0.relfentry/verdict\0sk_skb/verdict/\0sk_skb/verdict");
    }
}
