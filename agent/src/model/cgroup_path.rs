//! Cgroup paths, relative to the node's cgroup root: "/kubepods/pod1", or "/" for the root itself. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Returns whether `path` is `ancestor` or lies below it.
pub fn is_within(path: &str, ancestor: &str) -> bool {
    ancestor == "/" || path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns a path and all paths above it, the lowest first.
pub fn with_ancestors(path: &str) -> impl Iterator<Item = &str> {
    let above = path.rmatch_indices('/').map(move |(end, _)| if end == 0 { "/" } else { &path[..end] });
    std::iter::once(path).chain(above.filter(move |_| path != "/"))
}

/// Drops each path that lies below another one: a program attached to both cgroups would run twice for the lower one.
pub fn highest<T: Clone>(paths: &BTreeMap<String, T>) -> BTreeMap<String, T> {
    let all: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let is_below_another = |path: &str| with_ancestors(path).skip(1).any(|ancestor| all.contains(ancestor));
    paths.iter().filter(|(path, _)| !is_below_another(path)).map(|(path, of)| (path.clone(), of.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_within_compares_whole_path_components() {
        for (path, ancestor, expected) in
            [("/a/b", "/a", true), ("/a", "/a", true), ("/ab", "/a", false), ("/a", "/", true), ("/a", "/a/b", false)]
        {
            assert_eq!(is_within(path, ancestor), expected, "{path} {ancestor}");
        }
    }

    #[test]
    fn a_path_is_followed_by_all_above_it() {
        for (path, all) in [("/a/b", vec!["/a/b", "/a", "/"]), ("/a", vec!["/a", "/"]), ("/", vec!["/"])] {
            assert_eq!(with_ancestors(path).collect::<Vec<_>>(), all);
        }
    }

    #[test]
    fn highest_drops_paths_below_another_path() {
        let highest = |paths: &[&str]| {
            let paths = paths.iter().map(|path| ((*path).to_owned(), ())).collect();
            highest(&paths).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(highest(&["/", "/a", "/a/b"]), ["/"]);
        assert_eq!(highest(&["/a/b", "/a", "/ab", "/a"]), ["/a", "/ab"]);
        assert_eq!(highest(&["/x/y", "/x/z"]), ["/x/y", "/x/z"]);
    }
}
