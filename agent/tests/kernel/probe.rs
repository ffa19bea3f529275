//! The kernel features that the agent probes, compared with the table in docs/kernels.md.

use std::collections::{BTreeMap, BTreeSet};

use sockeye_agent::kernel::kernel_features::KernelFeatures;

const DOCS: &str = include_str!("../../../docs/kernels.md");

/// Returns the features in the table's column for a series of kernels, if there is such a column.
fn documented(series: &str) -> Option<BTreeMap<String, bool>> {
    let cells = |line: &'static str| line.split('|').map(str::trim).collect::<Vec<_>>();
    let mut rows = DOCS.lines().skip_while(|line| !line.starts_with("| feature |")).map(cells);
    let column = rows.next()?.iter().position(|heading| *heading == series)?;
    let rows = rows.skip(1).take_while(|row| row.len() > column);
    Some(rows.map(|row| (row[1].trim_matches('`').to_owned(), row[column] == "yes")).collect())
}

#[test]
fn the_probed_features_are_those_in_the_documentation() {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let series = release.split('.').take(2).collect::<Vec<_>>().join(".");
    let KernelFeatures { has, lacks, restrictions: _, missing_features: _ } = KernelFeatures::probe();
    let found: BTreeMap<String, bool> =
        has.into_iter().map(|name| (name, true)).chain(lacks.into_iter().map(|name| (name, false))).collect();
    for (name, has) in &found {
        // For tests/kernels/table.sh, which writes the docs' table.
        println!("{name} {series} {}", if *has { "yes" } else { "no" });
    }
    match documented(&series) {
        Some(documented) => {
            assert_eq!(found, documented, "docs/kernels.md on Linux {series}: run tests/kernels/table.sh")
        }
        None => {
            let named: BTreeSet<String> = documented("6.1").unwrap().into_keys().collect();
            assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), named, "docs/kernels.md names others");
            println!("docs/kernels.md has no column for Linux {series}");
        }
    }
}
