//! What the host and the unikernel say to each other: the command header, its JSON payload, the JSON records that
//! come back, and the small grammar of sizes both sides read. See docs/protocol.md.
//!
//! This is the only code host and guest share. It knows nothing of images, devices or machines.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

extern crate alloc;

mod check;
mod compare;
mod convert;
mod create;
mod facts;
pub mod handover;
mod header;
mod info;
mod inspect;
mod map;
mod measure;
pub mod options;
mod profile;
mod progress;
mod record;
mod secret;
pub mod size;
mod source;
mod text;

pub use check::{CheckAnswer, CheckFindings, CheckPart, CheckRequest, RepairMode, Repaired};
pub use compare::{CompareAnswer, CompareFault, ComparePart, CompareRequest};
pub use convert::{Bitmaps, ConvertAnswer, ConvertPart, ConvertRequest, ConvertTarget, DiskPart, NewTarget};
pub use create::{BelowNew, Chance, CreateAnswer, CreatePart, CreateRequest};
pub use facts::{ExtentMap, FileFacts, MAX_INLINE_EXTENTS};
pub use header::{CommandHeader, HEADER_LENGTH, HeaderError, MAX_PAYLOAD, Op, VERSION};
pub use info::{
    BackingInfo, BitmapInfo, BlockLimits, EncryptInfo, ExtentInfo, ImageInfo, InfoPart, InfoRequest,
    LuksInfo, LuksSlot, Qcow2Info, Qcow2V3Info, SnapshotInfo, SpecificInfo, VmdkInfo,
};
pub use inspect::{
    Code, Finding, InspectAnswer, InspectPart, InspectRequest, InspectedImage, MAX_FINDINGS, MappingInfo,
    ReferenceInfo, SignatureInfo, Weight,
};
pub use map::{MapAnswer, MapError, MapKind, MapPart, MapReader, MapRequest, MapRun, MapWriter};
pub use measure::{MeasureAnswer, MeasureRequest, MeasureSubject};
pub use options::{OptionLine, OptionType, OptionsAnswer, OptionsRequest};
pub use profile::QemuVersion;
pub use progress::{Pace, Progress};
pub use record::{Answer, ErrorKind, ErrorRecord, MAX_RECORD, Part, Record, RecordError, parse_record};
pub use secret::{Secret, SecretContent};
pub use source::{Backing, ImageSource, MAX_CHAIN, Need, Reply, Role, Window};
pub use text::Text;
