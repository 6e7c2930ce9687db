//! Section A: names inside an image. Whoever follows one opens what the image's author chose.

use super::{Class, DENIED, Files, INVALID, Kind, LIMIT, LOCKED, OK, Row, Stage, UNSUPPORTED, row};
use crate::build::{luks, qcow, qcow2, qed, vhdx, vmdk, vpc};
use crate::{SparseFile, be};

/// A chain that comes back to where it was.
const LOOP: Class = Class::Refuse(&[Kind::Limit, Kind::Corrupt]);
/// What is allowed by its place is not there.
const MISSING: Class = Class::Refuse(&[Kind::Io]);

pub(super) fn rows() -> Vec<Row> {
    [backing(), data_files(), extents(), descriptors(), parents()].into_iter().flatten().collect()
}

/// A raw file to refer to.
fn raw() -> SparseFile {
    SparseFile::from([7; 512]).with_length(1 << 20)
}

/// A qcow2 image on a backing file, with a raw file `base.raw` beside it.
fn on(name: impl AsRef<[u8]>, format: &str) -> Files {
    Files::new(qcow2::overlay(name, format)).file("base.raw", raw())
}

/// As many images on each other, each of which names the next; the last stands alone.
fn chain(length: usize) -> Files {
    let name = |number: usize| format!("image-{number}");
    let image = |number: usize| match number + 1 {
        end if end == length => qcow2::image(),
        next => qcow2::overlay(name(next), "qcow2"),
    };
    (1..length).fold(Files::new(image(0)), |files, number| files.file(name(number), image(number)))
}

/// A name of so many bytes for `base.raw`.
fn long_name(length: usize) -> Vec<u8> {
    let mut name = b"./".repeat(length / 2 - 4);
    name.extend(&b"/base.raw"[usize::from(length.is_multiple_of(2))..]);
    name
}

fn backing() -> Vec<Row> {
    vec![
        row("A01-backing-absolute", "backing file: an absolute path", DENIED, || on("/etc/passwd", "raw"))
            .with_references(DENIED),
        row("A01-backing-beside", "backing file: a sound one beside the image", DENIED, || {
            on("base.raw", "raw")
        })
        .with_references(OK),
        row("A02-backing-dotdot", "backing file: up and out of the directory", DENIED, || {
            on("../../../../../../../../etc/passwd", "raw")
        })
        .with_references(DENIED),
        row("A02-backing-symlink", "backing file: a link that leads out of the directory", DENIED, || {
            on("link", "raw").with("link", super::Beside::Link("/etc/passwd"))
        })
        .with_references(DENIED),
        row("A03-backing-json", "backing file: options of a driver in place of a name", DENIED, || {
            let name = r#"json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}"#;
            on(name, "raw")
        })
        .with_references(DENIED),
        row("A04-backing-nbd", "backing file: a network block device", DENIED, || {
            on("nbd:127.0.0.1:1", "raw")
        })
        .with_references(UNSUPPORTED),
        row("A04-backing-http", "backing file: a URL", DENIED, || on("http://127.0.0.1:1/x", "raw"))
            .with_references(UNSUPPORTED),
        row("A04-backing-ssh", "backing file: another host", DENIED, || on("ssh://127.0.0.1:1/x", "raw"))
            .with_references(UNSUPPORTED),
        row("A05-backing-dev-zero", "backing file: a device without end", DENIED, || on("/dev/zero", "raw"))
            .with_references(DENIED),
        row("A05-backing-proc-self-mem", "backing file: the memory of the reader", DENIED, || {
            on("/proc/self/mem", "raw")
        })
        .with_references(DENIED),
        row("A05-backing-fifo", "backing file: a pipe that nobody writes to", DENIED, || {
            on("fifo", "raw").with("fifo", super::Beside::Fifo)
        })
        .with_references(DENIED),
        row("A05-backing-directory", "backing file: a directory", DENIED, || on(".", "raw"))
            .with_references(DENIED),
        row("A06-backing-itself", "backing file: the image itself", DENIED, || on("image", "qcow2"))
            .with_references(LOOP),
        row("A07-loop-of-two", "backing files: two images, each on the other", DENIED, || {
            on("other", "qcow2").file("other", qcow2::overlay("image", "qcow2"))
        })
        .with_references(LOOP),
        row("A08-chain-of-16", "backing files: a chain of 16 images", DENIED, || chain(16))
            .with_references(OK),
        row("A08-chain-of-300", "backing files: a chain of 300 images", DENIED, || chain(300))
            .with_references(LIMIT),
        row("A09-name-1023", "backing file: the longest name", DENIED, || on(long_name(1023), "raw"))
            .with_references(OK),
        row("A09-name-1024", "backing file: a name that is one byte too long", INVALID, || {
            on(long_name(1024), "raw")
        }),
        row(
            "A09-name-past-the-cluster",
            "backing file: a name that goes on behind the header",
            INVALID,
            || on("base.raw", "raw").changed(|image| image.set(qcow2::BACKING_OFFSET, 65534)),
        ),
        row("A10-name-nul", "backing file: a name with a NUL, which ends it", DENIED, || {
            on("base.raw\0/../../../etc/passwd", "raw")
        })
        .with_references(OK),
        row("A10-name-newline", "backing file: a name that forges a line of output", DENIED, || {
            on("x\nvirtual size: 0 (0 bytes)", "raw")
        })
        .with_references(UNSUPPORTED),
        row("A10-name-escape", "backing file: a name with a terminal's control sequences", DENIED, || {
            on("\x1b]0;x\x07\x1b[2J\x1b[31mred", "raw")
        })
        .with_references(MISSING),
        row("A10-name-json", "backing file: a name that breaks out of JSON", DENIED, || {
            on(r#"x", "virtual-size": 0, "y": "\"#, "raw")
        })
        .with_references(UNSUPPORTED),
        row("A10-name-no-text", "backing file: a name that is not UTF-8", DENIED, || {
            on(b"\xff\xfe\x80\xed\xa0\x80", "raw")
        })
        .with_references(DENIED),
        row("A11-format-wrong", "backing format: one that the file does not have", DENIED, || {
            on("base.raw", "qcow2")
        })
        .with_references(INVALID),
        row(
            "A11-format-unknown",
            "backing format: one that there is not",
            Class::Refuse(&[Kind::Usage]),
            || on("base.raw", "nosuch"),
        )
        .at(Stage::Contents),
        row("A11-format-too-long", "backing format: longer than any", INVALID, || {
            on("base.raw", "a-format-of-20-bytes")
        }),
        row(
            "A11-raw-that-is-qcow2",
            "backing format: raw, for a qcow2 image on yet another file",
            DENIED,
            || on("inner", "raw").file("inner", qcow2::overlay("/etc/passwd", "raw")),
        )
        .with_references(OK),
        row(
            "A11-format-missing",
            "backing format: none, for a qcow2 image on yet another file",
            DENIED,
            || on("inner", "").file("inner", qcow2::overlay("/etc/passwd", "raw")),
        )
        .with_references(DENIED),
        row("A29-qed-backing", "qed: a backing file that is not to be probed", DENIED, || {
            let image = qed::image().set(qed::FEATURES, 5).put(64, "/etc/passwd");
            image.set(qed::BACKING_OFFSET, 64).set(qed::BACKING_SIZE, 11)
        })
        .with_references(DENIED),
        row("A30-qcow-backing", "qcow: a backing file, which is always probed", DENIED, || {
            let image = qcow::image().put(64, "/etc/passwd");
            image.set(qcow::BACKING_OFFSET, 64).set(qcow::BACKING_SIZE, 11)
        })
        .with_references(DENIED),
    ]
}

fn data_files() -> Vec<Row> {
    let named = |name: &'static str| move || Files::new(qcow2::with_data_file(name)).file("base.raw", raw());
    vec![
        row("A12-data-file", "data file: an absolute path", DENIED, named("/etc/passwd"))
            .with_references(DENIED),
        row("A12-data-file-beside", "data file: a sound one beside the image", DENIED, named("base.raw"))
            .with_references(OK),
        row(
            "A12-data-file-json",
            "data file: options of a driver, which info alone would open",
            DENIED,
            || qcow2::with_data_file(r#"json:{"driver":"file","filename":"/etc/passwd"}"#),
        )
        .with_references(UNSUPPORTED),
        row("A12-data-file-and-backing", "data file and backing file, both absolute", DENIED, || {
            let image = qcow2::with_data_file("/etc/passwd").put(2048, "/etc/shadow");
            image.set(qcow2::BACKING_OFFSET, 2048).set(qcow2::BACKING_SIZE, 11)
        })
        .with_references(DENIED),
        row("A13-data-file-unnamed", "data file: the feature without a name", UNSUPPORTED, || {
            qcow2::image().set(qcow2::INCOMPATIBLE, qcow2::DATA_FILE)
        })
        .at(Stage::Contents),
        row(
            "A13-data-file-name-only",
            "data file: a name without the feature",
            Class::Flag("stray data file"),
            || qcow2::with_data_file("/etc/passwd").set(qcow2::INCOMPATIBLE, 0).set(be(qcow2::L2, 8), 0),
        )
        .agrees(),
        row("A14-raw-external-alone", "data file: said to be raw, but there is none", INVALID, || {
            qcow2::image().set(qcow2::AUTOCLEAR, 2)
        })
        .at(Stage::Contents),
        row(
            "A14-raw-external-v2",
            "data file: the bits of version 3 in version 2",
            Class::Flag("bits of version 3"),
            || qcow2::version_2().set(qcow2::INCOMPATIBLE, qcow2::DATA_FILE).set(qcow2::AUTOCLEAR, 2),
        )
        .agrees(),
        row("A15-data-file-itself", "data file: the image itself", DENIED, named("image"))
            .with_references(Class::Refuse(&[Kind::Limit, Kind::Corrupt, Kind::ReferenceDenied])),
        row("A16-data-file-is-qcow2", "data file: a qcow2 image on yet another file", DENIED, || {
            Files::new(qcow2::with_data_file("inner"))
                .file("inner", qcow2::overlay("/etc/passwd", "raw").with_length(1 << 20))
        })
        .with_references(OK),
    ]
}

/// A descriptor with these extent lines and a raw file of 1 MiB beside it.
fn disk(create_type: &str, lines: &str) -> Files {
    Files::new(vmdk::descriptor(create_type, lines).into()).file("base.raw", raw())
}

fn extents() -> Vec<Row> {
    let flat = |line: &'static str| move || disk("monolithicFlat", line);
    vec![
        row("A17-flat-absolute", "extent: an absolute path", DENIED, flat("RW 1 FLAT \"/etc/passwd\" 0"))
            .with_references(DENIED),
        row(
            "A17-flat-dotdot",
            "extent: up and out of the directory",
            DENIED,
            flat("RW 1 FLAT \"../../../../etc/passwd\" 0"),
        )
        .with_references(DENIED),
        row("A17-flat-device", "extent: a block device", DENIED, flat("RW 1 FLAT \"/dev/vda\" 0"))
            .with_references(DENIED),
        row("A17-flat-json", "extent: options of a driver", DENIED, flat("RW 1 FLAT \"json:{}\" 0"))
            .with_references(UNSUPPORTED),
        row("A17-flat-symlink", "extent: a link that leads out of the directory", DENIED, || {
            disk("monolithicFlat", "RW 1 FLAT \"link\" 0").with("link", super::Beside::Link("/etc/passwd"))
        })
        .with_references(DENIED),
        row("A17-flat-fifo", "extent: a pipe that nobody writes to", DENIED, || {
            disk("monolithicFlat", "RW 1 FLAT \"fifo\" 0").with("fifo", super::Beside::Fifo)
        })
        .with_references(DENIED),
        row("A17-raw-device-map", "extent: a raw device map", UNSUPPORTED, || {
            disk("vmfsRawDeviceMap", "RW 2048 VMFSRDM \"/dev/vda\"")
        }),
        row("A18-one-extent", "extents: one", DENIED, flat("RW 2048 FLAT \"base.raw\" 0"))
            .with_references(OK),
        row("A18-1000-extents", "extents: the same file 1000 times", DENIED, || {
            disk("twoGbMaxExtentFlat", &"RW 1 FLAT \"base.raw\" 0\n".repeat(1000))
        })
        .with_references(OK),
        row("A18-10000-extents", "extents: 10000 of them", LIMIT, || {
            disk("twoGbMaxExtentFlat", &"RW 1 FLAT \"base.raw\" 0\n".repeat(10_000))
        }),
        row("A19-extent-is-descriptor", "extent: yet another descriptor", DENIED, || {
            let inner = vmdk::descriptor("monolithicFlat", "RW 1 FLAT \"/etc/passwd\" 0");
            disk("twoGbMaxExtentSparse", "RW 2048 SPARSE \"inner\"").file("inner", inner.into())
        })
        .with_references(INVALID),
        row("A19-extent-is-itself", "extent: the descriptor itself", DENIED, || {
            disk("twoGbMaxExtentSparse", "RW 2048 SPARSE \"image\"")
        })
        .with_references(Class::Refuse(&[Kind::InvalidFormat, Kind::Limit, Kind::Corrupt])),
        row(
            "A19-header-before-descriptor",
            "a sparse header without capacity leads to a descriptor of flat files",
            INVALID,
            || {
                let text = vmdk::descriptor("monolithicFlat", "RW 1 FLAT \"/etc/passwd\" 0");
                vmdk::hosted_with(text).set(vmdk::CAPACITY, 0)
            },
        ),
    ]
}

fn descriptors() -> Vec<Row> {
    /// A descriptor of so many bytes.
    fn of_length(length: usize) -> Files {
        let text = vmdk::descriptor("monolithicFlat", "RW 2048 FLAT \"base.raw\" 0");
        let comment = format!("#{}\n", "x".repeat(length - text.len() - 2));
        Files::new((text + &comment).into()).file("base.raw", raw())
    }
    vec![
        row("A20-parent-hint", "vmdk: an absolute parent", DENIED, || {
            let text = vmdk::descriptor("monolithicSparse", "RW 65536 SPARSE \"image\"");
            vmdk::hosted_with(text + "parentFileNameHint=\"/etc/passwd\"\n")
        })
        .with_references(DENIED),
        row("A20-parent-hint-endless", "vmdk: a parent whose name does not end", INVALID, || {
            let text = vmdk::descriptor("monolithicSparse", "RW 65536 SPARSE \"image\"");
            vmdk::hosted_with(text + "parentFileNameHint=\"/etc/passwd")
        }),
        row("A20-parent-hint-itself", "vmdk: the parent is the image itself", DENIED, || {
            let text = vmdk::descriptor("monolithicSparse", "RW 65536 SPARSE \"image\"");
            vmdk::hosted_with(text + "parentFileNameHint=\"image\"\n")
        })
        .with_references(LOOP),
        row(
            "A21-two-create-types",
            "vmdk: harmless by the last createType, flat by the first",
            DENIED,
            || disk("monolithicFlat", "createType=\"streamOptimized\"\nRW 1 FLAT \"/etc/passwd\" 0"),
        )
        .with_references(DENIED),
        row("A21-create-type-in-comment", "vmdk: a createType in a comment comes first", DENIED, || {
            let text = vmdk::descriptor("streamOptimized", "RW 1 FLAT \"/etc/passwd\" 0");
            SparseFile::from(text.replace("CID=1", "# createType=\"monolithicFlat\"\nCID=1"))
        })
        .with_references(DENIED),
        row("A22-descriptor-longest", "vmdk: a descriptor of 1 MiB less 1", DENIED, || {
            of_length((1 << 20) - 1)
        })
        .with_references(OK),
        row("A22-descriptor-too-long", "vmdk: a descriptor of 1 MiB and 1", LIMIT, || {
            of_length((1 << 20) + 1)
        }),
        row("A23-extent-line-cut", "vmdk: an extent line that ends early", INVALID, || {
            disk("monolithicFlat", "RW 2048 FLAT")
        }),
        row("A23-extent-line-negative", "vmdk: an extent at a negative offset", INVALID, || {
            disk("monolithicFlat", "RW 2048 FLAT \"base.raw\" -1")
        }),
        row("A23-extent-line-huge", "vmdk: an extent of 2^64 sectors", LIMIT, || {
            disk("monolithicFlat", "RW 18446744073709551616 FLAT \"base.raw\" 0")
        }),
        row("A23-extent-line-quoted", "vmdk: a name that ends in a quote within quotes", INVALID, || {
            disk("monolithicFlat", "RW 2048 FLAT \"base.raw\"\" 0")
        }),
        row("A23-no-access", "vmdk: an extent that must not be read", UNSUPPORTED, || {
            disk("monolithicFlat", "NOACCESS 2048 FLAT \"base.raw\" 0")
        }),
    ]
}

fn parents() -> Vec<Row> {
    let vhd = |platform: &'static str, name: &'static str| {
        move || vpc::differencing(&[(platform, vpc::utf16(name))])
    };
    let vhdx = |pairs: &'static [(&'static str, &'static str)]| {
        move || {
            SparseFile::from(
                vhdx::Builder { parent: Some(vhdx::locator(pairs)), ..Default::default() }.build(),
            )
        }
    };
    vec![
        row("A24-vhd-unc", "vhd: a parent on another host", DENIED, vhd("W2ku", "\\\\host\\share\\parent.vhd"))
            .with_references(MISSING),
        row("A24-vhd-relative", "vhd: a parent up and out of the directory", DENIED, vhd("W2ru", "..\\..\\..\\etc\\passwd"))
            .with_references(DENIED),
        row("A24-vhd-url", "vhd: a parent by URL", DENIED, || {
            vpc::differencing(&[("MacX", b"file:///etc/passwd".to_vec())])
        })
        .with_references(MISSING),
        row("A24-vhd-several", "vhd: different parents for different systems", DENIED, || {
            let url = b"file:///etc/passwd".to_vec();
            vpc::differencing(&[("W2ku", vpc::utf16("C:\\parent.vhd")), ("MacX", url), ("Wi2k", vec![b'x'; 9])])
        })
        .with_references(MISSING),
        row("A24-vhd-unnamed", "vhd: a differencing disk without a parent", INVALID, || vpc::differencing(&[])),
        row("A24-vhd-locator-past-the-end", "vhd: a parent locator past the end of the file", Class::Refuse(&[Kind::Corrupt]), || {
            vpc::differencing(&[("W2ru", vpc::utf16("x"))]).set(be(vpc::LOCATOR + 16, 8), 1 << 40)
        }),
        row("A24-vhd-locator-too-long", "vhd: a parent locator of 4 GiB", LIMIT, || {
            vpc::differencing(&[("W2ru", vpc::utf16("x"))]).set(be(vpc::LOCATOR + 8, 4), u64::from(u32::MAX))
        }),
        row("A25-vhdx-unc", "vhdx: a parent on another host", DENIED, vhdx(&[("absolute_win32_path", "\\\\host\\share\\parent.vhdx")]))
            .with_references(MISSING),
        row("A25-vhdx-relative", "vhdx: a parent up and out of the directory", DENIED, vhdx(&[("relative_path", "..\\..\\..\\etc\\passwd")]))
            .with_references(DENIED),
        row("A25-vhdx-twice", "vhdx: two parents under one key", INVALID, vhdx(&[("relative_path", "a.vhdx"), ("relative_path", "b.vhdx")])),
        row("A25-vhdx-unnamed", "vhdx: a differencing disk without a parent", INVALID, vhdx(&[("parent_linkage", "{0}")])),
        row("A25-vhdx-65535-pairs", "vhdx: 65535 keys that all lie in the same place", INVALID, || {
            let mut parent = vhdx::locator(&[("x", "y")]);
            vhdx::put(&mut parent, 18, &[0xff; 2]);
            let (entry, strings) = (parent[20..32].repeat(65535), parent[32..].to_vec());
            parent.truncate(20);
            parent.extend(entry);
            parent.extend(strings);
            SparseFile::from(vhdx::Builder { parent: Some(parent), ..Default::default() }.build())
        }),
        row("A25-vhdx-pairs-missing", "vhdx: more keys than there is room for", Class::Refuse(&[Kind::Corrupt]), || {
            let mut parent = vhdx::locator(&[("x", "y")]);
            vhdx::put(&mut parent, 18, &[0xff; 2]);
            SparseFile::from(vhdx::Builder { parent: Some(parent), ..Default::default() }.build())
        }),
        row("A27-parallels-descriptor", "a Parallels DiskDescriptor that names a file: raw bytes", Class::Flag("names files"), || {
            SparseFile::from("<?xml version='1.0'?><Parallels_disk_image><File>../../../etc/passwd</File></Parallels_disk_image>")
        })
        .agrees(),
        row("A28-luks-detached", "luks: a header without a payload, whose data is elsewhere", LOCKED, || {
            luks::image().set(luks::PAYLOAD_OFFSET, 0).with_length(4040 << 9)
        })
        .at(Stage::Contents)
        .described(INVALID),
    ]
}
