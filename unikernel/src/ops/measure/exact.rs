//! The length that the file of a new qcow2 image really has once `qemu-img convert` or `create` is done (`--exact`).

use alloc::borrow::ToOwned;

use calc::qcow2::{Layout, Preallocation as Space, Writer};
use formats::Storage;
use protocol::{ErrorKind, ErrorRecord};

use super::{
    Source,
    content::{self, SparseSize},
};
use crate::options::{Preallocation, Qcow2Options};

/// Bytes of the file of a new image that takes the data of `source`; `luks` bytes of them are the header of the encryption.
pub fn qcow2<S: Storage>(
    source: &mut Source<S>,
    options: &Qcow2Options,
    luks: u64,
    sparse: SparseSize,
) -> Result<u64, ErrorRecord> {
    let layout = Layout {
        geometry: options.geometry,
        preallocation: space(options),
        luks,
        data_file: options.has_data_file,
    };
    let mut writer = Writer::new(layout, source.length()?).ok_or_else(super::qcow2::too_large)?;
    match source {
        Source::Size(_) => {}
        Source::Image(_) if options.has_backing_file => {
            return Err(backing_file());
        }
        // What is set aside is as long as it gets.
        Source::Image(_) if layout.preallocation != Space::Off => {}
        Source::Image(chain) => content::ranges(chain, sparse, |start, end| writer.write(start, end))?,
    }
    writer.length().ok_or_else(super::qcow2::too_large)
}

/// Why there is no answer over a backing file.
pub fn backing_file() -> ErrorRecord {
    ErrorRecord {
        field: Some("backing_file".to_owned()),
        ..ErrorRecord::new(
            ErrorKind::Unsupported,
            "The exact length of an image with a backing file is not known beforehand",
        )
    }
}

fn space(options: &Qcow2Options) -> Space {
    match options.preallocation {
        // A data file that can be read on its own has each cluster at its place from the start.
        Preallocation::Off if options.has_raw_data_file => Space::Metadata,
        Preallocation::Off => Space::Off,
        Preallocation::Metadata => Space::Metadata,
        Preallocation::Falloc | Preallocation::Full => Space::Data,
    }
}
