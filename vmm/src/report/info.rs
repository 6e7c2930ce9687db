//! The answer of `info`.

use std::{ffi::OsString, fmt::Write, os::unix::ffi::OsStrExt};

use jiff::{Timestamp, tz::TimeZone};
use protocol::{
    BitmapInfo, BlockLimits, EncryptInfo, ExtentInfo, ImageInfo, LuksInfo, Qcow2Info, QemuVersion,
    SnapshotInfo, SpecificInfo, VmdkInfo,
};

use super::{
    escape, escape_name,
    size_text::size_text,
    tree::{Value, indent},
};

/// Smallest and best alignment of buffers, and most pieces of a request, for a file that is read through the page cache.
const BUFFERS: [(&str, u64); 3] = [("min-mem-alignment", 1), ("opt-mem-alignment", 4096), ("max-iov", 1024)];

/// An image, with what only the host knows of it.
#[derive(Debug)]
pub struct Image {
    /// The file that holds it.
    pub file: File,
    /// Name of the image; that of the file unless it was described in another way.
    pub name: OsString,
    /// What it says of itself.
    pub info: ImageInfo,
    /// Its internal snapshots.
    pub snapshots: Vec<SnapshotInfo>,
    /// Its dirty bitmaps.
    pub bitmaps: Vec<BitmapInfo>,
    /// Its extents.
    pub extents: Vec<ExtentInfo>,
}

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name.
    pub name: OsString,
    /// Name of QEMU's driver for it.
    pub driver: &'static str,
    /// Its length in bytes.
    pub length: u64,
    /// Disk space it takes in bytes.
    pub allocated: u64,
}

/// How images are shown.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// As which release.
    pub profile: QemuVersion,
    /// `--limits`
    pub limits: bool,
}

/// As `--output json` prints images: one as it is, the images of a chain as an array.
pub fn json(images: &[Image], chain: bool, shape: Shape) -> String {
    let values = images.iter().map(|image| image.value(shape));
    if chain { Value::List(values.collect()).json() } else { values.map(|value| value.json()).collect() }
}

/// As `--output human` prints images. Times are those of `zone`.
pub fn human(images: &[Image], shape: Shape, zone: &TimeZone) -> String {
    let texts: Vec<String> = images.iter().map(|image| image.text(shape, zone)).collect();
    texts.join("\n")
}

impl Image {
    /// The image below as QEMU finds it: relative names are beside this image's file.
    fn backing_path(&self) -> Option<Vec<u8>> {
        self.info.backing.as_ref().map(|backing| combine(&self.file, backing.name.as_bytes()))
    }

    /// All of it. The order of names is that of QEMU's hash table.
    fn value(&self, shape: Shape) -> Value {
        let info = &self.info;
        let mut values = Vec::new();
        if shape.limits {
            values.push(("limits", limits(&info.limits)));
        }
        if shape.profile >= QemuVersion::V8_0 {
            let child = vec![("name", Value::text("file")), ("info", self.file.value(shape))];
            values.push(("children", Value::List(vec![Value::Map(child)])));
        }
        if let Some(format) = info.backing.as_ref().and_then(|backing| backing.format.as_ref()) {
            values.push(("backing-filename-format", Value::text(format.as_bytes())));
        }
        if !self.snapshots.is_empty() {
            values.push(("snapshots", Value::List(self.snapshots.iter().map(snapshot).collect())));
        }
        values.push(("virtual-size", Value::Number(info.virtual_size)));
        values.push(("filename", Value::text(self.name.as_bytes())));
        if let Some(size) = info.cluster_size {
            values.push(("cluster-size", Value::Number(size)));
        }
        values.push(("format", Value::text(&info.format)));
        values.push(("actual-size", Value::Number(self.file.allocated)));
        if let Some((kind, data)) = self.specific(shape.profile) {
            values.push((
                "format-specific",
                Value::Map(vec![("type", Value::text(kind)), ("data", Value::Map(data))]),
            ));
        }
        if let Some(path) = self.backing_path() {
            values.push(("full-backing-filename", Value::Text(path)));
        }
        if info.encrypted {
            values.push(("encrypted", Value::Bool(true)));
        }
        if let Some(backing) = &info.backing {
            values.push(("backing-filename", Value::text(backing.name.as_bytes())));
        }
        if let Some(dirty) = info.dirty {
            values.push(("dirty-flag", Value::Bool(dirty)));
        }
        Value::Map(values)
    }

    fn text(&self, shape: Shape, zone: &TimeZone) -> String {
        let info = &self.info;
        let mut out = String::new();
        let name = escape_name(&self.name);
        line(&mut out, 0, "image", &name);
        line(&mut out, 0, "file format", &escape(&info.format));
        line(&mut out, 0, "virtual size", &with_bytes(info.virtual_size));
        line(&mut out, 0, "disk size", &size_text(self.file.allocated));
        if info.encrypted {
            line(&mut out, 0, "encrypted", "yes");
        }
        if let Some(size) = info.cluster_size {
            line(&mut out, 0, "cluster_size", &size.to_string());
        }
        if info.dirty == Some(true) {
            line(&mut out, 0, "cleanly shut down", "no");
        }
        if let Some(backing) = &info.backing {
            let mut text = escape_bytes(backing.name.as_bytes());
            let path = self.backing_path().unwrap_or_default();
            if path != backing.name.as_bytes() {
                text.push_str(&format!(" (actual path: {})", escape_bytes(&path)));
            }
            line(&mut out, 0, "backing file", &text);
            if let Some(format) = &backing.format {
                line(&mut out, 0, "backing file format", &escape_bytes(format.as_bytes()));
            }
        }
        if shape.limits {
            out.push_str("Block limits:\n");
            limits(&info.limits).write_lines(&mut out, 1);
        }
        if !self.snapshots.is_empty() {
            let table = SnapshotTable { old: shape.profile < QemuVersion::V10_0, zone };
            table.write(&mut out, &self.snapshots);
        }
        if let Some((_, data)) = self.specific(shape.profile) {
            out.push_str("Format specific information:\n");
            Value::Map(data).write_lines(&mut out, 1);
        }
        if shape.profile >= QemuVersion::V8_0 {
            out.push_str("Child node '/file':\n");
            self.file.write_lines(&mut out, shape);
        }
        out
    }

    /// Name and content of what only the format has.
    fn specific(&self, profile: QemuVersion) -> Option<(&'static str, Vec<(&'static str, Value)>)> {
        Some(match self.info.specific.as_ref()? {
            SpecificInfo::Qcow2(info) => ("qcow2", self.qcow2(info, profile)),
            SpecificInfo::Vmdk(info) => ("vmdk", self.vmdk(info)),
            SpecificInfo::Luks(info) => ("luks", luks(info, false, profile)),
        })
    }

    fn qcow2(&self, info: &Qcow2Info, profile: QemuVersion) -> Vec<(&'static str, Value)> {
        let compat = if info.v3.is_some() { "1.1" } else { "0.10" };
        let mut values =
            vec![("compat", Value::text(compat)), ("compression-type", Value::text(&info.compression_type))];
        let v3 = info.v3.as_ref();
        if let Some(v3) = v3 {
            values.push(("lazy-refcounts", Value::Bool(v3.lazy_refcounts)));
        }
        if !self.bitmaps.is_empty() {
            values.push(("bitmaps", Value::List(self.bitmaps.iter().map(bitmap).collect())));
        }
        values.push(("refcount-bits", Value::Number(info.refcount_bits.into())));
        if let Some(name) = v3.and_then(|v3| v3.data_file.as_ref()) {
            values.push(("data-file", Value::text(name.as_bytes())));
        }
        match &info.encrypt {
            None => {}
            Some(EncryptInfo::Aes) => {
                values.push(("encrypt", Value::Map(vec![("format", Value::text("aes"))])));
            }
            Some(EncryptInfo::Luks(info)) => values.push(("encrypt", Value::Map(luks(info, true, profile)))),
        }
        if let Some(v3) = v3 {
            if let Some(raw) = v3.data_file_raw {
                values.push(("data-file-raw", Value::Bool(raw)));
            }
            values.push(("corrupt", Value::Bool(v3.corrupt)));
            values.push(("extended-l2", Value::Bool(v3.extended_l2)));
        }
        values
    }

    fn vmdk(&self, info: &VmdkInfo) -> Vec<(&'static str, Value)> {
        let extent = |extent: &ExtentInfo| {
            let name = match &extent.name {
                Some(name) => combine(&self.file, name.as_bytes()),
                None => self.file.name.as_bytes().to_vec(),
            };
            let mut values = Vec::new();
            if extent.compressed {
                values.push(("compressed", Value::Bool(true)));
            }
            values.push(("virtual-size", Value::Number(extent.virtual_size)));
            values.push(("filename", Value::Text(name)));
            if let Some(size) = extent.cluster_size {
                values.push(("cluster-size", Value::Number(size)));
            }
            values.push(("format", Value::text(extent.format.as_deref().unwrap_or_default())));
            Value::Map(values)
        };
        vec![
            ("cid", Value::Number(info.cid.into())),
            ("parent-cid", Value::Number(info.parent_cid.into())),
            ("create-type", Value::text(info.create_type.as_deref().unwrap_or_default())),
            ("extents", Value::List(self.extents.iter().map(extent).collect())),
        ]
    }
}

impl File {
    /// Length in whole sectors, as QEMU counts it.
    fn sectors_length(&self) -> u64 {
        self.length.next_multiple_of(512)
    }

    const LIMITS: BlockLimits = BlockLimits {
        request_alignment: 1,
        write_zeroes_alignment: None,
        discard_alignment: None,
        max_write_zeroes: None,
    };

    fn value(&self, shape: Shape) -> Value {
        let mut values = Vec::new();
        if shape.limits {
            values.push(("limits", limits(&Self::LIMITS)));
        }
        let specific = vec![("type", Value::text("file")), ("data", Value::Map(vec![]))];
        values.extend([
            ("children", Value::List(vec![])),
            ("virtual-size", Value::Number(self.sectors_length())),
            ("filename", Value::text(self.name.as_bytes())),
            ("format", Value::text(self.driver)),
            ("actual-size", Value::Number(self.allocated)),
            ("format-specific", Value::Map(specific)),
            ("dirty-flag", Value::Bool(false)),
        ]);
        Value::Map(values)
    }

    fn write_lines(&self, out: &mut String, shape: Shape) {
        line(out, 1, "filename", &escape_name(&self.name));
        line(out, 1, "protocol type", self.driver);
        line(out, 1, "file length", &with_bytes(self.sectors_length()));
        line(out, 1, "disk size", &size_text(self.allocated));
        if shape.limits {
            indent(out, 1);
            out.push_str("Block limits:\n");
            limits(&Self::LIMITS).write_lines(out, 2);
        }
    }
}

/// A name that stands in an image in `file`, as QEMU makes a path of it: absolute names and those with a protocol in
/// front stay as they are.
fn combine(file: &File, name: &[u8]) -> Vec<u8> {
    let own = name.iter().find(|byte| matches!(byte, b':' | b'/'));
    let absolute = name.starts_with(b"/") || own == Some(&b':');
    let path = file.name.as_bytes();
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) if !absolute => [&path[..=slash], name].concat(),
        _ => name.to_vec(),
    }
}

fn line(out: &mut String, depth: usize, name: &str, value: &str) {
    indent(out, depth);
    writeln!(out, "{name}: {value}").unwrap_or_default();
}

fn with_bytes(size: u64) -> String {
    format!("{} ({} bytes)", size_text(size), size.cast_signed())
}

fn escape_bytes(text: &[u8]) -> String {
    escape_name(std::ffi::OsStr::from_bytes(text))
}

fn limits(limits: &BlockLimits) -> Value {
    let [min_memory, best_memory, pieces] = BUFFERS;
    let values = [
        ("write-zeroes-alignment", limits.write_zeroes_alignment),
        ("request-alignment", Some(limits.request_alignment.into())),
        (min_memory.0, Some(min_memory.1)),
        ("discard-alignment", limits.discard_alignment),
        (best_memory.0, Some(best_memory.1)),
        (pieces.0, Some(pieces.1)),
        ("max-write-zeroes", limits.max_write_zeroes),
    ];
    Value::Map(values.into_iter().filter_map(|(name, value)| Some((name, Value::Number(value?)))).collect())
}

fn bitmap(bitmap: &BitmapInfo) -> Value {
    let flags = [(bitmap.in_use, "in-use"), (bitmap.auto, "auto")];
    let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| Value::text(name));
    Value::Map(vec![
        ("flags", Value::List(flags.collect())),
        ("name", Value::text(bitmap.name.as_bytes())),
        ("granularity", Value::Number(bitmap.granularity)),
    ])
}

fn luks(info: &LuksInfo, inside: bool, profile: QemuVersion) -> Vec<(&'static str, Value)> {
    let mut values = vec![("ivgen-alg", Value::text(&info.ivgen_alg))];
    if profile >= QemuVersion::V10_0 {
        values.push(("detached-header", Value::Bool(false)));
    }
    values.push(("hash-alg", Value::text(&info.hash_alg)));
    values.push(("cipher-alg", Value::text(&info.cipher_alg)));
    values.push(("uuid", Value::text(info.uuid.as_bytes())));
    if let Some(hash) = &info.ivgen_hash_alg {
        values.push(("ivgen-hash-alg", Value::text(hash)));
    }
    if inside {
        values.push(("format", Value::text("luks")));
    }
    let slots = info.slots.iter().map(|slot| {
        let mut values = vec![("active", Value::Bool(slot.active.is_some()))];
        values.extend(slot.active.map(|(iterations, _)| ("iters", Value::Number(iterations.into()))));
        values.push(("key-offset", Value::Number(slot.key_offset)));
        values.extend(slot.active.map(|(_, stripes)| ("stripes", Value::Number(stripes.into()))));
        Value::Map(values)
    });
    values.extend([
        ("cipher-mode", Value::text(&info.cipher_mode)),
        ("slots", Value::List(slots.collect())),
        ("payload-offset", Value::Number(info.payload_offset)),
        ("master-key-iters", Value::Number(info.master_key_iters.into())),
    ]);
    values
}

const NANO: u64 = 1_000_000_000;

fn snapshot(snapshot: &SnapshotInfo) -> Value {
    let mut values: Vec<_> =
        snapshot.icount.map(|icount| ("icount", Value::Number(icount))).into_iter().collect();
    values.extend([
        ("vm-clock-nsec", Value::Number(snapshot.vm_clock_nsec % NANO)),
        ("name", Value::text(snapshot.name.as_bytes())),
        ("date-sec", Value::Number(snapshot.date_sec.into())),
        ("date-nsec", Value::Number(snapshot.date_nsec.into())),
        ("vm-clock-sec", Value::Number(snapshot.vm_clock_nsec / NANO)),
        ("id", Value::text(snapshot.id.as_bytes())),
        ("vm-state-size", Value::Number(snapshot.vm_state_size)),
    ]);
    Value::Map(values)
}

/// The table of snapshots.
struct SnapshotTable<'a> {
    /// Whether its columns are those from before 10.0, which have no room between them.
    old: bool,
    zone: &'a TimeZone,
}

impl SnapshotTable<'_> {
    fn write(&self, out: &mut String, snapshots: &[SnapshotInfo]) {
        out.push_str("Snapshot list:\n");
        let (size, clock) = if self.old { ("VM SIZE", "VM CLOCK") } else { ("VM_SIZE", "VM_CLOCK") };
        self.write_row(out, ["ID", "TAG", size, "DATE", clock, "ICOUNT"]);
        for snapshot in snapshots {
            let seconds = snapshot.vm_clock_nsec / NANO;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let width = if self.old { 2 } else { 4 };
            let (second, milli) = (seconds % 60, snapshot.vm_clock_nsec / 1_000_000 % 1000);
            let icount = match snapshot.icount {
                Some(icount) => icount.cast_signed().to_string(),
                None => if self.old { "" } else { "--" }.into(),
            };
            self.write_row(
                out,
                [
                    &escape_bytes(snapshot.id.as_bytes()),
                    &escape_bytes(snapshot.name.as_bytes()),
                    &size_text(snapshot.vm_state_size),
                    &self.date(snapshot.date_sec),
                    &format!("{hours:0width$}:{minutes:02}:{second:02}.{milli:03}"),
                    &icount,
                ],
            );
        }
    }

    fn write_row(&self, out: &mut String, [id, name, size, date, clock, icount]: [&str; 6]) {
        // As C pads: by bytes.
        let left = |text: &str, width: usize| format!("{text}{:1$}", "", width.saturating_sub(text.len()));
        let (id, name) =
            if self.old { (left(id, 10), left(name, 17)) } else { (left(id, 7), left(name, 16)) };
        if self.old {
            writeln!(out, "{id}{name}{size:>8}{date:>20}{clock:>13}{icount:>11}").unwrap_or_default();
        } else {
            writeln!(out, "{id} {name} {size:>8} {date:>19} {clock:>15} {icount:>10}").unwrap_or_default();
        }
    }

    fn date(&self, seconds: u32) -> String {
        let timestamp = Timestamp::constant(seconds.into(), 0);
        timestamp.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{BackingInfo, Text};

    use super::*;

    fn luks_info() -> LuksInfo {
        LuksInfo {
            cipher_alg: "aes-256".into(),
            cipher_mode: "cbc".into(),
            ivgen_alg: "essiv".into(),
            ivgen_hash_alg: Some("sha256".into()),
            hash_alg: "sha1".into(),
            uuid: Text(b"u".to_vec()),
            payload_offset: 4096,
            master_key_iters: 7,
            slots: vec![],
        }
    }

    /// An encrypted overlay with a snapshot.
    fn image() -> Image {
        let name = OsString::from("dir/over.qcow2");
        let snapshot = SnapshotInfo {
            id: Text(b"1".to_vec()),
            name: Text(b"s\n".to_vec()),
            vm_state_size: 3 << 30,
            date_sec: 1_795_417_923,
            date_nsec: 5,
            vm_clock_nsec: 3_723_500_000_000,
            icount: None,
        };
        let qcow2 = Qcow2Info {
            compression_type: "zlib".into(),
            refcount_bits: 16,
            encrypt: Some(EncryptInfo::Luks(luks_info())),
            v3: None,
        };
        let info = ImageInfo {
            disk: "source".into(),
            format: "qcow2".into(),
            virtual_size: 1 << 20,
            cluster_size: Some(65536),
            dirty: Some(true),
            encrypted: true,
            backing: Some(BackingInfo { name: Text(b"base.raw".to_vec()), format: None }),
            specific: Some(SpecificInfo::Qcow2(qcow2)),
            limits: BlockLimits::default(),
        };
        let file = File { name: name.clone(), driver: "file", length: 1000, allocated: 4096 };
        Image { file, name, info, snapshots: vec![snapshot], bitmaps: vec![], extents: vec![] }
    }

    fn shape(profile: QemuVersion) -> Shape {
        Shape { profile, limits: false }
    }

    #[test]
    fn each_release_has_its_shape() {
        const HEAD: &str = "image: dir/over.qcow2\nfile format: qcow2\nvirtual size: 1 MiB (1048576 bytes)\ndisk size: 4 KiB\nencrypted: yes\ncluster_size: 65536\ncleanly shut down: no\nbacking file: base.raw (actual path: dir/base.raw)\nSnapshot list:\n";
        const OLD_TABLE: &str = "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n1         s\\n                 3 GiB 2026-11-23 07:12:03 01:02:03.500           \n";
        const TABLE: &str = "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT\n1       s\\n                 3 GiB 2026-11-23 07:12:03  0001:02:03.500         --\n";
        const SPECIFIC: &str = "Format specific information:\n    compat: 0.10\n    compression type: zlib\n    refcount bits: 16\n    encrypt:\n        ivgen alg: essiv\n";
        const DETACHED: &str = "        detached header: false\n";
        const LUKS: &str = "        hash alg: sha1\n        cipher alg: aes-256\n        uuid: u\n        ivgen hash alg: sha256\n        format: luks\n        cipher mode: cbc\n        slots:\n        payload offset: 4096\n        master key iters: 7\n";
        const CHILD: &str = "Child node '/file':\n    filename: dir/over.qcow2\n    protocol type: file\n    file length: 1 KiB (1024 bytes)\n    disk size: 4 KiB\n";
        for (profile, parts) in [
            (QemuVersion::V5_2, &[HEAD, OLD_TABLE, SPECIFIC, LUKS][..]),
            (QemuVersion::V7_2, &[HEAD, OLD_TABLE, SPECIFIC, LUKS]),
            (QemuVersion::V8_0, &[HEAD, OLD_TABLE, SPECIFIC, LUKS, CHILD]),
            (QemuVersion::V10_0, &[HEAD, TABLE, SPECIFIC, DETACHED, LUKS, CHILD]),
            (QemuVersion::V11_1, &[HEAD, TABLE, SPECIFIC, DETACHED, LUKS, CHILD]),
        ] {
            let text = human(&[image()], shape(profile), &TimeZone::UTC);
            assert_eq!(text, parts.concat(), "{profile:?}");
            let json = json(&[image()], false, shape(profile));
            assert_eq!(json.starts_with("{\n    \"children\": ["), profile >= QemuVersion::V8_0);
        }
    }

    #[test]
    fn chains_are_arrays_in_json_and_set_apart_for_people() {
        let images = [image(), image()];
        let json = json(&images, true, shape(QemuVersion::V7_2));
        assert!(
            json.starts_with("[\n    {\n        \"snapshots\": [") && json.ends_with("    }\n]\n"),
            "{json}"
        );
        let text = human(&images, shape(QemuVersion::V7_2), &TimeZone::UTC);
        assert!(text.contains("iters: 7\n\nimage: dir"), "{text}");
    }

    #[test]
    fn names_in_images_are_beside_them() {
        let file = |name: &str| File { name: name.into(), driver: "file", length: 0, allocated: 0 };
        for (own, name, path) in [
            ("a", "b", "b"),
            ("d/a", "b", "d/b"),
            ("/d/a", "../b", "/d/../b"),
            ("d/a", "/b", "/b"),
            ("d/a", "nbd://b", "nbd://b"),
            ("d/a", "c/b:x", "d/c/b:x"),
            ("d/a", ":x", ":x"),
        ] {
            assert_eq!(combine(&file(own), name.as_bytes()), path.as_bytes(), "{own} {name}");
        }
    }

    #[test]
    fn nothing_is_said_of_a_file_but_its_name_and_lengths() {
        let file = File { name: "a".into(), driver: "file", length: 1, allocated: 2 };
        let json = file.value(shape(QemuVersion::V11_1)).json();
        assert!(
            json.contains("\"data\": {\n        }\n") && json.contains("\"virtual-size\": 512,"),
            "{json}"
        );
    }
}
