//! The hostile corpus: a table of images, one row a trick. A section a file; what a row means is in [`Row`].
//!
//! Left out, because no parser of instar ever sees them: tar and OVA archives. A Parallels `DiskDescriptor.xml`, a second
//! header of a LUKS image and partition tables are here as what they are to a reader of disk images: raw bytes.
//! Files that change or fail while they are read need a program, not an image; `vmm/tests` and `formats/tests` have those.

mod a_references;
mod b_confusion;
mod c_qcow2;
mod c_tables;
mod d_vmdk;
mod e_vhd;
mod f_vhdx;
mod g_dmg;
mod g_others;
mod h_resources;
mod verdicts;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::SparseFile;

pub use verdicts::Verdict;

/// What a reader is to make of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It is read.
    Ok,
    /// It is read, and who looks it over should say this of it.
    Flag(&'static str),
    /// It is refused for one of these reasons: where there are two, both are true of it.
    Refuse(&'static [Kind]),
}

/// Why an image is refused: the kinds of error that `docs/protocol.md` lists, as far as images cause them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reading a file failed, or a file is not there.
    Io,
    /// A header contradicts the specification.
    InvalidFormat,
    /// Valid, but it uses something that is not supported.
    Unsupported,
    /// Tables behind the header cannot be.
    Corrupt,
    /// It names another file, which the caller did not allow.
    ReferenceDenied,
    /// A bound on work or memory was met.
    Limit,
    /// It is encrypted and the caller gave no key, or it names a driver that there is not.
    Usage,
}

impl Kind {
    /// The name in messages and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::InvalidFormat => "invalid-format",
            Self::Unsupported => "unsupported",
            Self::Corrupt => "corrupt",
            Self::ReferenceDenied => "reference-denied",
            Self::Limit => "limit",
            Self::Usage => "usage",
        }
    }
}

/// How far a command must look before it meets what is wrong with an image. A command that does not look there reads
/// the image as if it were sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Headers: whoever opens the image.
    Open,
    /// Keys and other files: whoever wants what is on the disk, but not who asks what the image is.
    Contents,
    /// The mapping from the disk to the file: whoever asks where data is.
    Mapping,
    /// The mapping of formats of which `qemu-img` never asks where data is (vhdx, bochs), or the data itself: whoever
    /// reads data.
    Data,
    /// What only comparing all metadata shows, such as a cluster that is used twice: whoever checks the image.
    Consistency,
}

/// A file beside an image.
#[derive(Clone, Debug)]
pub enum Beside {
    /// A regular file.
    File(SparseFile),
    /// A symbolic link to this.
    Link(&'static str),
    /// A named pipe, which nobody ever writes to.
    Fifo,
}

/// What a row is made of: the image and what it needs beside it.
#[derive(Clone, Debug)]
pub struct Files {
    image: SparseFile,
    beside: Vec<(String, Beside)>,
}

impl From<SparseFile> for Files {
    fn from(image: SparseFile) -> Self {
        Self { image, beside: Vec::new() }
    }
}

impl Files {
    fn new(image: SparseFile) -> Self {
        image.into()
    }

    fn file(self, name: impl Into<String>, content: SparseFile) -> Self {
        self.with(name, Beside::File(content))
    }

    fn changed(self, change: impl FnOnce(SparseFile) -> SparseFile) -> Self {
        Self { image: change(self.image), ..self }
    }

    fn with(mut self, name: impl Into<String>, beside: Beside) -> Self {
        self.beside.push((name.into(), beside));
        self
    }
}

/// One trick.
pub struct Row {
    /// Section, number and name of the trick; the row's directory.
    pub id: &'static str,
    /// What the trick is, in a line.
    pub trick: &'static str,
    /// The format that the caller names (`-f`), if it is not left to probing.
    pub format: Option<&'static str>,
    /// Name of the image in the row's directory.
    pub name: &'static str,
    /// What is to be made of it, references being denied.
    pub class: Class,
    /// How far one must look for that.
    pub stage: Stage,
    /// What is to be made of it by who asks only what it is, if that is not what its stage says.
    pub described: Option<Class>,
    /// What is to be made of it when references beneath the corpus are allowed, if that makes a difference.
    pub with_references: Option<Class>,
    /// Whether `qemu-img` reads it too, soon, and to the same effect.
    pub agrees: bool,
    build: Box<dyn Fn() -> Files + Send + Sync>,
}

/// A row that is not probed as anything else and whose fault, if it has one, is in the headers. A reference is met by
/// who wants to have what is on the disk.
fn row<T: Into<Files>>(
    id: &'static str,
    trick: &'static str,
    class: Class,
    build: impl Fn() -> T + Send + Sync + 'static,
) -> Row {
    let stage = match class {
        DENIED => Stage::Contents,
        _ => Stage::Open,
    };
    let build = Box::new(move || build().into());
    let (described, with_references) = (None, None);
    Row {
        id,
        trick,
        format: None,
        name: "image",
        class,
        stage,
        described,
        with_references,
        agrees: false,
        build,
    }
}

impl Row {
    fn said_to_be(self, format: &'static str) -> Self {
        Self { format: Some(format), ..self }
    }

    fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn at(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }

    fn described(self, class: Class) -> Self {
        Self { described: Some(class), ..self }
    }

    fn with_references(self, class: Class) -> Self {
        Self { with_references: Some(class), ..self }
    }

    fn agrees(self) -> Self {
        Self { agrees: true, ..self }
    }

    /// Path of the image beneath the corpus.
    pub fn path(&self) -> String {
        format!("{}/{}", self.id, self.name)
    }

    /// What a command is to make of the row that looks at these stages.
    pub fn class_for(&self, stages: &[Stage]) -> Class {
        match self.described {
            Some(class) if !stages.contains(&Stage::Contents) => class,
            _ if stages.contains(&self.stage) => self.class,
            _ => Class::Ok,
        }
    }

    /// Writes the row's directory beneath `corpus`.
    pub fn write(&self, corpus: &Path) -> io::Result<()> {
        let directory = corpus.join(self.id);
        fs::create_dir_all(&directory)?;
        let Files { image, beside } = (self.build)();
        image.write(&directory.join(self.name))?;
        for (name, beside) in beside {
            let path = directory.join(name);
            match beside {
                Beside::File(file) => file.write(&path)?,
                Beside::Link(target) => symlink(target, &path)?,
                Beside::Fifo => mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)?,
            }
        }
        Ok(())
    }
}

/// Read as if nothing were wrong.
const OK: Class = Class::Ok;
const INVALID: Class = Class::Refuse(&[Kind::InvalidFormat]);
const UNSUPPORTED: Class = Class::Refuse(&[Kind::Unsupported]);
const CORRUPT: Class = Class::Refuse(&[Kind::Corrupt]);
const DENIED: Class = Class::Refuse(&[Kind::ReferenceDenied]);
/// There is no key for it.
const LOCKED: Class = Class::Refuse(&[Kind::Usage]);
const LIMIT: Class = Class::Refuse(&[Kind::Limit]);

/// The whole table.
pub fn rows() -> Vec<Row> {
    [
        a_references::rows(),
        b_confusion::rows(),
        c_qcow2::rows(),
        c_tables::rows(),
        d_vmdk::rows(),
        e_vhd::rows(),
        f_vhdx::rows(),
        g_others::rows(),
        g_dmg::rows(),
        h_resources::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Writes the corpus and its table, `corpus.tsv`: columns id, file, format, class, stage, trick.
pub fn write(corpus: &Path) -> io::Result<()> {
    fs::create_dir_all(corpus)?;
    let mut table = io::BufWriter::new(fs::File::create(corpus.join("corpus.tsv"))?);
    writeln!(table, "id\tfile\tformat\tclass\tstage\ttrick")?;
    for row in rows() {
        row.write(corpus)?;
        let (format, stage) = (row.format.unwrap_or("-"), format!("{:?}", row.stage).to_lowercase());
        writeln!(table, "{}\t{}\t{format}\t{}\t{stage}\t{}", row.id, row.path(), row.class, row.trick)?;
    }
    table.flush()
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Flag(flag) => write!(f, "ok-but-flag({flag})"),
            Self::Refuse(kinds) => {
                let kinds: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
                write!(f, "refuse({})", kinds.join(" or "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let rows = rows();
        let ids: std::collections::BTreeSet<_> = rows.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), rows.len());
        assert!(rows.len() >= 180, "only {} rows", rows.len());
        for row in &rows {
            assert!(!row.trick.contains(['\t', '\n']) && row.trick.len() > 10, "{}", row.id);
            assert!(row.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{}", row.id);
        }
    }

    /// Only holes make an image long.
    #[test]
    fn the_corpus_is_small() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        for row in rows() {
            row.write(directory.path()).unwrap();
            let files = fs::read_dir(directory.path().join(row.id)).unwrap();
            let space: u64 = files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum();
            assert!(space <= 40 << 20, "{} takes {space} bytes", row.id);
            fs::remove_dir_all(directory.path().join(row.id)).unwrap();
        }
    }
}
