//! `check`: whether the metadata of an image is consistent.

mod lines;

use alloc::{borrow::ToOwned, format};
use core::fmt::Arguments;

use formats::{
    Access, Format, StorageMut,
    check::{Findings, Release, Repair, Terms},
};
use protocol::{
    CheckAnswer, CheckFindings, CheckPart, CheckRequest, ErrorRecord, QemuVersion, RepairMode, Repaired,
};

use crate::{files::Files, source};
use lines::Lines;

/// Checks the image in `request`. `memory` is how many bytes the check may take; what is found goes to `tell`.
pub fn run<F: Files<Storage: StorageMut>>(
    request: &CheckRequest,
    files: &mut F,
    memory: usize,
    tell: &mut dyn FnMut(CheckPart),
) -> Result<CheckAnswer, ErrorRecord> {
    let mut image = source::open_for_check(&request.source, request.profile, files)?;
    let format = image.format();
    if format == Format::Vpc && !request.beyond {
        source::reopen(image, &request.source, Access::Metadata)?;
        return Ok(CheckAnswer { format: format.name().to_owned(), findings: None });
    }
    let terms = Terms { release: release(request.profile), memory };
    let mut lines =
        Lines::new(tell, if format == Format::Vhdx { CheckPart::NamedLines } else { CheckPart::Lines });
    let mut say = |line: Arguments<'_>| lines.push(format!("{line}"));
    let found = match request.repair {
        RepairMode::None => image.check(&terms, &mut say),
        RepairMode::Leaks => image.repair(Repair::Leaks, &terms, &mut say),
        RepairMode::All => image.repair(Repair::All, &terms, &mut say),
    };
    lines.flush();
    let name = format.name().to_owned();
    let Some(findings) = found.map_err(failure)? else {
        return Ok(CheckAnswer { format: name, findings: None });
    };
    let repaired = Repaired { leaks: findings.leaks_fixed, corruptions: findings.corruptions_fixed };
    if repaired == Repaired::default() {
        return Ok(CheckAnswer { format: name, findings: Some(answer(&findings, repaired)) });
    }
    lines.tell(CheckPart::Repaired(repaired));
    let mut image = source::reopen(image, &request.source, Access::Check)?;
    let found = image.check(&terms, &mut |line: Arguments<'_>| lines.push(format!("{line}")));
    lines.flush();
    let findings = found.map_err(failure)?.map(|findings| answer(&findings, repaired));
    Ok(CheckAnswer { format: name, findings })
}

/// The release that a profile is named for.
fn release(profile: QemuVersion) -> Release {
    let (major, minor) = match profile {
        QemuVersion::V5_2 => (5, 2),
        QemuVersion::V7_2 => (7, 2),
        QemuVersion::V8_0 => (8, 0),
        QemuVersion::V10_0 => (10, 0),
        QemuVersion::V11_1 => (11, 1),
    };
    Release { major, minor }
}

/// Why a check ended early. What begins with `ERROR` is told before the reason, which is an errno's words.
fn failure(error: formats::Error) -> ErrorRecord {
    let reason = match error.kind {
        _ if !error.message.starts_with("ERROR ") => error.message.clone(),
        formats::ErrorKind::Limit => "File too large".into(),
        _ => "Invalid argument".into(),
    };
    let told = error.message != reason;
    let record = source::record(error);
    let message = if told {
        format!("{}\nCheck failed: {reason}", record.message)
    } else {
        format!("Check failed: {reason}")
    };
    ErrorRecord { message, ..record }
}

fn answer(findings: &Findings, repaired: Repaired) -> CheckFindings {
    CheckFindings {
        corruptions: findings.corruptions,
        leaks: findings.leaks,
        check_errors: findings.check_errors,
        repaired,
        image_end_offset: findings.image_end_offset,
        total_clusters: findings.clusters.total,
        allocated_clusters: findings.clusters.allocated,
        fragmented_clusters: findings.clusters.fragmented,
        compressed_clusters: findings.clusters.compressed,
    }
}
