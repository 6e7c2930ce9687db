//! The options of each format: name, type, the first release that has it, and a line about it.

use protocol::QemuVersion::{self, V5_2, V7_2, V10_0, V11_1};

/// What the value of an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `on` or `off`.
    Bool,
    /// A number.
    Number,
    /// Bytes, or with a suffix.
    Size,
    /// Any text.
    Text,
}

/// An option, by the first release that has it.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The name it is given by.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What it does, its default and its range.
    pub about: &'static str,
    /// The first release that has it.
    pub since: QemuVersion,
}

impl Spec {
    const fn since(self, since: QemuVersion) -> Self {
        Self { since, ..self }
    }
}

const fn boolean(name: &'static str, about: &'static str) -> Spec {
    Spec { name, kind: Kind::Bool, about, since: V5_2 }
}

const fn number(name: &'static str, about: &'static str) -> Spec {
    Spec { name, kind: Kind::Number, about, since: V5_2 }
}

const fn size(name: &'static str, about: &'static str) -> Spec {
    Spec { name, kind: Kind::Size, about, since: V5_2 }
}

const fn text(name: &'static str, about: &'static str) -> Spec {
    Spec { name, kind: Kind::Text, about, since: V5_2 }
}

const BACKING_FILE: Spec =
    text("backing_file", "the image below, which is not opened: all of the disk counts as written");
const BACKING_FMT: Spec = text("backing_fmt", "format of the image below");

/// Options of the file every image lies in: each format takes them besides its own.
pub const FILE: &[Spec] = &[
    size("extent_size_hint", "hint for the file system of how much to set aside at once (below 4G)"),
    boolean("nocow", "no copy on write in the file system, where that is btrfs (default: off)"),
    text("preallocation", "space set aside at once: off, falloc or full (default: off)"),
    size("size", "size of the disk; measure has it from --size or FILE"),
];

/// As in [`FILE`], but of a format that sets its own metadata aside as well.
const PREALLOCATION: Spec =
    text("preallocation", "space set aside at once: off, metadata, falloc or full (default: off)");

pub const QCOW2: &[Spec] = &[
    BACKING_FILE,
    BACKING_FMT,
    size("cluster_size", "bytes of a cluster: a power of two, 512 to 2M (default: 64k)"),
    text("compat", "version of the format: 0.10 (version 2) or 1.1 (version 3) (default: 1.1)"),
    text("compression_type", "how clusters are compressed: zlib or zstd (default: zlib)"),
    text("data_file", "a file of its own for the data"),
    boolean("data_file_raw", "keep the data file readable as a raw image (default: off)"),
    text("encrypt.cipher-alg", "cipher of LUKS, such as aes-128 or twofish-256 (default: aes-256)"),
    text("encrypt.cipher-mode", "mode of the cipher: ecb, cbc, xts or ctr (default: xts)"),
    text("encrypt.format", "encryption: luks or aes"),
    text("encrypt.hash-alg", "hash of the key derivation, such as sha1 or sha512 (default: sha256)"),
    number("encrypt.iter-time", "milliseconds of key derivation (default: 2000)"),
    text("encrypt.ivgen-alg", "initialisation vectors: plain, plain64 or essiv (default: plain64)"),
    text("encrypt.ivgen-hash-alg", "hash of essiv (default: sha256)"),
    text("encrypt.key-secret", "id of the secret with the passphrase"),
    boolean("encryption", "another word for encrypt.format=aes (default: off)"),
    boolean("extended_l2", "tell subclusters apart, with clusters of 16k and more (default: off)"),
    boolean("keep_data_file", "take the data file as it is (default: off)").since(V11_1),
    boolean("lazy_refcounts", "write refcounts late (default: off)"),
    PREALLOCATION,
    number("refcount_bits", "bits of a refcount: a power of two, 1 to 64 (default: 16)"),
];

pub const LUKS: &[Spec] = &[
    text("cipher-alg", "cipher, such as aes-128 or twofish-256 (default: aes-256)"),
    text("cipher-mode", "mode of the cipher: ecb, cbc, xts or ctr (default: xts)"),
    boolean("detached-header", "the header in a file of its own; not for measure (default: off)")
        .since(V10_0),
    text("hash-alg", "hash of the key derivation, such as sha1 or sha512 (default: sha256)"),
    number("iter-time", "milliseconds of key derivation (default: 2000)"),
    text("ivgen-alg", "initialisation vectors: plain, plain64 or essiv (default: plain64)"),
    text("ivgen-hash-alg", "hash of essiv (default: sha256)"),
    text("key-secret", "id of the secret with the passphrase"),
];

pub const VMDK: &[Spec] = &[
    text("adapter_type", "disk controller: ide, lsilogic, buslogic or legacyESX (default: ide)"),
    BACKING_FILE,
    text("backing_fmt", "format of the image below: vmdk"),
    boolean("compat6", "version 6 of the virtual hardware; not together with hwversion (default: off)"),
    text("hwversion", "version of the virtual hardware (default: 4)"),
    text(
        "subformat",
        "layout in files: monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat or \
         streamOptimized (default: monolithicSparse)",
    ),
    text("toolsversion", "version of VMware's tools (default: 2147483647)").since(V7_2),
    boolean("zeroed_grain", "mark zeros in grain tables; not with flat extents (default: off)"),
];

pub const VPC: &[Spec] = &[
    boolean("force_size", "do not round the size up to cylinders, heads and sectors (default: off)"),
    text("subformat", "dynamic or fixed (default: dynamic)"),
];

pub const VHDX: &[Spec] = &[
    size(
        "block_size",
        "bytes of a block: a power of two, 1M to 256M, or 0 for 8M to 64M by the size of the disk (default: 0)",
    ),
    boolean("block_state_zero", "mark blocks as zeros in place of absent (default: on)"),
    size("log_size", "bytes of the log: whole MiB, 1M to 4095M (default: 1M)"),
    text("subformat", "dynamic or fixed (default: dynamic)"),
];

pub const VDI: &[Spec] = &[boolean("static", "all blocks are there from the start (default: off)")];

pub const QCOW: &[Spec] = &[
    BACKING_FILE,
    BACKING_FMT,
    text("encrypt.format", "encryption: aes"),
    text("encrypt.key-secret", "id of the secret with the passphrase"),
    boolean("encryption", "another word for encrypt.format=aes (default: off)"),
];

pub const QED: &[Spec] = &[
    BACKING_FILE,
    BACKING_FMT,
    size("cluster_size", "bytes of a cluster: a power of two, 4k to 64M (default: 64k)"),
    size("table_size", "clusters of an L1 or L2 table: 2, 4, 8 or 16 (default: 4)"),
];

pub const PARALLELS: &[Spec] =
    &[size("cluster_size", "bytes of a cluster: whole sectors, below 2G (default: 1M)")];
