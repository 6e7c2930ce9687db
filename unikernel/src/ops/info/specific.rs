//! What only one format has.

use alloc::{borrow::ToOwned, vec::Vec};

use formats::{
    Image, LuksInfo as Luks, Storage,
    qcow2::{Compression, CryptMethod, Qcow2, Version},
};
use protocol::{EncryptInfo, LuksInfo, LuksSlot, Qcow2Info, Qcow2V3Info, SpecificInfo, Text, VmdkInfo};

/// What only the format of the image has, if it has anything that no other has.
pub fn of<S: Storage>(image: &Image<S>) -> Option<SpecificInfo> {
    if let Some(header) = image.qcow2() {
        return Some(SpecificInfo::Qcow2(qcow2(header, image)));
    }
    if let Some(vmdk) = image.vmdk() {
        return Some(SpecificInfo::Vmdk(VmdkInfo {
            create_type: vmdk.create_type().map(|create_type| create_type.name().to_owned()),
            cid: vmdk.cid(),
            parent_cid: vmdk.parent_cid(),
        }));
    }
    image.luks().map(|info| SpecificInfo::Luks(luks(info)))
}

fn qcow2<S: Storage>(qcow2: &Qcow2, image: &Image<S>) -> Qcow2Info {
    let header = qcow2.header();
    let compression_type = match header.compression_type() {
        Compression::Zlib => "zlib",
        Compression::Zstd => "zstd",
    };
    let encrypt = match header.crypt_method() {
        CryptMethod::None => None,
        CryptMethod::Aes => Some(EncryptInfo::Aes),
        CryptMethod::Luks => image.luks().map(|info| EncryptInfo::Luks(luks(info))),
    };
    let data_file = image.data_file();
    let v3 = (header.version() == Version::V3).then(|| Qcow2V3Info {
        lazy_refcounts: header.lazy_refcounts(),
        corrupt: header.is_corrupt(),
        extended_l2: header.has_extended_l2(),
        data_file: qcow2.data_file_name().map(Text::from),
        data_file_raw: data_file.map(|file| file.raw),
    });
    Qcow2Info {
        compression_type: compression_type.to_owned(),
        refcount_bits: header.refcount_bits(),
        encrypt,
        v3,
    }
}

fn luks(info: Luks) -> LuksInfo {
    let slot = |slot: &formats::SlotInfo| LuksSlot { key_offset: slot.key_offset, active: slot.active };
    let slots: Vec<LuksSlot> = info.slots.iter().map(slot).collect();
    LuksInfo {
        cipher_alg: info.cipher,
        cipher_mode: info.mode.to_owned(),
        ivgen_alg: info.iv_generator.to_owned(),
        ivgen_hash_alg: info.iv_hash.map(ToOwned::to_owned),
        hash_alg: info.hash.to_owned(),
        uuid: Text(info.uuid),
        payload_offset: info.payload_offset,
        master_key_iters: info.master_key_iterations,
        slots,
    }
}
