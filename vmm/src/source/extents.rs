//! Where a file has data and where it has holes, by `SEEK_DATA` and `SEEK_HOLE`.

use std::{
    fs::File,
    io::{BufWriter, Write},
    time::Instant,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use protocol::{ExtentMap, MAX_INLINE_EXTENTS};
use vmm_sys_util::seek_hole::SeekHole;

use super::SourceError;

/// Most data extents of one file: a map of 64 MiB in memory, and some seconds of `lseek`. A file system's own limits
/// are far higher, so a file crafted to be nothing but holes is refused rather than measured for hours.
pub const MAX_EXTENTS: u64 = 4 << 20;

/// Bytes of an extent in a map that is a file: start and end, little-endian.
pub const RANGE: u64 = 16;

/// Extents between two looks at the clock.
const CLOCK_EVERY: u64 = 256;

/// The map of a file that is data throughout.
pub fn all(length: u64) -> Vec<(u64, u64)> {
    if length == 0 { Vec::new() } else { vec![(0, length)] }
}

/// Maps the first `length` bytes of a file. A map too long for the payload comes back as a file of its own.
pub fn scan(
    file: &mut File,
    length: u64,
    serial: &str,
    deadline: Instant,
) -> Result<(ExtentMap, Option<File>), SourceError> {
    let mut inline = Vec::new();
    let mut spilled: Option<BufWriter<File>> = None;
    let mut count = 0;
    let mut end = 0;
    while end < length {
        let extent = match next_extent(file, end, length) {
            Ok(Some(extent)) => extent,
            Ok(None) => break,
            // A file that cannot tell is data throughout.
            Err(_) => return Ok((ExtentMap::Inline(all(length)), None)),
        };
        end = extent.1;
        count += 1;
        if count > MAX_EXTENTS {
            return Err(SourceError::TooManyExtents);
        }
        if count.is_multiple_of(CLOCK_EVERY) && Instant::now() >= deadline {
            return Err(SourceError::Timeout);
        }
        if inline.len() < MAX_INLINE_EXTENTS {
            inline.push(extent);
            continue;
        }
        let writer = match &mut spilled {
            Some(writer) => writer,
            None => {
                let mut writer = spill()?;
                for &extent in &inline {
                    put(&mut writer, extent)?;
                }
                spilled.insert(writer)
            }
        };
        put(writer, extent)?;
    }
    match spilled {
        None => Ok((ExtentMap::Inline(inline), None)),
        Some(writer) => {
            let map = writer.into_inner().map_err(|error| SourceError::Map(error.into_error()))?;
            Ok((ExtentMap::Disk { disk: format!("{serial}.extents"), count }, Some(map)))
        }
    }
}

/// The first stretch of data at or behind `from`, cut at `length`.
fn next_extent(file: &mut File, from: u64, length: u64) -> std::io::Result<Option<(u64, u64)>> {
    let Some(start) = file.seek_data(from)?.filter(|&start| start < length) else {
        return Ok(None);
    };
    let end = match file.seek_hole(start)? {
        Some(end) if end > start => end.min(length),
        // The file shrank between the two calls.
        _ => length,
    };
    Ok(Some((start, end)))
}

fn spill() -> Result<BufWriter<File>, SourceError> {
    let fd = memfd_create(c"instar-extents", MFdFlags::MFD_CLOEXEC)
        .map_err(|errno| SourceError::Map(errno.into()))?;
    Ok(BufWriter::with_capacity(64 << 10, File::from(fd)))
}

fn put(writer: &mut BufWriter<File>, (start, end): (u64, u64)) -> Result<(), SourceError> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&start.to_le_bytes());
    bytes[8..].copy_from_slice(&end.to_le_bytes());
    writer.write_all(&bytes).map_err(SourceError::Map)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::FileExt, time::Duration};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn sparse(length: u64, data: impl Iterator<Item = u64>) -> File {
        let file = File::from(memfd_create(c"test", MFdFlags::empty()).unwrap());
        file.set_len(length).unwrap();
        for offset in data {
            file.write_all_at(b"x", offset).unwrap();
        }
        file
    }

    #[test]
    fn data_and_holes_are_told_apart() {
        let mut file = sparse(1 << 20, [0, 8192, 12288].into_iter());
        let (map, disk) = scan(&mut file, 1 << 20, "source", soon()).unwrap();
        assert_eq!(map, ExtentMap::Inline(vec![(0, 4096), (8192, 16384)]));
        assert!(disk.is_none());
    }

    #[test]
    fn a_hole_throughout_and_an_empty_file_have_no_extents() {
        for length in [0, 1, 1 << 40] {
            let mut file = sparse(length, std::iter::empty());
            assert_eq!(scan(&mut file, length, "s", soon()).unwrap().0, ExtentMap::Inline(Vec::new()));
        }
    }

    #[test]
    fn the_last_extent_ends_with_the_file() {
        let mut file = sparse(5000, [4999].into_iter());
        assert_eq!(scan(&mut file, 5000, "s", soon()).unwrap().0, ExtentMap::Inline(vec![(4096, 5000)]));
    }

    #[test]
    fn a_long_map_becomes_a_disk() {
        let count = MAX_INLINE_EXTENTS as u64 + 1;
        let mut file = sparse(count * 8192, (0..count).map(|index| index * 8192));
        let (map, disk) = scan(&mut file, count * 8192, "source", soon()).unwrap();
        assert_eq!(map, ExtentMap::Disk { disk: "source.extents".into(), count });
        let disk = disk.unwrap();
        assert_eq!(disk.metadata().unwrap().len(), count * 16);
        let mut pair = [0; 16];
        disk.read_exact_at(&mut pair, 16).unwrap();
        assert_eq!(pair[..8], 8192u64.to_le_bytes());
        assert_eq!(pair[8..], 12288u64.to_le_bytes());
        disk.read_exact_at(&mut pair, (count - 1) * 16).unwrap();
        assert_eq!(pair[..8], ((count - 1) * 8192).to_le_bytes());
    }

    #[test]
    fn a_map_of_exactly_the_inline_length_stays_inline() {
        let count = MAX_INLINE_EXTENTS as u64;
        let mut file = sparse(count * 8192, (0..count).map(|index| index * 8192));
        let (map, disk) = scan(&mut file, count * 8192, "source", soon()).unwrap();
        assert!(matches!(map, ExtentMap::Inline(extents) if extents.len() as u64 == count));
        assert!(disk.is_none());
    }

    #[test]
    fn the_deadline_ends_the_search() {
        let mut file = sparse(512 * 8192, (0..512).map(|index| index * 8192));
        assert!(matches!(scan(&mut file, 512 * 8192, "s", Instant::now()), Err(SourceError::Timeout)));
    }
}
