//! The host's block device under a driver that does anything: no panic, no byte written where it must not be, reads give
//! the file, and a read-only file stays as it is.
#![no_main]

use std::{
    fs::File,
    os::{fd::FromRawFd, unix::fs::FileExt},
    sync::Arc,
};

use instar::devices::{Block, DiskFile};
use instar_fuzz::driver::{Completed, Deed, Driver};
use libfuzzer_sys::fuzz_target;

/// Bytes of the file: not whole sectors.
const LENGTH: usize = 10_000;

const IN: u32 = 0;
const OUT: u32 = 1;
const GET_ID: u32 = 8;
const OK: u8 = 0;

fuzz_target!(|input: (bool, Vec<Deed>)| {
    let (writable, deeds) = input;
    let content: Vec<u8> = (0..LENGTH).map(|at| (at / 7 + at / 512) as u8).collect();
    // SAFETY: the name is a string; the descriptor is ours alone.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC)) };
    file.write_all_at(&content, 0).expect("a file in memory");
    let shared = file.try_clone().expect("a descriptor");
    let disk = match writable {
        true => DiskFile::writable(shared, LENGTH as u64, LENGTH as u64),
        false => DiskFile::read_only(shared, LENGTH as u64),
    };
    let device = Block::new(Arc::new(disk), "source");

    Driver::new(device).run(&deeds, |driver, request| {
        let Some(header) = request.header else { return };
        let total: u64 = request.buffers.iter().map(|&(_, length, _)| u64::from(length)).sum();
        let disk = (LENGTH as u64).div_ceil(512);
        let inside = total.is_multiple_of(512)
            && header.sector().checked_add(total / 512).is_some_and(|end| end <= disk);
        match (header.kind(), request.status) {
            (IN, OK) => {
                assert!(inside, "{header:?} is not on the disk");
                read_is_the_file(driver, request, &file);
            }
            (IN, _) => assert!(!inside, "{header:?} is on the disk"),
            (OUT, OK) => assert!(inside && writable, "{header:?} is not to be written"),
            (OUT, _) | (GET_ID, _) => {}
            (4, status) => assert_eq!(status == OK, writable, "a flush"),
            (_, status) => assert_eq!(status, 2, "{header:?} does not exist"),
        }
    });

    let mut now = vec![0; LENGTH];
    file.read_exact_at(&mut now, 0).expect("the file is as long as it was");
    assert!(writable || now == content, "a read-only file was changed");
    let length = file.metadata().expect("a file").len();
    assert!(length == LENGTH as u64 || writable && length <= (LENGTH as u64).next_multiple_of(512));
});

fn read_is_the_file(driver: &Driver, request: &Completed, file: &File) {
    let mut spans: Vec<_> =
        request.buffers.iter().map(|&(at, length, _)| (at, at + u64::from(length))).collect();
    spans.sort();
    if spans.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        // Buffers over each other.
        return;
    }
    let mut offset = request.header.map_or(0, |header| header.sector() * 512);
    for &(address, length, _) in &request.buffers {
        let mut expected = vec![0; length as usize];
        let mut done = 0;
        while let Ok(count @ 1..) = file.read_at(&mut expected[done..], offset + done as u64) {
            done += count;
        }
        assert!(driver.read(address, length) == expected, "a read at {offset} is not what the file holds");
        offset += u64::from(length);
    }
}
