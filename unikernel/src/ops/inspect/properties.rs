//! What an image says of itself, and what of that is odd.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

use formats::{
    Error, Format, Image, LuksInfo, Storage,
    qcow2::{Compression, CryptMethod, Header, Version},
    vhdx::Vhdx,
    vmdk::Vmdk,
    vpc::{DiskType, Trailer, Vpc},
};
use protocol::{Code, InspectedImage};

use super::findings::Findings;

/// Most iterations of a key's derivation: some ten seconds of work.
const ITERATIONS_MAX: u32 = 1 << 25;

/// The properties of an image; an error is not its fault.
pub fn of<S: Storage>(image: &mut Image<S>, findings: &mut Findings) -> Result<InspectedImage, Error> {
    let mut features: Vec<String> = Vec::new();
    let mut snapshots = 0;
    if let Some(qcow2) = image.qcow2() {
        features.extend(of_qcow2(qcow2.header(), findings).into_iter().map(ToOwned::to_owned));
        if qcow2.has_stale_bitmaps() {
            findings.add(Code::StaleBitmaps, "autoclear_features", "Its data went on without its bitmaps");
        }
        snapshots = u64::from(qcow2.header().snapshots().0);
    }
    if snapshots > 0 {
        findings.add(Code::Snapshots, "nb_snapshots", format!("It has {snapshots} internal snapshots"));
    }
    features.extend(image.vmdk().into_iter().flat_map(|vmdk| of_vmdk(vmdk, findings)));
    features.extend(image.vpc().map(of_vpc));
    features.extend(image.vhdx().into_iter().flat_map(|vhdx| of_vhdx(vhdx, findings)).map(ToOwned::to_owned));
    match image.vpc_trailer()? {
        None | Some(Trailer::Same) => {}
        Some(Trailer::Differs) => {
            findings.add(Code::FooterDiffers, "footer", "The footer is of another disk than its copy");
        }
        Some(Trailer::Missing) => {
            findings.add(Code::FooterMissing, "footer", "There is no footer at the end");
        }
        Some(Trailer::Invalid) => {
            findings.add(Code::FooterMissing, "checksum", "The footer at the end has a wrong checksum");
        }
    }
    if image.is_dirty() == Some(true) {
        findings.add(Code::Dirty, "features", "It was not closed properly");
    }
    let encryption = encryption(image, findings);
    Ok(InspectedImage {
        virtual_size: image.virtual_size(),
        cluster_size: image.cluster_size(),
        encryption,
        features,
        snapshots,
        bitmaps: image.bitmaps().len() as u64,
        ..InspectedImage::default()
    })
}

fn of_qcow2(header: &Header, findings: &mut Findings) -> Vec<&'static str> {
    if header.is_corrupt() {
        findings.add(Code::MarkedCorrupt, "incompatible_features", "It is marked as corrupt");
    }
    if header.has_unknown_features() {
        findings.add(Code::UnknownFeatures, "features", "It has features that are not known and need not be");
    }
    let version = match header.version() {
        Version::V2 => "version-2",
        Version::V3 => "version-3",
    };
    [
        (true, version),
        (header.has_extended_l2(), "extended-l2"),
        (header.compression_type() == Compression::Zstd, "zstd"),
        (header.lazy_refcounts(), "lazy-refcounts"),
        (header.has_data_file(), "data-file"),
        (header.has_data_file() && header.data_file_raw(), "data-file-raw"),
    ]
    .into_iter()
    .filter_map(|(has, name)| has.then_some(name))
    .collect()
}

fn of_vmdk(vmdk: &Vmdk, findings: &mut Findings) -> Vec<String> {
    if let Some(fault) = vmdk.descriptor_fault() {
        findings.add(Code::DescriptorDiffers, "descriptor", fault);
    }
    vmdk.create_type().map(|create_type| create_type.name().to_owned()).into_iter().collect()
}

fn of_vpc(vpc: &Vpc) -> String {
    match vpc.footer().disk_type() {
        DiskType::Fixed => "fixed",
        DiskType::Dynamic => "dynamic",
        DiskType::Differencing => "differencing",
    }
    .to_owned()
}

fn of_vhdx(vhdx: &Vhdx, findings: &mut Findings) -> Vec<&'static str> {
    if vhdx.log_replayed() {
        findings.add(Code::LogReplayed, "log", "Changes in its log are not in its tables yet");
    }
    let differencing = vhdx.metadata().parent_locator().map(|_| "differencing");
    let sectors = (vhdx.metadata().logical_sector_size() == 4096).then_some("sectors-of-4096");
    differencing.into_iter().chain(sectors).collect()
}

/// How the data is encrypted.
fn encryption<S: Storage>(image: &Image<S>, findings: &mut Findings) -> Option<String> {
    if !image.encrypted() {
        return None;
    }
    let luks = image.luks();
    findings.add(Code::Encrypted, "crypt_method", "Its data is encrypted");
    if let Some(info) = &luks {
        if iterations(info) > ITERATIONS_MAX {
            let message = format!("A key takes {} iterations to derive", iterations(info));
            findings.add(Code::KeyDerivation, "iterations", message);
        }
        if image.format() == Format::Luks && image.virtual_size() == 0 {
            findings.add(Code::DetachedData, "payload-offset", "There is nothing behind the header");
        }
    }
    let method = image.qcow2().map(|qcow2| qcow2.header().crypt_method());
    let name = if luks.is_some() || method == Some(CryptMethod::Luks) { "luks" } else { "aes" };
    Some(name.to_owned())
}

/// The most that any of the keys takes.
fn iterations(info: &LuksInfo) -> u32 {
    let slots = info.slots.iter().filter_map(|slot| slot.active);
    slots.map(|(iterations, _)| iterations).fold(info.master_key_iterations, u32::max)
}
