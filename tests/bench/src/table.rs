//! `Figure`: a measured value, its reference, and its bound. Pure.

use std::time::Duration;

use serde::Serialize;

/// The limit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Bound {
    /// The value is at most this, in the figure's unit.
    Value(f64),
    /// The ratio to the reference is at most this.
    Ratio(f64),
    /// The ratio to the reference is one, plus or minus this.
    Within(f64),
}

/// A measured value.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The bench that measured it.
    pub group: &'static str,
    /// Its name.
    pub what: String,
    /// The value.
    pub value: f64,
    /// The unit of the value and of the reference.
    pub unit: &'static str,
    /// The value of the reference in the same run.
    pub reference: Option<f64>,
    /// The value of cilium/ebpf in the same run.
    pub cilium: Option<f64>,
    /// The ratio of the value to the reference. It is of medians unless the bench says otherwise.
    pub ratio: Option<f64>,
    /// The limit; a figure without one is only reported.
    pub bound: Option<Bound>,
}

/// The outcome of a figure's bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Kept.
    Kept,
    /// Missed.
    Missed,
    /// There is no bound.
    Reported,
}

impl Figure {
    /// Makes a figure without reference and bound.
    pub fn alone(group: &'static str, what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { group, what: what.into(), value, unit, reference: None, cilium: None, ratio: None, bound: None }
    }

    /// Adds a reference.
    pub fn against(self, reference: f64) -> Self {
        Self { reference: Some(reference), ratio: Some(self.value / reference), ..self }
    }

    /// Adds the value of cilium/ebpf, the loader of most other tools.
    pub fn beside(self, cilium: f64) -> Self {
        Self { cilium: Some(cilium), ..self }
    }

    /// Adds a bound.
    pub fn at_most(self, bound: Bound) -> Self {
        Self { bound: Some(bound), ..self }
    }

    /// Adds a bound: a ratio of one within a tolerance.
    pub fn within(self, tolerance: f64) -> Self {
        Self { bound: Some(Bound::Within(tolerance)), ..self }
    }

    /// Compares the figure with its bound. A bound on a ratio is missed if there is no ratio.
    pub fn verdict(&self) -> Verdict {
        let kept = match (self.bound, self.ratio) {
            (None, _) => return Verdict::Reported,
            (Some(Bound::Value(most)), _) => self.value <= most,
            (Some(Bound::Ratio(most)), ratio) => ratio.is_some_and(|ratio| ratio <= most),
            (Some(Bound::Within(tolerance)), ratio) => ratio.is_some_and(|ratio| (ratio - 1.0).abs() <= tolerance),
        };
        if kept { Verdict::Kept } else { Verdict::Missed }
    }
}

/// Returns the median.
pub fn median(values: Vec<f64>) -> f64 {
    percentile(values, 50)
}

/// Returns a percentile.
pub fn percentile(mut values: Vec<f64>, of_hundred: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * of_hundred / 100).copied().unwrap_or(f64::NAN)
}

/// Returns a duration in milliseconds.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Prints figures as a table. A column that no figure has a value for is left out.
pub fn render(figures: &[Figure]) -> String {
    let headings = ["", "figure", "value", "reference", "cilium/ebpf", "ratio", "bound", "verdict"].map(str::to_owned);
    let rows: Vec<[String; 8]> = figures.iter().map(cells).collect();
    let shown: Vec<usize> = (0..8).filter(|&i| rows.iter().any(|row| !row[i].is_empty())).collect();
    let lines: Vec<[String; 8]> = [headings].into_iter().chain(rows).collect();
    let widths = [0, 1, 2, 3, 4, 5, 6, 7].map(|i: usize| lines.iter().map(|line| line[i].chars().count()).max());
    let line = |cells: &[String; 8]| {
        let padded = shown.iter().map(|&i| {
            let (cell, width) = (&cells[i], widths[i].unwrap_or(0));
            if (2..=5).contains(&i) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

fn cells(figure: &Figure) -> [String; 8] {
    let Figure { group, what, value, unit, reference, cilium, ratio, bound } = figure;
    let amount = |n: f64| format!("{n:.*} {unit}", if n < 1.0 { 3 } else { 1 });
    [
        (*group).to_owned(),
        what.clone(),
        amount(*value),
        reference.map(amount).unwrap_or_default(),
        cilium.map(amount).unwrap_or_default(),
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
            Verdict::Reported => String::new(),
        },
    ]
}

/// Prints figures as JSON.
pub fn json(figures: &[Figure]) -> serde_json::Result<String> {
    let figure = |figure: &Figure| {
        let Figure { group, what, value, unit, reference, cilium, ratio, bound } = figure;
        serde_json::json!({
            "group": group, "figure": what, "value": value, "unit": unit, "reference": reference,
            "cilium": cilium, "ratio": ratio, "bound": bound, "verdict": figure.verdict(),
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
        assert_eq!(figure.verdict(), Verdict::Reported);
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
