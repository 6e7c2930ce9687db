//! What to say where the mapping of a disk ends in a fault.

use alloc::{borrow::ToOwned, format};

use formats::{Chain, ChainError, Format, Image, Storage};
use protocol::ErrorRecord;

use crate::source::kind;

/// The failure `what`, for what is wrong with a layer of `chain`.
pub fn failure<S: Storage>(chain: &Chain<S>, error: &ChainError, what: &str) -> ErrorRecord {
    let ChainError { layer, error } = error;
    let format = chain.layers().get(*layer).map(Image::format);
    let message = format!("{what}: {}", why(format, error));
    let field = Some(error.field.to_owned());
    ErrorRecord { field, ..ErrorRecord::new(kind(error.kind), message) }
}

/// The system's words for why the mapping ends.
fn why(format: Option<Format>, error: &formats::Error) -> &'static str {
    match (format, error.kind) {
        (Some(Format::Qed), formats::ErrorKind::Corrupt) => "Invalid argument",
        _ => "Input/output error",
    }
}
