//! The options of Parallels images, checked in `qemu-img`'s order.

use calc::{
    Length,
    parallels::{ClusterSize, Image, Refusal, Start},
};
use protocol::{
    ErrorRecord,
    QemuVersion::{self, V10_0},
};

use super::{Values, file, unsupported, usage};

/// The image of a disk of `size` bytes that an option list asks for.
pub fn new_image(values: &Values, size: Length, profile: QemuVersion) -> Result<Image, ErrorRecord> {
    file::check(values)?;
    let refused = |refusal: Refusal| unsupported(format_args!("{refusal}"));
    let cluster = match values.number("cluster_size") {
        None => ClusterSize::DEFAULT,
        // Rounded up to a sector, the largest numbers wrap to 0.
        Some(bytes) if bytes > u64::MAX - 511 => return Err(refused(Refusal::TooLong)),
        Some(bytes) => {
            ClusterSize::new(bytes).ok_or_else(|| usage(format_args!("Cluster size is too large")))?
        }
    };
    let start = if profile >= V10_0 { Start::Masked } else { Start::Whole };
    Image::new(size, cluster, start).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use alloc::string::String;
    use protocol::QemuVersion::V11_1;

    fn length(list: &str, size: u64) -> Result<u64, String> {
        testing::length("parallels", list, size, V11_1, |values, size| new_image(values, size, V11_1))
    }

    #[test]
    fn the_first_check_that_fails_speaks() {
        let too_long = "Image size is too large for this cluster size";
        for (list, size, message) in [
            ("cluster_size=8E,preallocation=x", 1, "invalid parameter value: x"),
            ("cluster_size=8E", 1, "Cluster size is too large"),
            ("cluster_size=2147483137", 1, "Cluster size is too large"),
            ("cluster_size=0", 1, too_long),
            ("cluster_size=18446744073709551615", 1, too_long),
            ("cluster_size=512", 2 << 40, too_long),
            ("cluster_size=512", 1 << 40, "Catalog too large"),
        ] {
            assert_eq!(length(list, size), Err(message.into()), "{list}");
        }
        assert_eq!(length("cluster_size=2147483136", 1), Ok(2_147_483_136));
    }
}
