//! `Table`: BpfPrograms as `kubectl get bpfprograms` prints them, for a node without a cluster. Pure.

use std::time::Duration;

use sockeye_crds::{
    BpfProgramStatus,
    condition::{self, ConditionType},
    program::{NodeCounts, Summary},
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
const HEADINGS: [&str; 9] = ["NAME", "DESIRED", "UPDATED", "FAILED", "PODS", "READY", "PROGRAM-IDS", "MAP-IDS", "AGE"];

/// The table, headings first, three spaces between columns as kubectl has it.
pub fn render(rows: &[Row<'_>]) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> =
        (0..HEADINGS.len()).map(|i| lines.iter().map(|l| l.get(i).map_or(0, String::len)).max().unwrap_or(0)).collect();
    let line = |cells: &[String; HEADINGS.len()]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    lines.iter().map(|cells| line(cells) + "\n").collect()
}

fn cells(row: &Row<'_>) -> [String; HEADINGS.len()] {
    let Row { name, status, age } = row;
    let ready = condition::find(&status.conditions, ConditionType::Ready);
    let count = |of: fn(&NodeCounts) -> i64| status.nodes.as_ref().map(|nodes| of(nodes).to_string());
    let summary = status.summary.as_ref();
    let ids = |of: fn(&Summary) -> &String| summary.map(of).cloned().unwrap_or_default();
    [
        (*name).to_owned(),
        count(|nodes| nodes.desired).unwrap_or_default(),
        count(|nodes| nodes.updated).unwrap_or_default(),
        count(|nodes| nodes.failed).unwrap_or_default(),
        summary.and_then(|summary| summary.pods).map(|pods| pods.to_string()).unwrap_or_default(),
        ready.map(|c| format!("{:?}", c.status)).unwrap_or_default(),
        ids(|summary| &summary.program_ids),
        ids(|summary| &summary.map_ids),
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
        let status = BpfProgramStatus {
            nodes: Some(NodeCounts { desired: 1, updated: 1, ..NodeCounts::default() }),
            summary: Some(Summary { pods: Some(3), program_ids: "57".into(), ..Summary::default() }),
            ..BpfProgramStatus::default()
        };
        let text = render(&[Row { name: "tcp-events", status: &status, age: Duration::from_secs(12) }]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("DESIRED"), lines[1].find('1'));
        assert_eq!(lines[0].find("PODS"), lines[1].find('3'));
        assert_eq!(lines[0].find("PROGRAM-IDS"), lines[1].find("57"));
        assert_eq!(lines[0].find("AGE"), lines[1].find("12s"));
    }

    #[test]
    fn ages() {
        let all = [0, 119, 120, 150, 600, 7200, 10_800, 172_800].map(|s| human(Duration::from_secs(s)));
        assert_eq!(all, ["0s", "119s", "2m", "2m30s", "10m", "120m", "3h", "2d"]);
    }
}
