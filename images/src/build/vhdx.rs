//! VHDX files: the parts that no tool at hand writes.

/// Unit of the layout in bytes.
pub const MIB: usize = 1 << 20;
/// File offsets of the two headers.
pub const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
/// File offset of the region table.
pub const REGIONS: usize = 192 << 10;
/// File offset of the log, which is 1 MiB long.
pub const LOG: usize = MIB;
/// File offset of the block allocation table.
pub const BAT: usize = 2 * MIB;
/// File offset of the metadata.
pub const METADATA: usize = 3 * MIB;
/// Where the first payload block can be.
pub const PAYLOAD: usize = 4 * MIB;
/// Metadata items as they lie in a [`Builder`]'s file.
pub const ITEMS: usize = METADATA + (64 << 10);
/// What tells the entries of the log.
pub const LOG_GUID: [u8; 16] = [0x5a; 16];

/// State of a block that is there.
pub const FULL: u64 = 6;
/// State of a block whose bitmap says which sectors are there.
pub const PARTIAL: u64 = 7;

/// CRC-32C, bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |mut register, &byte| {
        register ^= u32::from(byte);
        for _ in 0..8 {
            register = (register >> 1) ^ if register & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
        register
    })
}

/// Writes bytes over others.
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Makes the checksum of the structure right.
pub fn seal(structure: &mut [u8]) {
    put(structure, 4, &[0; 4]);
    let sum = crc32c(structure);
    put(structure, 4, &sum.to_le_bytes());
}

/// Makes all checksums of the header section right.
pub fn seal_all(bytes: &mut [u8]) {
    for at in HEADERS {
        seal(&mut bytes[at..at + 4096]);
    }
    seal(&mut bytes[REGIONS..REGIONS + 65536]);
}

/// A GUID of text, as it lies in a file.
pub fn guid(text: &str) -> [u8; 16] {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let byte = |at: usize| {
        u8::from_str_radix(std::str::from_utf8(&digits[2 * at..2 * at + 2]).unwrap(), 16).unwrap()
    };
    [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(byte)
}

/// What a file is made of; the log is empty.
pub struct Builder {
    /// Bytes of a block.
    pub block_size: u32,
    /// Bytes of a sector of the disk.
    pub sector_size: u32,
    /// Bytes of the disk.
    pub size: u64,
    /// The parent locator of a differencing disk.
    pub parent: Option<Vec<u8>>,
    /// Entries by their index.
    pub bat: Vec<(usize, u64)>,
    /// Length of the file in MiB.
    pub length: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self { block_size: 1 << 20, sector_size: 512, size: 8 << 20, parent: None, bat: vec![], length: 16 }
    }
}

impl Builder {
    /// The file, its checksums right.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length * MIB];
        put(&mut bytes, 0, b"vhdxfile");
        for (number, at) in (1_u64..).zip(HEADERS) {
            put(&mut bytes, at, b"head");
            put(&mut bytes, at + 8, &number.to_le_bytes());
            put(&mut bytes, at + 66, &1_u16.to_le_bytes());
            put(&mut bytes, at + 68, &1_048_576_u32.to_le_bytes());
            put(&mut bytes, at + 72, &(LOG as u64).to_le_bytes());
        }
        put(&mut bytes, REGIONS, b"regi");
        put(&mut bytes, REGIONS + 8, &2_u32.to_le_bytes());
        for (number, id, at) in [
            (0, "2dc27766-f623-4200-9d64-115e9bfd4a08", BAT),
            (1, "8b7ca206-4790-4b9a-b8fe-575f050f886e", METADATA),
        ] {
            let entry = REGIONS + 16 + 32 * number;
            put(&mut bytes, entry, &guid(id));
            put(&mut bytes, entry + 16, &(at as u64).to_le_bytes());
            put(&mut bytes, entry + 24, &1_048_576_u32.to_le_bytes());
            put(&mut bytes, entry + 28, &1_u32.to_le_bytes());
        }
        let flags = u32::from(self.parent.is_some()) << 1;
        let mut items: Vec<(&str, Vec<u8>)> = vec![
            (
                "caa16737-fa36-4d43-b3b6-33f0aa44e76b",
                [self.block_size.to_le_bytes(), flags.to_le_bytes()].concat(),
            ),
            ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", self.size.to_le_bytes().to_vec()),
            ("beca12ab-b2e6-4523-93ef-c309e000c746", vec![9; 16]),
            ("8141bf1d-a96f-4709-ba47-f233a8faab5f", self.sector_size.to_le_bytes().to_vec()),
            ("cda348c7-445d-4471-9cc9-e9885251c556", 4096_u32.to_le_bytes().to_vec()),
        ];
        if let Some(parent) = &self.parent {
            items.push(("a8d35f2d-b30b-454d-abf7-d3d84834ab0c", parent.clone()));
        }
        put(&mut bytes, METADATA, b"metadata");
        put(&mut bytes, METADATA + 10, &u16::try_from(items.len()).unwrap().to_le_bytes());
        let mut at = ITEMS;
        for (number, (id, value)) in items.iter().enumerate() {
            let entry = METADATA + 32 + 32 * number;
            put(&mut bytes, entry, &guid(id));
            put(&mut bytes, entry + 16, &u32::try_from(at - METADATA).unwrap().to_le_bytes());
            put(&mut bytes, entry + 20, &u32::try_from(value.len()).unwrap().to_le_bytes());
            put(&mut bytes, entry + 24, &4_u32.to_le_bytes());
            put(&mut bytes, at, value);
            at += value.len();
        }
        for &(index, entry) in &self.bat {
            put(&mut bytes, BAT + 8 * index, &entry.to_le_bytes());
        }
        seal_all(&mut bytes);
        bytes
    }
}

/// A parent locator of these keys and values.
pub fn locator(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = guid("b04aefb7-d19e-4a81-b789-25b8e9445913").to_vec();
    bytes.extend([0, 0]);
    bytes.extend(u16::try_from(pairs.len()).unwrap().to_le_bytes());
    let mut strings: Vec<u8> = Vec::new();
    let start = 20 + 12 * pairs.len();
    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    for (key, value) in pairs {
        let (key, value) = (utf16(key), utf16(value));
        let at = start + strings.len();
        bytes.extend(u32::try_from(at).unwrap().to_le_bytes());
        bytes.extend(u32::try_from(at + key.len()).unwrap().to_le_bytes());
        bytes.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
        bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        strings.extend(key);
        strings.extend(value);
    }
    bytes.extend(strings);
    bytes
}

/// What a log entry does.
pub enum Change {
    /// Writes a page.
    Data {
        /// File offset.
        at: u64,
        /// 4096 bytes.
        page: Vec<u8>,
    },
    /// Writes zeros.
    Zero {
        /// File offset.
        at: u64,
        /// How many, in bytes.
        length: u64,
    },
}

/// A log entry with the lengths of the file it was written for.
pub fn log_entry(sequence: u64, tail: usize, changes: &[Change], flushed: u64, last: u64) -> Vec<u8> {
    let head = (64 + 32 * changes.len()).next_multiple_of(4096);
    let mut bytes = vec![0; head];
    for (number, change) in changes.iter().enumerate() {
        let descriptor = 64 + 32 * number;
        match change {
            Change::Zero { at, length } => {
                put(&mut bytes, descriptor, b"zero");
                put(&mut bytes, descriptor + 8, &length.to_le_bytes());
                put(&mut bytes, descriptor + 16, &at.to_le_bytes());
            }
            Change::Data { at, page } => {
                put(&mut bytes, descriptor, b"desc");
                put(&mut bytes, descriptor + 4, &page[4092..]);
                put(&mut bytes, descriptor + 8, &page[..8]);
                put(&mut bytes, descriptor + 16, &at.to_le_bytes());
                let sector = bytes.len();
                bytes.extend(page);
                put(&mut bytes, sector, b"data");
                put(&mut bytes, sector + 4, &sequence.to_le_bytes()[4..]);
                put(&mut bytes, sector + 4092, &sequence.to_le_bytes()[..4]);
            }
        }
        put(&mut bytes, descriptor + 24, &sequence.to_le_bytes());
    }
    let length = u32::try_from(bytes.len()).unwrap();
    put(&mut bytes, 0, b"loge");
    put(&mut bytes, 8, &length.to_le_bytes());
    put(&mut bytes, 12, &u32::try_from(tail).unwrap().to_le_bytes());
    put(&mut bytes, 16, &sequence.to_le_bytes());
    put(&mut bytes, 24, &u32::try_from(changes.len()).unwrap().to_le_bytes());
    put(&mut bytes, 32, &LOG_GUID);
    put(&mut bytes, 48, &flushed.to_le_bytes());
    put(&mut bytes, 56, &last.to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// Puts an entry into the ring at `at`, and says in the headers that there is something in the log.
pub fn put_log(bytes: &mut [u8], at: usize, entry: &[u8]) {
    for (skip, page) in entry.chunks(4096).enumerate() {
        put(bytes, LOG + (at + skip * 4096) % MIB, page);
    }
    for header in HEADERS {
        put(bytes, header + 48, &LOG_GUID);
        seal(&mut bytes[header..header + 4096]);
    }
}
