//! The options of QED, checked in `qemu-img`'s order.

use calc::{
    Length,
    qed::{ClusterSize, Image, TableSize},
};
use protocol::{ErrorRecord, QemuVersion, size::parse_number};

use super::{Values, file, unsupported, usage};

/// The image of a disk of `size` bytes that an option list asks for.
pub fn new_image(values: &Values, size: Length, profile: QemuVersion) -> Result<Image, ErrorRecord> {
    file::check(values)?;
    // A size to the list, a plain number to the format.
    let table = match values.text("table_size").map(|text| parse_number(text, profile)) {
        None => None,
        Some(Ok(clusters)) => Some(clusters),
        Some(Err(_)) => return Err(usage(format_args!("Parameter 'table-size' expects integer"))),
    };
    let cluster = match values.number("cluster_size") {
        None => ClusterSize::DEFAULT,
        Some(bytes) => ClusterSize::new(bytes).ok_or_else(|| {
            usage(format_args!("QED cluster size must be within range [4096, 67108864] and power of 2"))
        })?,
    };
    let table = match table {
        None => TableSize::DEFAULT,
        Some(clusters) => TableSize::new(clusters).ok_or_else(|| {
            usage(format_args!("QED table size must be within range [1, 16] and power of 2"))
        })?,
    };
    Image::new(size, cluster, table).map_err(|refusal| unsupported(format_args!("{refusal}")))
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use alloc::string::String;
    use protocol::QemuVersion::V11_1;

    fn length(list: &str, size: u64) -> Result<u64, String> {
        testing::length("qed", list, size, V11_1, |values, size| new_image(values, size, V11_1))
    }

    #[test]
    fn the_first_check_that_fails_speaks() {
        let cluster = "QED cluster size must be within range [4096, 67108864] and power of 2";
        let table = "QED table size must be within range [1, 16] and power of 2";
        let too_long = "QED image size must be a non-zero multiple of cluster size and less than 0 bytes";
        for (list, size, message) in [
            ("table_size=4k,cluster_size=1,preallocation=x", 1, "invalid parameter value: x"),
            ("table_size=4k,cluster_size=1", 1, "Parameter 'table-size' expects integer"),
            ("table_size=3,cluster_size=1", 1, cluster),
            ("table_size=3", 1, table),
            // Numbers of 33 bits lose the first one in qemu-img.
            ("cluster_size=4294971392", 1, cluster),
            ("table_size=4294967300", 1, table),
            ("table_size=1", 1, "QED table offset is invalid"),
            ("cluster_size=64M,table_size=1", 1, too_long),
        ] {
            assert_eq!(length(list, size), Err(message.into()), "{list}");
        }
        assert_eq!(length("table_size=0x10", 1), Ok(17 * 65536));
    }
}
