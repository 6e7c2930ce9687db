//! What somebody should make of each row who is asked whether the image is safe to use: mostly what its class says.

use super::{Class, Kind, Row};

/// What is to come of asking whether an image is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Safe,
    /// It is not, for one of these reasons among others: `docs/inspect.md` lists them.
    Refuse(&'static [&'static str]),
    /// The question makes no sense.
    Failure,
}

use Verdict::{Failure, Refuse, Safe};

const AMBIGUOUS: Verdict = Refuse(&["ambiguous-format"]);
const CUT_OFF: Verdict = Refuse(&["past-the-end"]);
const INVALID: Verdict = Refuse(&["invalid-format"]);
const OVERLAP: Verdict = Refuse(&["overlap"]);
/// With a limit of 4 TiB.
const TOO_LONG: Verdict = Refuse(&["virtual-size"]);

/// Flags that make an image unsafe.
const FLAGS: [(&str, Verdict); 14] = [
    ("several formats", AMBIGUOUS),
    ("may be a VMDK", AMBIGUOUS),
    ("may be a qcow2", AMBIGUOUS),
    ("may be Parallels", AMBIGUOUS),
    ("may be Bochs", AMBIGUOUS),
    ("two trailers", AMBIGUOUS),
    ("names files", Refuse(&["ambiguous-format", "descriptor-differs"])),
    ("image inside an image", Refuse(&["image-inside", "ambiguous-format"])),
    ("compressed file", Refuse(&["not-a-disk"])),
    ("encrypted", Refuse(&["encrypted"])),
    ("stray data file", Refuse(&["data-file"])),
    ("marked corrupt", Refuse(&["marked-corrupt"])),
    ("shared clusters", OVERLAP),
    ("overlapping tables", OVERLAP),
];

/// Rows of which the class does not say it.
const ROWS: [(&str, Verdict); 28] = [
    // Who only asks what it is has no need of the other file's format, its name or its header.
    ("A11-format-unknown", Refuse(&["backing-file"])),
    ("A13-data-file-unnamed", Refuse(&["data-file"])),
    ("A28-luks-detached", INVALID),
    // The caller's mistake.
    ("B20-unknown-format", Failure),
    ("C17-luks-pointer-past-the-end", INVALID),
    ("C21-snapshot-l1-huge", Refuse(&["over-limit"])),
    // Reference counts matter to who writes.
    ("C23-copied-wrong", Safe),
    ("C23-refcount-0", Safe),
    // qemu-img decodes no zstd of more than a cluster.
    ("C27-zstd-bomb", Refuse(&["corrupt"])),
    // Its first grain is the descriptor.
    ("D09-grain-1-unflagged", OVERLAP),
    ("E10-footer-differs", Refuse(&["footer-differs"])),
    ("G01-vdi-data-2-32", CUT_OFF),
    ("G04-bochs-bitmap-0", CUT_OFF),
    // Its blocks are not decoded.
    ("G05-cloop-stream", Safe),
    ("G07-luks-stripes-4001", INVALID),
    ("G07-luks-slot-wraps", INVALID),
    ("G07-luks-slots-overlap", INVALID),
    ("G07-luks-payload-2-32", INVALID),
    ("G07-luks2", Refuse(&["unsupported"])),
    ("H01-raw-8e", TOO_LONG),
    ("H02-qcow2-8e", TOO_LONG),
    ("H02-qcow2-2p-of-holes", TOO_LONG),
    ("H02-qcow-l1-of-2g", TOO_LONG),
    ("H02-parallels-table-of-1g", TOO_LONG),
    ("H03-l2-tables-in-holes", TOO_LONG),
    ("H04-refcounts-of-8-tib", OVERLAP),
    // The keys that these take to try are more than anybody should wait for.
    ("G07-luks-iterations-2-32", Refuse(&["key-derivation"])),
    ("G07-luks-iterations-2-26", Refuse(&["key-derivation"])),
];

impl Row {
    /// What to say who is asked whether the image is safe to use, disks of up to 4 TiB being taken and nothing else being
    /// allowed.
    pub fn verdict(&self) -> Verdict {
        if let Some((_, verdict)) = ROWS.iter().find(|(id, _)| *id == self.id) {
            return *verdict;
        }
        match self.class {
            Class::Ok => Safe,
            Class::Flag(flag) => {
                FLAGS.iter().find(|(name, _)| *name == flag).map_or(Safe, |(_, verdict)| *verdict)
            }
            Class::Refuse(kinds) => of_kind(kinds[0]),
        }
    }
}

/// What an image is not safe for that a reader refuses for this.
fn of_kind(kind: Kind) -> Verdict {
    match kind {
        Kind::Io => Failure,
        Kind::InvalidFormat => INVALID,
        Kind::Unsupported => Refuse(&["unsupported"]),
        Kind::Corrupt => Refuse(&["corrupt", "past-the-end", "overlap"]),
        Kind::ReferenceDenied => Refuse(&["backing-file", "data-file", "extent-file"]),
        Kind::Limit => Refuse(&["over-limit"]),
        Kind::Usage => Refuse(&["encrypted"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_rows_and_flags_is_said_of_some() {
        let rows = super::super::rows();
        for (id, _) in ROWS {
            assert!(rows.iter().any(|row| row.id == id), "{id}");
        }
        for (flag, _) in FLAGS {
            assert!(rows.iter().any(|row| row.class == Class::Flag(flag)), "{flag}");
        }
    }

    #[test]
    fn what_is_read_as_if_nothing_were_wrong_is_safe() {
        for row in super::super::rows() {
            assert!(row.class != Class::Ok || row.verdict() == Safe, "{}", row.id);
        }
    }
}
