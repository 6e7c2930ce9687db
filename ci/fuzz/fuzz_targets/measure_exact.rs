//! Following the writing of a qcow2 file: nothing overflows, and a file only grows.
#![no_main]

use calc::{
    Length,
    qcow2::{ClusterSize, Geometry, L2Entries, Layout, Preallocation, RefcountBits, Writer},
};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};

/// Clusters of the largest disk that is preallocated here: that takes a step for each L2 table.
const PATIENCE: u64 = 1 << 22;

#[derive(Arbitrary, Debug)]
struct Input {
    size: u64,
    cluster_bits: u8,
    refcount_order: u8,
    extended: bool,
    preallocation: u8,
    luks: bool,
    data_file: bool,
    writes: Vec<(u64, u32)>,
}

fuzz_target!(|input: Input| {
    let Some(size) = Length::new(input.size) else { return };
    let cluster_size = ClusterSize::new(1 << (9 + input.cluster_bits % 13)).expect("9 to 21 bits");
    let refcounts = RefcountBits::new(1 << (input.refcount_order % 7)).expect("1 to 64 bits");
    let entries = if input.extended { L2Entries::Extended } else { L2Entries::Standard };
    let Some(geometry) = Geometry::new(cluster_size, entries, refcounts) else { return };
    let kinds = [Preallocation::Off, Preallocation::Metadata, Preallocation::Data];
    let preallocation = kinds[usize::from(input.preallocation % 3)];
    if preallocation != Preallocation::Off && size.bytes() / cluster_size.bytes() > PATIENCE {
        return;
    }
    let luks = u64::from(input.luks) * cluster_size.bytes().max(2 << 20);
    let layout = Layout { geometry, preallocation, luks, data_file: input.data_file };
    let Some(mut writer) = Writer::new(layout, size) else {
        assert!(!geometry.fits(size));
        return;
    };
    let mut end = 0_u64;
    for (skip, length) in input.writes {
        let Some(start) = end.checked_add(skip).and_then(Length::new) else { break };
        let Some(stop) = Length::new(start.bytes().saturating_add(u64::from(length) % (2 << 20))) else {
            break;
        };
        let before = writer.length();
        writer.write(start, stop);
        if let (Some(before), Some(after)) = (before, writer.length()) {
            assert!(after >= before, "a write makes a file shorter");
        }
        end = stop.bytes();
    }
});
