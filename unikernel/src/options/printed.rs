//! The line in which `qemu-img create` says what it is going to make: the options in the order in which QEMU declares
//! them, with defaults where it has any to show. The order has not changed from 5.2 to 11.1.

use alloc::{format, string::String};

use protocol::QemuVersion;

use super::{Driver, Kind, Quoted, Values};

/// An option, and what is shown if it is not given.
type Shown = (&'static str, Option<&'static str>);

const QCOW2: &[Shown] = &[
    ("encryption", None),
    ("encrypt.format", None),
    ("encrypt.key-secret", None),
    ("encrypt.cipher-alg", None),
    ("encrypt.cipher-mode", None),
    ("encrypt.ivgen-alg", None),
    ("encrypt.ivgen-hash-alg", None),
    ("encrypt.hash-alg", None),
    ("encrypt.iter-time", None),
    ("cluster_size", Some("65536")),
    ("extended_l2", Some("off")),
    ("preallocation", None),
    ("compression_type", Some("zlib")),
    ("keep_data_file", None),
    ("size", None),
    ("compat", None),
    ("backing_file", None),
    ("backing_fmt", None),
    ("data_file", None),
    ("data_file_raw", None),
    ("lazy_refcounts", Some("off")),
    ("refcount_bits", Some("16")),
];
const LUKS: &[Shown] = &[
    ("size", None),
    ("key-secret", None),
    ("cipher-alg", None),
    ("cipher-mode", None),
    ("ivgen-alg", None),
    ("ivgen-hash-alg", None),
    ("hash-alg", None),
    ("iter-time", None),
    ("detached-header", None),
];
const VMDK: &[Shown] = &[
    ("size", None),
    ("adapter_type", None),
    ("backing_file", None),
    ("backing_fmt", None),
    ("compat6", Some("off")),
    ("hwversion", Some("undefined")),
    ("toolsversion", None),
    ("subformat", None),
    ("zeroed_grain", None),
];
const VPC: &[Shown] = &[("size", None), ("subformat", None), ("force_size", None)];
const VHDX: &[Shown] = &[
    ("size", None),
    ("log_size", Some("1048576")),
    ("block_size", Some("0")),
    ("subformat", None),
    ("block_state_zero", None),
];
const VDI: &[Shown] = &[("size", None), ("static", Some("off"))];
const QCOW: &[Shown] = &[
    ("size", None),
    ("backing_file", None),
    ("backing_fmt", None),
    ("encryption", None),
    ("encrypt.format", None),
    ("encrypt.key-secret", None),
];
const QED: &[Shown] = &[
    ("size", None),
    ("backing_file", None),
    ("backing_fmt", None),
    ("cluster_size", Some("65536")),
    ("table_size", None),
];
const PARALLELS: &[Shown] = &[("size", None), ("cluster_size", Some("1048576"))];

/// Those of the file, behind the format's own; what a format has itself is not shown again.
const FILE: &[Shown] =
    &[("size", None), ("nocow", None), ("preallocation", None), ("extent_size_hint", None)];

fn own(driver: &Driver) -> &'static [Shown] {
    match driver.name {
        "qcow2" => QCOW2,
        "luks" => LUKS,
        "vmdk" => VMDK,
        "vpc" => VPC,
        "vhdx" => VHDX,
        "vdi" => VDI,
        "qcow" => QCOW,
        "qed" => QED,
        "parallels" => PARALLELS,
        _ => &[],
    }
}

/// The format and the options that `values` are, as they stand behind the name of the file.
pub fn printed(driver: &Driver, values: &Values, profile: QemuVersion) -> String {
    let mut line = format!("fmt={}", driver.name);
    let own = own(driver);
    let file = FILE.iter().filter(|(name, _)| own.iter().all(|(other, _)| other != name));
    for &(name, default) in own.iter().chain(file) {
        let Some(spec) = driver.option(name, profile) else { continue };
        let text = match (values.text(name), values.number(name), spec.kind) {
            (Some(_), Some(number), Kind::Size | Kind::Number) => format!("{}", number.cast_signed()),
            (Some(text), _, Kind::Text) => format!("{}", Quoted(text.replace(',', ",,").as_bytes())),
            (Some(text), ..) => text.into(),
            (None, ..) => match default {
                Some(default) => default.into(),
                None => continue,
            },
        };
        line.push_str(&format!(" {name}={text}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::QemuVersion::{V5_2, V11_1};

    #[test]
    fn every_option_of_a_format_has_its_place() {
        for name in ["raw", "qcow2", "luks", "vmdk", "vpc", "vhdx", "vdi", "qcow", "qed", "parallels"] {
            let driver = Driver::find(name, V11_1).unwrap();
            let shown = || own(driver).iter().chain(FILE);
            for spec in driver.options(V11_1) {
                assert!(shown().any(|(shown, _)| *shown == spec.name), "{name} {}", spec.name);
            }
            assert!(shown().all(|(shown, _)| driver.option(shown, V11_1).is_some()), "{name}");
        }
    }

    #[test]
    fn values_are_shown_as_qemu_shows_them() {
        let of = |format: &str, list: &str, profile| {
            let driver = Driver::find(format, profile).unwrap();
            printed(driver, &Values::parse(driver, list, profile).unwrap(), profile)
        };
        assert_eq!(of("raw", "size=1k,preallocation=off", V11_1), "fmt=raw size=1024 preallocation=off");
        assert_eq!(
            of("qcow2", "lazy_refcounts,refcount_bits=0x10,backing_file=a,,b,size=1G", V5_2),
            "fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=1073741824 backing_file=a,,b \
             lazy_refcounts=on refcount_bits=16"
        );
    }
}
