//! The arithmetic of measure: nothing overflows; what is required is no more than what a full image takes; and an image
//! with more of its disk allocated never requires less.
#![no_main]

use calc::{
    Length, luks,
    qcow2::{BitmapSpace, ClusterSize, DataClusters, Geometry, Granularity, L2Entries, RefcountBits},
    raw,
};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};

#[derive(Arbitrary, Debug)]
struct Input {
    size: u64,
    cluster_bits: u8,
    refcount_order: u8,
    extended: bool,
    runs: Vec<Run>,
    bitmaps: Vec<(u8, u16)>,
}

/// A run of data of one disk, and of another disk that has data in front of it and behind it as well; lengths in bytes.
#[derive(Arbitrary, Debug)]
struct Run {
    skip: u64,
    before: u64,
    length: u64,
    after: u64,
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

    // Ascending runs of data inside the disk: some on the one, those and more on the other.
    let (mut some, mut more) = (DataClusters::new(cluster_size), DataClusters::new(cluster_size));
    let mut end = 0_u64;
    for run in input.runs {
        let inside = |from: u64, length: u64| from.saturating_add(length).min(size.bytes());
        let start = inside(end, run.skip);
        let from = inside(start, run.before);
        let to = inside(from, run.length);
        end = inside(to, run.after);
        let before = some.bytes();
        add(&mut some, from, to);
        add(&mut more, start, end);
        assert!(some.bytes() >= before && some.bytes().is_multiple_of(cluster_size.bytes()));
        assert!(some.bytes() - before >= (to - from).saturating_sub(2 * cluster_size.bytes()));
        assert!(some.bytes() <= more.bytes(), "more data requires no less");
        let (required, full) = (metadata + more.bytes(), geometry.fully_allocated(size));
        assert!(required <= full, "data takes no more than the disk");
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

fn add(data: &mut DataClusters, start: u64, end: u64) {
    data.add(Length::new(start).expect("inside"), Length::new(end).expect("inside"));
}
