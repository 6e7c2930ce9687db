//! The options of VMDK, checked in `qemu-img`'s order.

use calc::{
    Length,
    vmdk::{Adapter, Descriptor, Image, Rewrite, Subformat},
};
use protocol::{
    ErrorRecord,
    QemuVersion::{self, V7_2},
};

use super::{Quoted, Values, file, unsupported, usage};

/// Version of the virtual hardware when nobody says, with `compat6` and without.
const HARDWARE: (&str, &str) = ("6", "4");
/// Version of the tools when nobody says.
const TOOLS: &str = "2147483647";

/// The image of a disk of `size` bytes that an option list asks for.
pub fn new_image(values: &Values, size: Length, profile: QemuVersion) -> Result<Image, ErrorRecord> {
    if values.text("backing_fmt").is_some_and(|format| format != "vmdk") {
        return Err(usage(format_args!("backing_file must be a vmdk image")));
    }
    let adapter = match values.text("adapter_type") {
        None => Adapter::default(),
        Some(name) => [Adapter::Ide, Adapter::LsiLogic, Adapter::BusLogic, Adapter::LegacyEsx]
            .into_iter()
            .find(|adapter| adapter.name() == name)
            .ok_or_else(|| bad_word(name))?,
    };
    let subformat = match values.text("subformat") {
        None | Some("monolithicSparse") => Subformat::MonolithicSparse,
        Some("monolithicFlat") => Subformat::MonolithicFlat,
        Some("twoGbMaxExtentSparse") => Subformat::TwoGbMaxExtentSparse,
        Some("twoGbMaxExtentFlat") => Subformat::TwoGbMaxExtentFlat,
        Some("streamOptimized") => Subformat::StreamOptimized,
        Some(other) => return Err(bad_word(other)),
    };
    let hardware = values.text("hwversion").filter(|&version| version != "undefined");
    let hardware = match (hardware, values.flag("compat6")) {
        (Some(_), true) => return Err(usage(format_args!("compat6 cannot be enabled with hwversion set"))),
        (Some(version), false) => version,
        (None, true) => HARDWARE.0,
        (None, false) => HARDWARE.1,
    };
    let backing_file = values.text("backing_file");
    if subformat.is_flat() && backing_file.is_some() {
        return Err(unsupported(format_args!("Flat image can't have backing file")));
    }
    if subformat.is_flat() && values.flag("zeroed_grain") {
        return Err(unsupported(format_args!("Flat image can't enable zeroed grain")));
    }
    file::check(values)?;
    let tools = values.text("toolsversion").unwrap_or(TOOLS);
    let descriptor = Descriptor {
        adapter,
        hardware_version: length(hardware),
        tools_version: (profile >= V7_2).then_some(length(tools)),
        backing_name: backing_file.map(length),
        rewrite: if profile >= V7_2 { Rewrite::Sectors } else { Rewrite::Embedded },
    };
    Image::new(size, subformat, descriptor).map_err(|refusal| unsupported(format_args!("{refusal}")))
}

/// Bytes of a text, which is at most as long as a command.
fn length(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

fn bad_word(word: &str) -> ErrorRecord {
    usage(format_args!("invalid parameter value: {}", Quoted(word.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use alloc::string::String;
    use protocol::QemuVersion::{V5_2, V11_1};

    fn of(list: &str, size: u64, profile: QemuVersion) -> Result<u64, String> {
        testing::length("vmdk", list, size, profile, |values, size| new_image(values, size, profile))
    }

    #[test]
    fn the_first_check_that_fails_speaks() {
        let version = "compat6 cannot be enabled with hwversion set";
        for (list, message) in [
            ("backing_fmt=raw,adapter_type=x", "backing_file must be a vmdk image"),
            ("adapter_type=IDE,subformat=x", "invalid parameter value: IDE"),
            ("compat6,hwversion=5,subformat=x", "invalid parameter value: x"),
            ("compat6,hwversion=,subformat=monolithicFlat,zeroed_grain", version),
            ("subformat=monolithicFlat,zeroed_grain,backing_file=b", "Flat image can't have backing file"),
            (
                "subformat=twoGbMaxExtentFlat,zeroed_grain,preallocation=x",
                "Flat image can't enable zeroed grain",
            ),
            ("preallocation=x", "invalid parameter value: x"),
        ] {
            assert_eq!(of(list, 1 << 20, V11_1), Err(message.into()), "{list}");
        }
    }

    #[test]
    fn a_disk_that_cannot_be() {
        assert_eq!(of("", 0, V11_1), Err("Unsupported image type 'monolithicSparse'".into()));
        let too_large = "The image size is too large for file format 'vmdk'";
        assert_eq!(of("subformat=streamOptimized", 256 << 40, V11_1), Err(too_large.into()));
    }

    #[test]
    fn texts_count_in_descriptors_of_their_own() {
        let flat = |list| of(&alloc::format!("subformat=monolithicFlat,{list}"), 1 << 20, V11_1).unwrap();
        let plain = flat("compat6");
        assert_eq!(flat("hwversion=undefined"), plain);
        assert_eq!(flat("hwversion=123,toolsversion="), plain + 2 - 10);
        assert_eq!(of("subformat=monolithicFlat", 1 << 20, V5_2), Ok(plain - 32));
    }
}
