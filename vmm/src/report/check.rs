//! What a check has found, as text and as JSON.

use std::{ffi::OsStr, fmt::Write as _, os::unix::ffi::OsStrExt};

use protocol::{CheckFindings, Repaired};

use super::{Speaker, escape, tree::Value};

/// Lines for stderr.
pub fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| escape(line) + "\n").collect()
}

/// The same behind the program's name.
pub fn named_lines(lines: &[String], speaker: Speaker) -> String {
    lines.iter().map(|line| format!("{}: {}\n", speaker.name(), escape(line))).collect()
}

/// That something was repaired.
pub fn repaired(repaired: Repaired) -> String {
    let Repaired { leaks, corruptions } = repaired;
    format!(
        "The following inconsistencies were found and repaired:\n\n    {leaks} leaked clusters\n    {corruptions} corruptions\n\nDouble checking the fixed image now...\n"
    )
}

/// The findings for people.
pub fn human(findings: &CheckFindings) -> String {
    let CheckFindings { corruptions, leaks, check_errors, .. } = *findings;
    let mut out = String::new();
    if corruptions == 0 && leaks == 0 && check_errors == 0 {
        out.push_str("No errors were found on the image.\n");
    }
    if corruptions != 0 {
        out.push_str(&format!(
            "\n{corruptions} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n"
        ));
    }
    if leaks != 0 {
        out.push_str(&format!(
            "\n{leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n"
        ));
    }
    if check_errors != 0 {
        out.push_str(&format!("\n{check_errors} internal errors have occurred during the check.\n"));
    }
    let CheckFindings { total_clusters: total, allocated_clusters: allocated, .. } = *findings;
    if total != 0 && allocated != 0 {
        writeln!(
            out,
            "{allocated}/{total} = {}% allocated, {}% fragmented, {}% compressed clusters",
            percent(allocated, total),
            percent(findings.fragmented_clusters, allocated),
            percent(findings.compressed_clusters, allocated)
        )
        .unwrap_or_default();
    }
    if findings.image_end_offset.cast_signed() > 0 {
        writeln!(out, "Image end offset: {}", findings.image_end_offset).unwrap_or_default();
    }
    out
}

/// A share in percent, as C prints it with two digits.
fn percent(part: u64, whole: u64) -> String {
    format!("{:.2}", part as f64 * 100.0 / whole as f64)
}

/// The findings as JSON: of most numbers those that are not 0.
pub fn json(name: &OsStr, format: &str, findings: &CheckFindings) -> String {
    let number = |name, value| Some((name, Value::Number(value)));
    let some = |name, value| (value != 0).then_some((name, Value::Number(value)));
    let fields = [
        some("image-end-offset", findings.image_end_offset),
        some("compressed-clusters", findings.compressed_clusters),
        some("total-clusters", findings.total_clusters),
        some("corruptions", findings.corruptions),
        some("corruptions-fixed", findings.repaired.corruptions),
        number("check-errors", findings.check_errors),
        some("leaks", findings.leaks),
        some("leaks-fixed", findings.repaired.leaks),
        some("allocated-clusters", findings.allocated_clusters),
        Some(("filename", Value::text(name.as_bytes()))),
        Some(("format", Value::text(format))),
        some("fragmented-clusters", findings.fragmented_clusters),
    ];
    Value::Map(fields.into_iter().flatten().collect()).json()
}
