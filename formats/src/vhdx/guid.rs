//! GUIDs as they lie in a file: the first three numbers little-endian, the rest as it is read.

/// A GUID from the numbers it is written with.
pub(super) const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let ([a, b, c, d], [e, f], [g, h]) = (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes());
    let [i, j, k, l, m, n, o, p] = rest.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}
