//! `Figure`: one thing measured, what it is compared with, and the bound it has to keep. Pure.

use std::time::Duration;

use serde::Serialize;

/// What a figure has to keep: at most so much, or about as much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Bound {
    /// Of itself, in its own unit.
    Value(f64),
    /// Of its ratio to the reference.
    Ratio(f64),
    /// Its ratio to the reference is one, give or take so much.
    Within(f64),
}

/// One thing measured.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The group it belongs to.
    pub group: &'static str,
    /// What it is.
    pub what: String,
    /// How much it is.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// What the measure took in the same run, in the same unit.
    pub reference: Option<f64>,
    /// The ratio to it: of medians, unless it was taken otherwise.
    pub ratio: Option<f64>,
    /// What it has to keep; figures without one are told only.
    pub bound: Option<Bound>,
}

/// What became of the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Kept.
    Kept,
    /// Missed.
    Missed,
    /// There is none.
    Told,
}

impl Figure {
    /// A figure by itself.
    pub fn alone(group: &'static str, what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { group, what: what.into(), value, unit, reference: None, ratio: None, bound: None }
    }

    /// Compares it.
    pub fn against(self, reference: f64) -> Self {
        Self { reference: Some(reference), ratio: Some(self.value / reference), ..self }
    }

    /// Bounds it.
    pub fn at_most(self, bound: Bound) -> Self {
        Self { bound: Some(bound), ..self }
    }

    /// Bounds its ratio to about one.
    pub fn within(self, tolerance: f64) -> Self {
        Self { bound: Some(Bound::Within(tolerance)), ..self }
    }

    /// What became of its bound; a ratio that was not taken misses it.
    pub fn verdict(&self) -> Verdict {
        let kept = match (self.bound, self.ratio) {
            (None, _) => return Verdict::Told,
            (Some(Bound::Value(most)), _) => self.value <= most,
            (Some(Bound::Ratio(most)), ratio) => ratio.is_some_and(|ratio| ratio <= most),
            (Some(Bound::Within(tolerance)), ratio) => ratio.is_some_and(|ratio| (ratio - 1.0).abs() <= tolerance),
        };
        if kept { Verdict::Kept } else { Verdict::Missed }
    }
}

/// The middle one.
pub fn median(values: Vec<f64>) -> f64 {
    percentile(values, 50)
}

/// The one that so many of a hundred are smaller than.
pub fn percentile(mut values: Vec<f64>, of_hundred: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * of_hundred / 100).copied().unwrap_or(f64::NAN)
}

/// In milliseconds.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The table.
pub fn render(figures: &[Figure]) -> String {
    let headings = ["", "figure", "value", "reference", "ratio", "bound", "verdict"].map(str::to_owned);
    let lines: Vec<[String; 7]> = [headings].into_iter().chain(figures.iter().map(cells)).collect();
    let width = |i: usize| lines.iter().filter_map(|line| line.get(i)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..7).map(|i| width(i).unwrap_or(0)).collect();
    let line = |cells: &[String; 7]| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| match i {
            2..=4 => format!("{cell:>width$}"),
            _ => format!("{cell:width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

fn cells(figure: &Figure) -> [String; 7] {
    let Figure { group, what, value, unit, reference, ratio, bound } = figure;
    let amount = |n: f64| format!("{n:.*} {unit}", if n < 1.0 { 3 } else { 1 });
    [
        (*group).to_owned(),
        what.clone(),
        amount(*value),
        reference.map(amount).unwrap_or_default(),
        ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        bound
            .map(|bound| match bound {
                Bound::Value(most) => format!("<= {most} {unit}"),
                Bound::Ratio(most) => format!("<= {most:.2} times"),
                Bound::Within(tolerance) => format!("1 ± {tolerance:.2} times"),
            })
            .unwrap_or_default(),
        match figure.verdict() {
            Verdict::Kept => "ok".to_owned(),
            Verdict::Missed => "MISSED".to_owned(),
            Verdict::Told => String::new(),
        },
    ]
}

/// The same as JSON.
pub fn json(figures: &[Figure]) -> serde_json::Result<String> {
    let figure = |figure: &Figure| {
        let Figure { group, what, value, unit, reference, ratio, bound } = figure;
        serde_json::json!({
            "group": group, "figure": what, "value": value, "unit": unit, "reference": reference, "ratio": ratio,
            "bound": bound, "verdict": figure.verdict(),
        })
    };
    serde_json::to_string_pretty(&figures.iter().map(figure).collect::<Vec<_>>()).map(|text| text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_limits_the_value_or_the_ratio() {
        let figure = Figure::alone("a", "load", 3.0, "ms").against(2.0);
        assert_eq!(figure.verdict(), Verdict::Told);
        assert_eq!(figure.clone().at_most(Bound::Ratio(1.5)).verdict(), Verdict::Kept);
        assert_eq!(figure.clone().at_most(Bound::Value(2.9)).verdict(), Verdict::Missed);
        assert_eq!(Figure { ratio: None, ..figure.at_most(Bound::Ratio(1.5)) }.verdict(), Verdict::Missed);
    }

    #[test]
    fn a_ratio_outside_its_tolerance_misses_either_way() {
        let verdict = |value| Figure::alone("a", "rate", value, "/s").against(100.0).within(0.05).verdict();
        assert_eq!([94.0, 96.0, 104.0, 106.0].map(verdict), {
            use Verdict::{Kept, Missed};
            [Missed, Kept, Kept, Missed]
        });
    }

    #[test]
    fn columns_are_aligned() {
        let figures = [
            Figure::alone("a", "load", 0.25, "ms").against(0.2).at_most(Bound::Ratio(1.5)),
            Figure::alone("b", "µ", 12.0, "MiB"),
        ];
        let text = render(&figures);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "a  load    0.250 ms   0.200 ms   1.25  <= 1.50 times  ok");
        assert_eq!(lines[2], "b  µ       12.0 MiB");
    }

    #[test]
    fn median_and_percentile_of_sorted_values() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        let hundred = (0..100).map(f64::from).collect::<Vec<_>>();
        assert_eq!((percentile(hundred.clone(), 99), percentile(hundred, 50)), (99.0, 50.0));
    }
}
