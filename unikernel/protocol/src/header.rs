//! The fixed little-endian header in front of every command.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

/// First four bytes of every command: `NSTR` in file order.
const MAGIC: u32 = u32::from_le_bytes(*b"NSTR");

/// Version of the header, the payloads and the records together.
pub const VERSION: u16 = 1;

/// Length of the header in bytes.
pub const HEADER_LENGTH: usize = size_of::<Layout>();

/// Longest payload in bytes: enough for every option and [`MAX_INLINE_EXTENTS`](crate::MAX_INLINE_EXTENTS) extents.
pub const MAX_PAYLOAD: u32 = 1 << 20;

/// An operation of the unikernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// Sizes of a new image: [`MeasureRequest`](crate::MeasureRequest) to [`MeasureAnswer`](crate::MeasureAnswer).
    Measure = 1,
    /// No command of its own: the payload is the [`Reply`](crate::Reply) to what the running command
    /// [needs](crate::Need).
    Reply = 2,
    /// The options of a new image: [`OptionsRequest`](crate::OptionsRequest) to
    /// [`OptionsAnswer`](crate::OptionsAnswer).
    Options = 3,
    /// What an image says of itself: [`InfoRequest`](crate::InfoRequest) to [`ImageInfo`](crate::ImageInfo), with
    /// [parts](crate::InfoPart) before it.
    Info = 4,
    /// Where the bytes of a disk come from: [`MapRequest`](crate::MapRequest) to [`MapAnswer`](crate::MapAnswer), with
    /// the extents in [parts](crate::MapPart) before it.
    Map = 5,
    /// Whether an image is consistent: [`CheckRequest`](crate::CheckRequest) to [`CheckAnswer`](crate::CheckAnswer),
    /// with [parts](crate::CheckPart) before it.
    Check = 6,
    /// Whether an image is safe to use: [`InspectRequest`](crate::InspectRequest) to
    /// [`InspectAnswer`](crate::InspectAnswer), with [parts](crate::InspectPart) before it.
    Inspect = 7,
    /// A new image: [`CreateRequest`](crate::CreateRequest) to [`CreateAnswer`](crate::CreateAnswer), with
    /// [parts](crate::CreatePart) before it.
    Create = 8,
    /// An image out of others: [`ConvertRequest`](crate::ConvertRequest) to [`ConvertAnswer`](crate::ConvertAnswer), with
    /// [parts](crate::ConvertPart) before it.
    Convert = 9,
    /// Whether two disks have the same content: [`CompareRequest`](crate::CompareRequest) to
    /// [`CompareAnswer`](crate::CompareAnswer), with [parts](crate::ComparePart) before it.
    Compare = 10,
}

impl TryFrom<u16> for Op {
    type Error = HeaderError;

    fn try_from(number: u16) -> Result<Self, HeaderError> {
        match number {
            1 => Ok(Self::Measure),
            2 => Ok(Self::Reply),
            3 => Ok(Self::Options),
            4 => Ok(Self::Info),
            5 => Ok(Self::Map),
            6 => Ok(Self::Check),
            7 => Ok(Self::Inspect),
            8 => Ok(Self::Create),
            9 => Ok(Self::Convert),
            10 => Ok(Self::Compare),
            other => Err(HeaderError::UnknownOp(other)),
        }
    }
}

/// What a command is and how long its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandHeader {
    /// The operation asked for.
    pub op: Op,
    /// Length in bytes of the JSON payload that follows, at most [`MAX_PAYLOAD`].
    pub length: u32,
    /// Chosen by the host, repeated in the terminal record.
    pub request_id: u64,
}

/// Why bytes are not a command header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The first four bytes are not the magic.
    Magic(u32),
    /// Another version of the protocol.
    Version(u16),
    /// No such operation.
    UnknownOp(u16),
    /// Flag bits that this version does not define.
    UnknownFlags(u32),
    /// The payload would be longer than [`MAX_PAYLOAD`].
    TooLong(u32),
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic(value) => write!(f, "command magic is {value:#010x}"),
            Self::Version(value) => write!(f, "command version is {value}, this side speaks {VERSION}"),
            Self::UnknownOp(value) => write!(f, "unknown operation {value}"),
            Self::UnknownFlags(value) => write!(f, "unknown command flags {value:#x}"),
            Self::TooLong(value) => write!(f, "payload of {value} bytes is over {MAX_PAYLOAD}"),
        }
    }
}

impl core::error::Error for HeaderError {}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    magic: U32,
    version: U16,
    op: U16,
    flags: U32,
    length: U32,
    request_id: U64,
}

impl CommandHeader {
    /// The header as it goes over the console.
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let layout = Layout {
            magic: MAGIC.into(),
            version: VERSION.into(),
            op: (self.op as u16).into(),
            flags: 0.into(),
            length: self.length.into(),
            request_id: self.request_id.into(),
        };
        zerocopy::transmute!(layout)
    }

    /// Reads a header, refusing what this version does not define.
    pub fn decode(bytes: &[u8; HEADER_LENGTH]) -> Result<Self, HeaderError> {
        let layout: &Layout = zerocopy::transmute_ref!(bytes);
        if layout.magic.get() != MAGIC {
            return Err(HeaderError::Magic(layout.magic.get()));
        }
        if layout.version.get() != VERSION {
            return Err(HeaderError::Version(layout.version.get()));
        }
        if layout.flags.get() != 0 {
            return Err(HeaderError::UnknownFlags(layout.flags.get()));
        }
        if layout.length.get() > MAX_PAYLOAD {
            return Err(HeaderError::TooLong(layout.length.get()));
        }
        Ok(Self {
            op: Op::try_from(layout.op.get())?,
            length: layout.length.get(),
            request_id: layout.request_id.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: CommandHeader =
        CommandHeader { op: Op::Measure, length: 7, request_id: 0x0102_0304_0506_0708 };

    #[test]
    fn a_header_survives_the_wire() {
        assert_eq!(CommandHeader::decode(&HEADER.encode()), Ok(HEADER));
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        assert_eq!(
            HEADER.encode(),
            *b"NSTR\x01\x00\x01\x00\x00\x00\x00\x00\x07\x00\x00\x00\x08\x07\x06\x05\x04\x03\x02\x01"
        );
    }

    #[test]
    fn every_field_is_checked() {
        let broken = |at: usize, byte: u8| {
            let mut bytes = HEADER.encode();
            bytes[at] = byte;
            CommandHeader::decode(&bytes)
        };
        assert!(matches!(broken(0, b'X'), Err(HeaderError::Magic(_))));
        assert_eq!(broken(4, 2), Err(HeaderError::Version(2)));
        assert_eq!(broken(6, 99), Err(HeaderError::UnknownOp(99)));
        assert_eq!(broken(8, 1), Err(HeaderError::UnknownFlags(1)));
        assert_eq!(broken(15, 1), Err(HeaderError::TooLong(0x0100_0007)));
    }
}
