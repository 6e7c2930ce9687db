use alloc::{boxed::Box, string::String, vec};

use formats::{Region, StorageError};
use protocol::{ExtentMap, FileFacts, ImageSource, QemuVersion};

use super::*;
use crate::files::Standalone;

/// A file in memory; every second 4 KiB block is a hole if it is `striped`.
struct Memory {
    bytes: Vec<u8>,
    striped: bool,
}

impl Storage for Memory {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn allocated(&self) -> u64 {
        self.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        buf.fill(0);
        let stored = usize::try_from(offset).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        let length = stored.len().min(buf.len());
        buf[..length].copy_from_slice(&stored[..length]);
        Ok(())
    }

    fn region_at(&mut self, offset: u64) -> Result<Region, StorageError> {
        let length = self.len() - offset;
        match self.striped {
            true => Ok(Region { length: length.min(4096 - offset % 4096), hole: offset / 4096 % 2 == 1 }),
            false => Ok(Region { length, hole: false }),
        }
    }
}

fn request(target: &str, options: &str, subject: MeasureSubject) -> MeasureRequest {
    MeasureRequest {
        profile: QemuVersion::V11_1,
        target_format: target.into(),
        options: (!options.is_empty()).then(|| options.into()),
        secrets: vec![protocol::Secret::unread("s")],
        beyond: false,
        exact: None,
        compress: false,
        subject,
    }
}

/// The file `bytes`, whatever it is asked for as.
fn memory(bytes: Vec<u8>, striped: bool) -> impl Files<Storage = Memory> {
    Standalone(move |_: &FileFacts| Ok(Memory { bytes: bytes.clone(), striped }))
}

fn no_file() -> impl Files<Storage = Memory> {
    Standalone(|_: &FileFacts| unreachable!())
}

fn by_size(target: &str, options: &str, size: u64) -> Result<(u64, u64), String> {
    run(&request(target, options, MeasureSubject::Size(size)), &mut no_file())
        .map(|answer| (answer.required, answer.fully_allocated))
        .map_err(|error| error.message)
}

fn image(format: Option<&str>, snapshot: Option<&str>) -> MeasureSubject {
    let file = FileFacts {
        disk: "source".into(),
        length: 0,
        allocated: 0,
        extents: ExtentMap::Inline(vec![]),
        named_dmg: false,
    };
    let source = Box::new(ImageSource::new(file, format.map(Into::into)));
    MeasureSubject::Image { source, snapshot: snapshot.map(Into::into) }
}

fn of_raw(target: &str, options: &str, bytes: Vec<u8>, striped: bool) -> Result<MeasureAnswer, ErrorRecord> {
    run(&request(target, options, image(Some("raw"), None)), &mut memory(bytes, striped))
}

/// A version 3 header of 104 bytes and an empty L1 table behind the first cluster; `patches` are laid over them.
fn empty_qcow2(patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 4 << 16];
    let fields: [(usize, &[u8]); 9] = [
        (0, b"QFI\xfb\0\0\0\x03"),
        (20, &16_u32.to_be_bytes()),
        (24, &(1_u64 << 20).to_be_bytes()),
        (36, &1_u32.to_be_bytes()),
        (40, &(3_u64 << 16).to_be_bytes()),
        (48, &(1_u64 << 16).to_be_bytes()),
        (56, &1_u32.to_be_bytes()),
        (96, &4_u32.to_be_bytes()),
        (100, &104_u32.to_be_bytes()),
    ];
    for (at, field) in fields.iter().chain(patches) {
        bytes[*at..][..<[u8]>::len(field)].copy_from_slice(field);
    }
    bytes
}

fn of_qcow2(patches: &[(usize, &[u8])], snapshot: Option<&str>) -> Result<MeasureAnswer, ErrorRecord> {
    run(&request("qcow2", "", image(None, snapshot)), &mut memory(empty_qcow2(patches), false))
}

#[test]
fn sizes_out_of_nothing_are_those_of_qemu_img() {
    assert_eq!(by_size("raw", "preallocation=foo", 1), Ok((512, 512)));
    assert_eq!(by_size("raw", "", i64::MAX.unsigned_abs()), Ok((1 << 63, 1 << 63)));
    assert_eq!(by_size("qcow2", "", 0), Ok((196_608, 196_608)));
    assert_eq!(by_size("qcow2", "", 1 << 30), Ok((393_216, 1_074_135_040)));
    assert_eq!(by_size("qcow2", "preallocation=full", 1 << 30), Ok((1_074_135_040, 1_074_135_040)));
    assert_eq!(by_size("qcow2", "backing_file=x", 1 << 30), Ok((393_216, 1_074_135_040)));
    assert_eq!(by_size("qcow2", "encrypt.format=luks", 0), Ok((2_293_760, 2_293_760)));
}

#[test]
fn a_luks_size_needs_no_secret_but_a_named_one_must_exist() {
    assert_eq!(by_size("luks", "", 1), Ok((2_068_481, 2_068_481)));
    assert_eq!(by_size("luks", "key-secret=s", 1), Ok((2_068_481, 2_068_481)));
    assert_eq!(by_size("luks", "key-secret=t", 1), Err("No secret with id 't'".into()));
}

#[test]
fn sums_past_2_to_the_63_are_answered() {
    let longest = i64::MAX.unsigned_abs();
    assert_eq!(by_size("luks", "", longest), Ok((longest + 2_068_480, longest + 2_068_480)));
}

#[test]
fn checks_come_in_qemu_img_s_order() {
    let too_large = "The image size is too large (try using a larger cluster size)";
    assert_eq!(by_size("qcow2", "", 3 << 50), Err(too_large.into()));
    assert_eq!(by_size("qcow2", "preallocation=x", 3 << 50), Err("invalid parameter value: x".into()));
    assert_eq!(
        by_size("vmdk", "foo", 0),
        Err("Invalid parameter 'foo'\nInvalid options for file format 'vmdk'".into())
    );
    assert_eq!(
        by_size("vmdk", "subformat=x", 0),
        Err("Block driver 'vmdk' does not support size measurement".into())
    );
    let nosuch = request("nosuch", "", image(Some("nosuch"), None));
    let error = run(&nosuch, &mut no_file()).unwrap_err();
    assert_eq!(error.message, "Unknown driver 'nosuch'");
    assert_eq!(error.disk.as_deref(), Some("source"));
}

#[test]
fn the_data_of_a_file_counts_by_clusters_of_the_target() {
    // Blocks 0, 2, 4, 6 of 4 KiB are data.
    let answer = |options| of_raw("qcow2", options, vec![0; 32768], true).unwrap();
    let metadata = |answer: MeasureAnswer| answer.fully_allocated - 32768;
    let small = answer("cluster_size=4k");
    assert_eq!(small.required - metadata(small), 4 * 4096);
    let larger = answer("cluster_size=8k");
    assert_eq!(larger.required - metadata(larger), 4 * 8192);
    assert_eq!(small.bitmaps, None);
    let backed = answer("cluster_size=4k,backing_file=x");
    assert_eq!(backed.required, backed.fully_allocated);
}

#[test]
fn the_option_size_is_checked_beside_a_file_and_otherwise_ignored() {
    let with_size = |size| of_raw("qcow2", size, vec![0; 512], false).map_err(|error| error.message);
    let plain = with_size("").unwrap();
    assert_eq!(with_size("size=1P"), Ok(plain));
    assert_eq!(with_size("size=18446744073709551615"), Ok(plain));
    assert!(with_size("size=3P").is_err() && with_size("size=18446744073709486080").is_err());
}

#[test]
fn a_qcow2_source_has_a_bitmaps_figure_if_the_target_can_hold_them() {
    assert_eq!(of_qcow2(&[], None).map(|answer| answer.bitmaps), Ok(Some(0)));
    let old_target = request("qcow2", "compat=0.10", image(Some("qcow2"), None));
    assert_eq!(run(&old_target, &mut memory(empty_qcow2(&[]), false)).map(|answer| answer.bitmaps), Ok(None));
}

#[test]
fn a_backing_file_is_named_and_not_followed() {
    let name = b"ba\nse";
    let patches: [(usize, &[u8]); 3] = [(8, &512_u64.to_be_bytes()), (16, &5_u32.to_be_bytes()), (512, name)];
    let error = of_qcow2(&patches, None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::ReferenceDenied);
    assert_eq!(error.message, "backing file 'ba\\nse' is a reference to another file and was not followed");
    assert_eq!(error.disk.as_deref(), Some("source"));
}

#[test]
fn a_snapshot_that_is_not_there_is_not_found() {
    let error = of_qcow2(&[], Some("x")).unwrap_err();
    assert_eq!(error.message, "Failed to load snapshot: Can't find snapshot");
    let raw = request("nosuch", "", image(Some("raw"), Some("x")));
    let error = run(&raw, &mut memory(vec![], false)).unwrap_err();
    assert_eq!(
        error.message,
        "Failed to load snapshot: Block format 'raw' used by device '' does not support temporarily loading internal snapshots"
    );
}

#[test]
fn a_broken_header_blames_file_and_field() {
    let error = of_qcow2(&[(20, &99_u32.to_be_bytes())], None).unwrap_err();
    assert_eq!(error.disk.as_deref(), Some("source"));
    assert!(error.field.is_some());
    let not_qcow2 = request("raw", "", image(Some("qcow2"), None));
    let error = run(&not_qcow2, &mut memory(vec![0; 4096], false)).unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::InvalidFormat, "Image is not in qcow2 format")
    );
}

#[test]
fn a_broken_table_is_an_unknown_block_status() {
    let error = of_qcow2(&[(3 << 16, &0x8000_0000_0000_0200_u64.to_be_bytes())], None).unwrap_err();
    assert_eq!(error.message, "Unable to get block status: Input/output error");
    assert_eq!(error.kind, ErrorKind::Corrupt);
}
