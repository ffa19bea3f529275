//! Bytes, counts and shares for people.

/// Returns a number of bytes as `512`, `4.0Ki` or `1.5Mi`, with Kubernetes' suffixes.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["", "Ki", "Mi", "Gi", "Ti"];
    scaled(bytes, 1024, &UNITS)
}

/// Returns a count as `950`, `1.2k` or `3.4M`.
pub fn count(count: u64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    scaled(count, 1000, &UNITS)
}

fn scaled(number: u64, base: u64, units: &[&str]) -> String {
    let (mut whole, mut rest, mut unit) = (number, 0, 0);
    while whole >= base && unit + 1 < units.len() {
        rest = whole % base;
        whole /= base;
        unit += 1;
    }
    let suffix = units.get(unit).copied().unwrap_or_default();
    match unit {
        0 => whole.to_string(),
        _ => format!("{whole}.{}{suffix}", rest * 10 / base),
    }
}

/// Returns a share of the time of all processors of a node, in percent of one processor.
pub fn percent(share: f64) -> String {
    // The sum of no numbers is -0.0.
    format!("{:.2}%", share * 100.0 + 0.0)
}

/// Returns nanoseconds as `85ns`, `1.2us` or `3.4ms`.
pub fn nanoseconds(nanoseconds: u64) -> String {
    const UNITS: [&str; 4] = ["ns", "us", "ms", "s"];
    scaled(nanoseconds, 1000, &UNITS) + if nanoseconds < 1000 { "ns" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(format_bytes(0), "0");
        assert_eq!(format_bytes(1023), "1023");
        assert_eq!(format_bytes(1536), "1.5Ki");
        assert_eq!(format_bytes(u64::MAX), "16777215.9Ti");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_250_000), "1.2M");
        assert_eq!(nanoseconds(85), "85ns");
        assert_eq!(nanoseconds(1_250), "1.2us");
        assert_eq!(percent(0.01234), "1.23%");
        assert_eq!(percent(-0.0), "0.00%");
    }
}
