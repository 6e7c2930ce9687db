//! Bytes between a file and memory, by vectored system calls that are repeated until all is moved.

use std::{fs::File, io, os::fd::AsRawFd};

use vm_memory::VolatileSlice;

/// Reads into `slices` from `offset` on; answers how many bytes there were before the end of the file. Where the file is read in
/// whole blocks of `block` bytes, a part of one is the end.
pub fn read(file: &File, slices: &[VolatileSlice], offset: u64, block: usize) -> io::Result<usize> {
    let file = file.as_raw_fd();
    transfer(slices, offset, block, |vectors, offset| {
        // SAFETY: the vectors are memory that stays mapped while `slices` live.
        unsafe { libc::preadv64(file, vectors.as_ptr(), vectors.len() as i32, offset) }
    })
}

/// Writes all of `slices` at `offset`; if `durable`, they are on the disk then.
pub fn write(file: &File, slices: &[VolatileSlice], offset: u64, durable: bool) -> io::Result<()> {
    let file = file.as_raw_fd();
    let written = transfer(slices, offset, 1, |vectors, offset| {
        let count = vectors.len() as i32;
        // SAFETY: as for `read`.
        unsafe {
            match durable {
                true => libc::pwritev2(file, vectors.as_ptr(), count, offset, libc::RWF_DSYNC),
                false => libc::pwritev64(file, vectors.as_ptr(), count, offset),
            }
        }
    })?;
    if written == length(slices) { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Bytes of `slices`.
pub fn length(slices: &[VolatileSlice]) -> usize {
    slices.iter().map(VolatileSlice::len).sum()
}

/// Cuts `slices` at `at` bytes.
pub fn split<'m>(
    slices: &[VolatileSlice<'m>],
    at: usize,
) -> io::Result<(Vec<VolatileSlice<'m>>, Vec<VolatileSlice<'m>>)> {
    let (mut head, mut tail) = (vec![], vec![]);
    let mut left = at;
    for slice in slices {
        let count = left.min(slice.len());
        let (before, after) = slice.split_at(count).map_err(io::Error::other)?;
        left -= count;
        if !before.is_empty() {
            head.push(before);
        }
        if !after.is_empty() {
            tail.push(after);
        }
    }
    Ok((head, tail))
}

/// Repeats a system call until all of `slices` is moved, or it moves nothing or a part of a block; answers the bytes moved.
fn transfer(
    slices: &[VolatileSlice],
    offset: u64,
    block: usize,
    call: impl Fn(&[libc::iovec], i64) -> isize,
) -> io::Result<usize> {
    let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard_mut).collect();
    let mut vectors: Vec<libc::iovec> = guards
        .iter()
        .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
        .collect();
    let (mut first, mut all) = (0, 0);
    while first < vectors.len() {
        let at = i64::try_from(offset + all as u64).map_err(io::Error::other)?;
        let mut moved = match usize::try_from(call(&vectors[first..], at)) {
            Ok(moved) => moved,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(error),
            },
        };
        all += moved;
        if moved == 0 || moved % block != 0 {
            break;
        }
        while first < vectors.len() && moved >= vectors[first].iov_len {
            moved -= vectors[first].iov_len;
            first += 1;
        }
        if moved > 0 {
            vectors[first].iov_base = vectors[first].iov_base.wrapping_byte_add(moved);
            vectors[first].iov_len -= moved;
        }
    }
    Ok(all)
}
