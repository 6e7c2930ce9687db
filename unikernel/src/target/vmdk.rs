//! New VMDK images, which may be of several files.

use alloc::{borrow::ToOwned, boxed::Box, string::String, vec::Vec};

use calc::Length;
use formats::{
    StorageMut,
    vmdk::{self, Adapter, Layout, Parent, Subformat},
    write::Writer,
};
use protocol::{ErrorRecord, Need, QemuVersion, Reply, Role};

use super::{NewImage, empty, facts, random::Random};
use crate::{
    files::Files,
    options::{self, Values},
    source::record,
};

/// Content id of no image.
const NO_PARENT: u32 = u32::MAX;

/// Makes one.
pub fn create<S: StorageMut + 'static>(
    values: &Values,
    length: Length,
    new: &NewImage<'_>,
    random: &mut Random,
    files: &mut dyn Files<Storage = S>,
) -> Result<Box<dyn Writer<Storage = S>>, ErrorRecord> {
    options::vmdk_image(values, length, new.profile)?;
    let version = values.text("hwversion").filter(|&version| version != "undefined");
    let mut cid = [0; 4];
    random.fill(&mut cid);
    let create = vmdk::Create {
        size: new.size,
        subformat: subformat(values, new.strict_stream),
        adapter: adapter(values),
        hardware_version: version.unwrap_or(if values.flag("compat6") { "6" } else { "4" }),
        tools_version: (new.profile > QemuVersion::V5_2)
            .then(|| values.text("toolsversion").unwrap_or("2147483647")),
        zeroed_grains: values.flag("zeroed_grain"),
        parent: values
            .text("backing_file")
            .map(|name| Parent { name: name.as_bytes(), cid: new.parent_cid.unwrap_or(NO_PARENT) }),
        cid: u32::from_le_bytes(cid),
        name: new.name.as_bytes(),
    };
    let file = facts(new.file)?;
    let mut parts = Vec::new();
    for piece in vmdk::extents(&create).map_err(record)? {
        let name = String::from_utf8_lossy(&piece.name).into_owned();
        let need = Need { name, role: Role::NewExtent, of: file.disk.to_owned(), format: None };
        let facts = files.need(&need)?;
        parts.push(empty(&Reply::File(facts), files)?);
    }
    let image = vmdk::create(empty(new.file, files)?, parts, &create).map_err(record)?;
    Ok(Box::new(image))
}

/// The layout; the words are checked already.
fn subformat(values: &Values, strict_stream: bool) -> Subformat {
    match values.text("subformat") {
        Some("monolithicFlat") => Subformat::MonolithicFlat,
        Some("twoGbMaxExtentSparse") => Subformat::TwoGbMaxExtentSparse,
        Some("twoGbMaxExtentFlat") => Subformat::TwoGbMaxExtentFlat,
        Some("streamOptimized") => Subformat::StreamOptimized(match strict_stream {
            true => Layout::Stream,
            false => Layout::TablesFirst,
        }),
        _ => Subformat::MonolithicSparse,
    }
}

fn adapter(values: &Values) -> Adapter {
    let named = |adapter: &Adapter| values.text("adapter_type") == Some(adapter.name());
    [Adapter::Ide, Adapter::LsiLogic, Adapter::BusLogic, Adapter::LegacyEsx]
        .into_iter()
        .find(named)
        .unwrap_or_default()
}
