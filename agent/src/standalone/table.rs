//! `Table`: BpfPrograms as `kubectl get bpfprograms` prints them, for a node without a cluster. Pure.

use std::time::Duration;

use sockeye_crds::{
    BpfProgramStatus,
    condition::{self, ConditionType},
};

/// One row.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The BpfProgram's name.
    pub name: &'a str,
    /// Its status.
    pub status: &'a BpfProgramStatus,
    /// How long it has been there.
    pub age: Duration,
}

/// The columns of the CRD, under kubectl's headings.
const HEADINGS: [&str; 7] = ["NAME", "TYPE", "NODES", "READY", "PROGRAM-IDS", "MAP-IDS", "AGE"];

/// The table, headings first, three spaces between columns as kubectl has it.
pub fn render(rows: &[Row<'_>]) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> =
        (0..HEADINGS.len()).map(|i| lines.iter().map(|l| l.get(i).map_or(0, String::len)).max().unwrap_or(0)).collect();
    let line = |cells: &[String; 7]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    lines.iter().map(|cells| line(cells) + "\n").collect()
}

fn cells(row: &Row<'_>) -> [String; 7] {
    let Row { name, status, age } = row;
    let ready = condition::find(&status.conditions, ConditionType::Ready);
    let summary = &status.summary;
    [
        (*name).to_owned(),
        summary.program_type.clone(),
        summary.nodes.clone(),
        ready.map(|c| format!("{:?}", c.status)).unwrap_or_default(),
        summary.program_ids.clone(),
        summary.map_ids.clone(),
        human(*age),
    ]
}

/// A duration as kubectl prints it (apimachinery's `duration.HumanDuration`), in its coarsest units.
fn human(age: Duration) -> String {
    let s = age.as_secs();
    match s {
        0..120 => format!("{s}s"),
        120..600 if !s.is_multiple_of(60) => format!("{}m{}s", s / 60, s % 60),
        120..10_800 => format!("{}m", s / 60),
        10_800..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_under_their_headings() {
        let mut status = BpfProgramStatus::default();
        status.summary.program_type = "SockOps".into();
        status.summary.nodes = "1/1".into();
        status.summary.program_ids = "57".into();
        let text = render(&[Row { name: "tcp-events", status: &status, age: Duration::from_secs(12) }]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("TYPE"), lines[1].find("SockOps"));
        assert_eq!(lines[0].find("PROGRAM-IDS"), lines[1].find("57"));
        assert_eq!(lines[0].find("AGE"), lines[1].find("12s"));
    }

    #[test]
    fn ages() {
        let all = [0, 119, 120, 150, 600, 7200, 10_800, 172_800].map(|s| human(Duration::from_secs(s)));
        assert_eq!(all, ["0s", "119s", "2m", "2m30s", "10m", "120m", "3h", "2d"]);
    }
}
