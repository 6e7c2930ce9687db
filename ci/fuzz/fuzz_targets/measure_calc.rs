//! The arithmetic of measure: nothing overflows; what is required is no more than what a full image takes; and an image
//! with more of its disk allocated never requires less.
#![no_main]

use calc::{
    Length, NewImage, luks, parallels, qcow,
    qcow2::{BitmapSpace, ClusterSize, DataClusters, Geometry, Granularity, L2Entries, RefcountBits},
    qed, raw, vdi, vhdx, vmdk, vpc,
};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};

#[derive(Arbitrary, Debug)]
struct Input {
    size: u64,
    cluster_bits: u8,
    refcount_order: u8,
    extended: bool,
    other: Other,
    runs: Vec<Run>,
    bitmaps: Vec<(u8, u16)>,
}

/// An image of a format that qemu-img does not measure; numbers are options as they are given, or lengths of texts.
#[derive(Arbitrary, Debug)]
enum Other {
    Vmdk { subformat: u8, adapter: u8, hardware: u32, tools: Option<u32>, backing: Option<u32>, old: bool },
    Vpc { fixed: bool, forced: bool },
    Vhdx { block_size: u64, log_size: u64, kind: u8 },
    Vdi { fixed: bool },
    Qcow { backing: Option<u32> },
    Qed { cluster_bits: u8, table: u8 },
    Parallels { cluster_size: u64, masked: bool },
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
    other_formats(size, &input.other, &input.runs);
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

/// Measures the image, if there is one.
fn other_formats(size: Length, other: &Other, runs: &[Run]) {
    match *other {
        Other::Vmdk { subformat, adapter, hardware, tools, backing, old } => {
            use vmdk::{Adapter, Subformat};
            let subformats = [
                Subformat::MonolithicSparse,
                Subformat::StreamOptimized,
                Subformat::MonolithicFlat,
                Subformat::TwoGbMaxExtentSparse,
                Subformat::TwoGbMaxExtentFlat,
            ];
            let adapters = [Adapter::Ide, Adapter::LsiLogic, Adapter::BusLogic, Adapter::LegacyEsx];
            let descriptor = vmdk::Descriptor {
                adapter: adapters[usize::from(adapter) % adapters.len()],
                hardware_version: hardware,
                tools_version: tools,
                backing_name: backing,
                rewrite: if old { vmdk::Rewrite::Embedded } else { vmdk::Rewrite::Sectors },
            };
            let subformat = subformats[usize::from(subformat) % subformats.len()];
            written(size, runs, vmdk::Image::new(size, subformat, descriptor).ok());
        }
        Other::Vpc { fixed, forced } => {
            let kind = if fixed { vpc::Kind::Fixed } else { vpc::Kind::Dynamic };
            let rule = if forced { vpc::Size::Forced } else { vpc::Size::Geometry };
            let image = vpc::Image::new(size, kind, rule);
            if let Some(image) = image {
                assert!(image.disk() >= size, "a disk only grows");
            }
            written(size, runs, image);
        }
        Other::Vhdx { block_size, log_size, kind } => {
            let kinds = [vhdx::Kind::Dynamic, vhdx::Kind::Fixed, vhdx::Kind::FixedZero];
            let block_size =
                vhdx::BlockSize::new(block_size).unwrap_or_else(|| vhdx::BlockSize::for_disk(size));
            let log = vhdx::LogSize::new(log_size).unwrap_or(vhdx::LogSize::DEFAULT);
            written(size, runs, vhdx::Image::new(size, block_size, log, kinds[usize::from(kind) % 3]));
        }
        Other::Vdi { fixed } => {
            let kind = if fixed { vdi::Kind::Static } else { vdi::Kind::Dynamic };
            written(size, runs, vdi::Image::new(size, kind));
        }
        Other::Qcow { backing } => written(size, runs, qcow::Image::new(size, backing)),
        Other::Qed { cluster_bits, table } => {
            let cluster = qed::ClusterSize::new(1 << (12 + cluster_bits % 15)).expect("12 to 26 bits");
            let table = qed::TableSize::new(1 << (table % 5)).expect("1 to 16 clusters");
            written(size, runs, qed::Image::new(size, cluster, table).ok());
        }
        Other::Parallels { cluster_size, masked } => {
            let start = if masked { parallels::Start::Masked } else { parallels::Start::Whole };
            let Some(cluster) = parallels::ClusterSize::new(cluster_size) else { return };
            written(size, runs, parallels::Image::new(size, cluster, start).ok());
        }
    }
}

/// Writes the runs: some to the one image, those and more to the other.
fn written<I: NewImage>(size: Length, runs: &[Run], image: Option<I>) {
    let Some(image) = image else { return };
    let (empty, full) = (image.length(), image.fully_allocated());
    assert!(empty <= full);
    let (mut some, mut more) = (image.empty(), image);
    let at = |bytes| Length::new(bytes).expect("inside");
    let mut end = 0_u64;
    for run in runs {
        let inside = |from: u64, length: u64| from.saturating_add(length).min(size.bytes());
        let start = inside(end, run.skip);
        let from = inside(start, run.before);
        let to = inside(from, run.length);
        end = inside(to, run.after);
        let before = some.length();
        some.write(at(from), at(to));
        more.write(at(start), at(end));
        assert!(some.length() >= before && some.length() >= empty);
        assert!(some.length() <= more.length(), "more data requires no less");
        assert!(more.length() <= full, "data takes no more than the disk");
        assert_eq!(some.fully_allocated(), full, "a full image is as long whatever was written");
    }
}
