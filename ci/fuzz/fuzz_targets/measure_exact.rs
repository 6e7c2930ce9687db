//! The arithmetic of measure: nothing overflows, data never takes more than all of the disk, and more data takes more.
#![no_main]

use calc::{
    Length, luks,
    qcow2::{
        BitmapSpace, ClusterSize, DataClusters, Geometry, Granularity, L2Entries, Layout, Preallocation,
        RefcountBits, Writer,
    },
    raw,
};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};

#[derive(Arbitrary, Debug)]
struct Input {
    size: u64,
    cluster_bits: u8,
    refcount_order: u8,
    extended: bool,
    preallocation: u8,
    luks: bool,
    data_file: bool,
    runs: Vec<(u64, u64)>,
    bitmaps: Vec<(u8, u16)>,
}

fuzz_target!(|input: Input| {
    let Some(size) = Length::new(input.size) else { return };
    assert!(raw::length(size).bytes() - size.bytes() < 512);

    let cluster_size = ClusterSize::new(1 << (9 + input.cluster_bits % 13)).expect("9 to 21 bits");
    let refcounts = RefcountBits::new(1 << (input.refcount_order % 7)).expect("1 to 64 bits");
    let entries = if input.extended { L2Entries::Extended } else { L2Entries::Standard };
    let Some(geometry) = Geometry::new(cluster_size, entries, refcounts) else { return };
    let (metadata, disk) = (geometry.metadata(size), geometry.virtual_size(size).bytes());
    assert_eq!(geometry.fully_allocated(size), metadata + disk);
    assert!(metadata >= 3 * cluster_size.bytes(), "a header, a refcount table, a refcount block");
    assert_eq!(metadata % cluster_size.bytes(), 0);
    if let Some(more) = size.bytes().checked_add(cluster_size.bytes()).and_then(Length::new) {
        assert!(geometry.metadata(more) >= metadata);
        assert!(geometry.fits(size) || !geometry.fits(more), "a smaller disk fits if a larger one does");
    }

    let layout = Layout {
        geometry,
        preallocation: [Preallocation::Off, Preallocation::Metadata, Preallocation::Data]
            [usize::from(input.preallocation % 3)],
        luks: u64::from(input.luks) * cluster_size.bytes().max(2 << 20),
        data_file: input.data_file,
    };
    // What is set aside takes a step for each L2 table.
    let patient = layout.preallocation == Preallocation::Off || disk / cluster_size.bytes() < 1 << 22;
    let mut writer = if patient { Writer::new(layout, size) } else { None };

    // Ascending runs of data inside the disk.
    let mut data = DataClusters::new(cluster_size);
    let mut end = 0_u64;
    for (skip, length) in input.runs {
        let Some(start) = end.checked_add(skip).filter(|&start| start <= size.bytes()) else { break };
        end = start.saturating_add(length).min(size.bytes());
        let before = data.bytes();
        data.add(Length::new(start).expect("inside"), Length::new(end).expect("inside"));
        assert!(data.bytes() >= before && data.bytes().is_multiple_of(cluster_size.bytes()));
        assert!(data.bytes() - before >= (end - start).saturating_sub(2 * cluster_size.bytes()));
        assert!(data.bytes() <= disk, "data takes no more than the disk");
        if let Some(writer) = &mut writer {
            write(writer, start, end.min(start.saturating_add(64 << 20)));
        }
    }

    let mut space = BitmapSpace::new(cluster_size);
    for (bits, name) in input.bitmaps {
        if let Some(granularity) = Granularity::from_bits(bits.into())
            && space.add(size, granularity, name).is_err()
        {
            break;
        }
    }
    if let Ok(bytes) = space.bytes() {
        assert_eq!(bytes % cluster_size.bytes(), 0);
    }

    for key in [luks::CipherKey::Bits128, luks::CipherKey::Bits192, luks::CipherKey::Bits256] {
        for key_use in [luks::KeyUse::Single, luks::KeyUse::Double] {
            let payload = luks::payload_offset(key, key_use);
            assert_eq!(luks::image_length(key, key_use, size), payload + size.bytes());
            assert!(luks::length_in_qcow2(key, key_use, cluster_size) - payload < cluster_size.bytes());
        }
    }
});

/// A run of data, written as `convert` does; the file only grows.
fn write(writer: &mut Writer, mut start: u64, end: u64) {
    while start < end {
        let next = end.min(start + (2 << 20));
        let before = writer.length();
        writer.write(Length::new(start).expect("inside"), Length::new(next).expect("inside"));
        if let (Some(before), Some(after)) = (before, writer.length()) {
            assert!(after >= before, "a write makes a file shorter");
        }
        start = next;
    }
}
