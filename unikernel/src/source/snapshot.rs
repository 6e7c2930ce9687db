//! Internal snapshots: which one is meant, and reading it in place of the active disk.

use alloc::{borrow::ToOwned, format, string::String};

use formats::{Image, Storage, qcow2::SnapshotName};
use protocol::{ErrorKind, ErrorRecord, options::parameters};

use super::kind;

/// What makes a text a list of parameters instead of an id or name.
const BASE: &str = "snapshot.";

/// Makes `image` the disk that it was when the snapshot `text` (`-l`) was made.
pub fn load<S: Storage>(image: &mut Image<S>, text: &str) -> Result<(), ErrorRecord> {
    let fail = |kind, why: &str| Err(ErrorRecord::new(kind, format!("Failed to load snapshot: {why}")));
    if !image.can_have_snapshots() {
        let format = image.format().name();
        let why = format!(
            "Block format '{format}' used by device '' does not support temporarily loading internal snapshots"
        );
        return fail(ErrorKind::Unsupported, &why);
    }
    let found = match text.starts_with(BASE) {
        true => {
            let (id, name) = id_and_name(text);
            if id.is_none() && name.is_none() {
                return fail(ErrorKind::Usage, "snapshot_id and name are both NULL");
            }
            image.load_snapshot(SnapshotName {
                id: id.as_deref().map(str::as_bytes),
                name: name.as_deref().map(str::as_bytes),
            })
        }
        false => by_id_or_name(image, text.as_bytes()),
    };
    match found {
        Ok(true) => Ok(()),
        Ok(false) => fail(ErrorKind::Usage, "Can't find snapshot"),
        Err(error) => {
            let field = Some(error.field.to_owned());
            let message = format!("Failed to load snapshot: {}", error.message);
            Err(ErrorRecord { field, ..ErrorRecord::new(kind(error.kind), message) })
        }
    }
}

/// An id that leads to a snapshot that makes no sense may still be the name of another.
fn by_id_or_name<S: Storage>(image: &mut Image<S>, text: &[u8]) -> Result<bool, formats::Error> {
    match image.load_snapshot(SnapshotName { id: Some(text), name: None }) {
        Ok(true) => return Ok(true),
        Ok(false) => {}
        Err(error) if error.kind == formats::ErrorKind::InvalidFormat => {}
        Err(error) => return Err(error),
    }
    image.load_snapshot(SnapshotName { id: None, name: Some(text) })
}

/// Id and name in a list of parameters. The host has seen to it that
/// there are no others; the last of each counts, and without a value it is `on`.
fn id_and_name(list: &str) -> (Option<String>, Option<String>) {
    let (mut id, mut name) = (None, None);
    for (parameter, value) in parameters(list) {
        let value = value.unwrap_or_else(|| "on".to_owned());
        match parameter.strip_prefix(BASE) {
            Some("id") => id = Some(value),
            Some("name") => name = Some(value),
            _ => {}
        }
    }
    (id, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_id_and_the_last_name_count() {
        let both = |id: Option<&str>, name: Option<&str>| (id.map(Into::into), name.map(Into::into));
        assert_eq!(id_and_name("snapshot.id=1"), both(Some("1"), None));
        assert_eq!(id_and_name("snapshot.name=a,,b,snapshot.id="), both(Some(""), Some("a,b")));
        assert_eq!(id_and_name("snapshot.id=1,snapshot.id=2=3,"), both(Some("2=3"), None));
        assert_eq!(id_and_name("snapshot.id"), both(Some("on"), None));
    }
}
