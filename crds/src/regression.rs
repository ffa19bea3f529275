//! `Regression`: a defect that some kernels have and others do not, which programs would trigger. The table of all that
//! are known; `docs/kernels.md` has the same one for people.

/// A known regression of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Regression {
    /// FIONREAD of a socket in a sockmap does not count bytes that no verdict program has seen, so it is 0.
    SockmapFionread,
}

/// The facts on a regression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegressionInfo {
    /// The name in `spec.acceptedRegressions` and in a BpfNode's `status.node.regressions`.
    pub name: &'static str,
    /// The kernel commit that brought it.
    pub since: &'static str,
    /// The kernel commit that mends it.
    pub until: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
}

impl Regression {
    /// All known regressions.
    pub const ALL: [Self; 1] = [Self::SockmapFionread];

    /// Returns the row of the table.
    pub const fn info(self) -> RegressionInfo {
        match self {
            Self::SockmapFionread => RegressionInfo {
                name: "SockmapFIONREAD",
                since: "929e30f93125",
                until: "04af4efde58a",
                breaks: "FIONREAD of a socket in a sockmap is 0 whatever lies unread, and servers that ask it (nginx, \
                    Java, .NET) hang",
            },
        }
    }

    /// Returns the regression with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|regression| regression.info().name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_docs_have_the_same_table() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md");
        let page = fs::read_to_string(page).unwrap();
        for regression in Regression::ALL {
            let RegressionInfo { name, since, until, breaks: _ } = regression.info();
            assert_eq!(Regression::named(name), Some(regression));
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).expect(name);
            assert!(row.contains(since) && row.contains(until), "{row}");
        }
        assert_eq!(Regression::named("Sockmap"), None);
    }
}
