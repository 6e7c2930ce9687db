//! Apple disk images (UDIF), which no tool at hand writes.

use crate::{SparseFile, be};

/// Type of a chunk of zeros.
pub const ZERO: u32 = 0;
/// Type of a chunk that is stored as it is.
pub const RAW: u32 = 1;
/// Type of a chunk that nobody wrote to.
pub const IGNORE: u32 = 2;
/// Type of a chunk that is compressed with ADC.
pub const ADC: u32 = 0x8000_0004;
/// Type of a chunk that is a zlib stream.
pub const ZLIB: u32 = 0x8000_0005;
/// Type of a chunk that is compressed with bzip2.
pub const BZIP2: u32 = 0x8000_0006;
/// Type of a chunk that is compressed with LZFSE.
pub const LZFSE: u32 = 0x8000_0007;
/// Type of a chunk that is compressed with LZMA.
pub const LZMA: u32 = 0x8000_0008;
/// Type of an entry that is no chunk.
pub const COMMENT: u32 = 0x7fff_fffe;
/// Type of the last entry.
pub const END: u32 = 0xffff_ffff;

/// Type, first sector, number of sectors, offset and length in the data fork.
pub type Chunk = (u32, u64, u64, u64, u64);

/// Sectors of 7 in a zlib stream of one stored block, and a chunk of 9 as it is, on a disk that goes on with zeros.
pub const CHUNKS: [Chunk; 5] = [
    (ZLIB, 0, 2, 0, STREAM_LEN),
    (RAW, 2, 8, 1536, 4096),
    (ZERO, 10, 8, 0, 0),
    (IGNORE, 18, 14, 0, 0),
    (END, 32, 0, 0, 0),
];
/// Sectors of the disk.
pub const SECTORS: u64 = 32;
/// Bytes of the stream.
pub const STREAM_LEN: u64 = 7 + 1024 + 4;
/// Bytes of the data fork, which comes first.
pub const DATA_LEN: usize = 1536 + 4096;

/// Where the resource fork of [`sample`] is.
pub const RSRC: usize = DATA_LEN;
/// Where the first resource of [`sample`] is.
pub const RESOURCE: usize = RSRC + 256;
/// Where its block of chunks is.
pub const BLOCK: usize = RESOURCE + 4;
/// Where the entries of the block are.
pub const ENTRIES: usize = BLOCK + 204;
/// Where the trailer of [`sample`] is.
pub const TRAILER: usize = ENTRIES + 40 * CHUNKS.len();

/// The data fork.
pub fn data() -> Vec<u8> {
    let content = [7; 1024];
    let (low, high) = content.iter().fold((1_u32, 0_u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65521;
        (low, (high + low) % 65521)
    });
    let mut bytes = vec![0x78, 0x01, 0x01, 0x00, 0x04, 0xff, 0xfb];
    bytes.extend(content);
    bytes.extend((high << 16 | low).to_be_bytes());
    assert_eq!(bytes.len() as u64, STREAM_LEN);
    bytes.resize(1536, 0);
    bytes.resize(DATA_LEN, 9);
    bytes
}

/// A block of chunks; their sectors are counted from `first`, their places from `offset`.
pub fn block(first: u64, offset: u64, chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = b"mish".to_vec();
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend([first, SECTORS, offset].into_iter().flat_map(u64::to_be_bytes));
    bytes.resize(204, 0);
    for &(kind, sector, sectors, offset, length) in chunks {
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([sector, sectors, offset, length].into_iter().flat_map(u64::to_be_bytes));
    }
    bytes
}

/// A trailer: sectors, resource fork and property list.
pub fn trailer(sectors: u64, resources: (usize, usize), list: (usize, usize)) -> Vec<u8> {
    let number = |value: usize| u64::try_from(value).unwrap();
    let fields = [
        (0, 4, 0x6b6f_6c79),
        (4, 4, 4),
        (8, 4, 512),
        (0x28, 8, number(resources.0)),
        (0x30, 8, number(resources.1)),
        (0xd8, 8, number(list.0)),
        (0xe0, 8, number(list.1)),
        (0x1ec, 8, sectors),
    ];
    let empty = SparseFile::new().with_length(512);
    fields.iter().fold(empty, |file, &(at, width, value)| file.set(be(at, width), value)).bytes(0, 512)
}

/// An image whose chunks a resource fork describes.
pub fn with_resources(data: Vec<u8>, blocks: &[Vec<u8>], sectors: u64) -> Vec<u8> {
    let mut bytes = data;
    let start = bytes.len();
    let length: usize = blocks.iter().map(|block| block.len() + 4).sum();
    for number in [256, 256 + length, length] {
        bytes.extend(u32::try_from(number).unwrap().to_be_bytes());
    }
    bytes.resize(start + 256, 0);
    for block in blocks {
        bytes.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
        bytes.extend(block);
    }
    let end = bytes.len();
    bytes.extend(trailer(sectors, (start, end - start), (0, 0)));
    bytes
}

/// An image whose chunks a property list describes.
pub fn with_list(data: Vec<u8>, list: &str, sectors: u64) -> Vec<u8> {
    let mut bytes = data;
    let start = bytes.len();
    bytes.extend(list.as_bytes());
    bytes.extend(trailer(sectors, (0, 0), (start, list.len())));
    bytes
}

/// Base64 with line breaks.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for (index, group) in bytes.chunks(3).enumerate() {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap();
            out.push(if at > group.len() { '=' } else { char::from(DIGITS[digit]) });
        }
        if index % 13 == 12 {
            out.push_str("\n\t\t\t\t");
        }
    }
    out
}

/// A property list of blocks of chunks.
pub fn list(blocks: &[Vec<u8>]) -> String {
    let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\"><dict>\n".to_owned();
    out += "\t<key>resource-fork</key><dict><key>blkx</key><array>\n";
    for block in blocks {
        out += &format!(
            "\t\t<dict><key>Data</key>\n\t\t<data>\n\t\t\t\t{}\n\t\t</data></dict>\n",
            base64(block)
        );
    }
    out + "</array></dict></dict></plist>\n"
}

/// A sound image with a resource fork.
pub fn sample() -> Vec<u8> {
    let bytes = with_resources(data(), &[block(0, 0, &CHUNKS)], SECTORS);
    assert_eq!(bytes.len(), TRAILER + 512);
    bytes
}
