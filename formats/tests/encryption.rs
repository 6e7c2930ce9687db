//! Encrypted images opened with a key: what they hold is what `qemu-img` wrote, and bad keys are refused in its words.

mod support;

use std::path::Path;
use std::sync::LazyLock;

use formats::ErrorKind::{self, InvalidFormat, Key as KeyError, Limit, Unsupported};
use formats::{Access, Error, Format, Image, Key, OpenOptions};
use support::cases::{Order, Patch, patched, survive};
use support::encrypted::{
    PASSWORD, complaint, content, create, fill, image_opts, open, open_storage, plaintext, read, secret,
};
use support::{FileStorage, Memory, qemu_img, qemu_img_ok, qemu_io_on, text};

const LUKS: Format = Format::Luks;
const CIPHER: usize = 8;
const MODE: usize = 40;
const HASH: usize = 72;
const KEY_BYTES: usize = 108;
const SLOTS: usize = 208;
const SLOT_LEN: usize = 48;

/// Little work to derive a key.
const QUICK: &str = "iter-time=1";

fn invalid_password() -> Error {
    Error::new(KeyError, "key-secret", "Invalid password, cannot unlock any keyslot")
}

/// Creates, fills and reads an image.
fn round_trip(directory: &Path, format: Format, options: &str) {
    let (path, data) = (directory.join("disk.img"), plaintext(1 << 18));
    create(format, &path, options, "256k");
    fill(format, &path, &data);
    let mut image = open(format, &path, PASSWORD).unwrap_or_else(|error| panic!("{options}: {error}"));
    assert!(image.encrypted());
    assert_eq!(image.virtual_size(), 1 << 18);
    assert!(content(&mut image).unwrap() == data, "{options}: other data");
}

/// Every cipher, mode, generator and hash with the others, but for what `qemu-img` does not make.
#[test]
fn luks_images_hold_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    for (cipher, mode, generator, hash) in [
        ("aes-128", "ecb", "plain64", "sha1"),
        ("aes-128", "xts", "plain", "md5"),
        ("aes-192", "xts", "essiv,ivgen-hash-alg=md5", "sha384"),
        ("aes-256", "cbc", "essiv,ivgen-hash-alg=sha256", "sha512"),
        ("aes-256", "xts", "plain64", "sha256"),
        ("serpent-128", "cbc", "plain", "ripemd160"),
        ("serpent-192", "xts", "plain64", "sha224"),
        ("serpent-256", "ctr", "essiv,ivgen-hash-alg=sha256", "sha1"),
        ("twofish-128", "ctr", "plain64", "sha256"),
        ("twofish-192", "xts", "essiv,ivgen-hash-alg=md5", "sha512"),
        ("twofish-256", "cbc", "plain64", "md5"),
        ("cast5-128", "ecb", "plain64", "sha224"),
        ("cast5-128", "cbc", "essiv,ivgen-hash-alg=md5", "sha1"),
        ("cast5-128", "ctr", "plain", "sha384"),
    ] {
        let options =
            format!("cipher-alg={cipher},cipher-mode={mode},ivgen-alg={generator},hash-alg={hash},{QUICK}");
        round_trip(directory.path(), LUKS, &options);
    }
}

#[test]
fn encrypted_qcow_images_hold_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    round_trip(directory.path(), Format::Qcow, "encrypt.format=aes");
    round_trip(directory.path(), Format::Qcow2, "encrypt.format=aes");
    for more in ["cluster_size=4k", "extended_l2=on"] {
        let options = format!("encrypt.format=luks,encrypt.{QUICK},{more}");
        round_trip(directory.path(), Format::Qcow2, &options);
    }
}

/// Past 2 TiB the lower 32 bits of sector numbers begin again.
#[test]
fn sectors_past_2_tib() {
    let directory = tempfile::tempdir().unwrap();
    for generator in ["plain", "plain64"] {
        let path = directory.path().join(generator);
        create(LUKS, &path, &format!("ivgen-alg={generator},{QUICK}"), "2049G");
        let start = (2u64 << 40) + 4096;
        let write = format!("write -P 7 {start} 4k");
        qemu_io_on(
            &["--object", &secret("s", PASSWORD), "--image-opts", &image_opts(LUKS, &path)],
            &[&write],
        );
        let mut found = [0; 4096];
        read(&mut open(LUKS, &path, PASSWORD).unwrap(), start, &mut found).unwrap();
        assert_eq!(found, [7; 4096], "{generator}");
    }
}

/// A password opens whichever slot it is for.
#[test]
fn every_key_slot_is_tried() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("slots.luks");
    create(LUKS, &path, QUICK, "64k");
    let data = plaintext(1 << 16);
    fill(LUKS, &path, &data);
    for (slot, password) in [(1, "one"), (7, "seven")] {
        let options = format!("state=active,new-secret=n,keyslot={slot},{QUICK}");
        let (old, new) = (secret("s", PASSWORD), secret("n", password));
        let image = image_opts(LUKS, &path);
        qemu_img_ok(&["amend", "--object", &old, "--object", &new, "--image-opts", &image, "-o", &options]);
    }
    for password in [PASSWORD, "one", "seven"] {
        assert!(content(&mut open(LUKS, &path, password).unwrap()).unwrap() == data, "{password}");
    }
    assert_eq!(open(LUKS, &path, "two").err(), Some(invalid_password()));
    // The slot of the old password is erased.
    let options = "state=inactive,old-secret=s";
    let (old, kept) = (secret("s", PASSWORD), secret("k", "one"));
    let image = image_opts(LUKS, &path).replace("=s,", "=k,");
    qemu_img_ok(&["amend", "--object", &old, "--object", &kept, "--image-opts", &image, "-o", options]);
    assert_eq!(open(LUKS, &path, PASSWORD).err(), Some(invalid_password()));
    assert!(open(LUKS, &path, "seven").is_ok());
}

#[test]
fn bad_keys_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    create(LUKS, &path("luks"), QUICK, "64k");
    create(Format::Qcow2, &path("qcow2"), &format!("encrypt.format=luks,encrypt.{QUICK}"), "64k");
    create(Format::Qcow2, &path("aes"), "encrypt.format=aes", "64k");
    create(Format::Qcow, &path("qcow"), "encrypt.format=aes", "64k");
    for (name, format, option) in [
        ("luks", LUKS, "key-secret"),
        ("qcow2", Format::Qcow2, "encrypt.key-secret"),
        ("aes", Format::Qcow2, "encrypt.key-secret"),
        ("qcow", Format::Qcow, "encrypt.key-secret"),
    ] {
        let opened = |key| open_storage(format, FileStorage::open(&path(name)), key).err();
        let refused = |message| Some(Error::new(KeyError, "key-secret", message));
        let missing = format!("Parameter '{option}' is required for cipher");
        assert_eq!(opened(Key::None).map(|error| error.message), Some(missing));
        assert_eq!(opened(Key::Unusable("No secret with id 's'")), refused("No secret with id 's'"));
        let (wrong, theirs) = (opened(Key::Password("wrong")), complaint(format, &path(name), "wrong", ""));
        assert_eq!(wrong.as_ref().map(|error| error.message.clone()), theirs, "{name}");
        // Whatever the password, data comes out of AES.
        assert_eq!(
            wrong,
            option.starts_with('k').then(invalid_password).or(match name {
                "qcow2" => Some(invalid_password()),
                _ => None,
            })
        );
    }
}

#[test]
fn the_encryption_that_is_asked_for_is_the_one_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    create(Format::Qcow2, &path("luks"), &format!("encrypt.format=luks,encrypt.{QUICK}"), "64k");
    create(Format::Qcow2, &path("aes"), "encrypt.format=aes", "64k");
    create(Format::Qcow, &path("qcow"), "encrypt.format=aes", "64k");
    for (name, format) in [("plain2", "qcow2"), ("plain", "qcow")] {
        qemu_img_ok(&["create", "-q", "-f", format, text(&path(name)), "64k"]);
    }
    for (name, format) in [
        ("luks", Format::Qcow2),
        ("aes", Format::Qcow2),
        ("qcow", Format::Qcow),
        ("plain2", Format::Qcow2),
        ("plain", Format::Qcow),
    ] {
        for encryption in ["luks", "aes", "foo"] {
            let access = Access::Data(Key::Password(PASSWORD));
            let options = OpenOptions { format: Some(format), access, encryption: Some(encryption) };
            let found = Image::open_with(FileStorage::open(&path(name)), options).err();
            let more = format!(",encrypt.format={encryption}");
            let theirs = complaint(format, &path(name), PASSWORD, &more);
            assert_eq!(found.map(|error| error.message), theirs, "{name} as {encryption}");
        }
    }
}

/// An image of 64 KiB that is quick to unlock, and where to put damaged ones.
fn sample() -> (tempfile::TempDir, Vec<u8>) {
    static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sample.luks");
        create(LUKS, &path, QUICK, "64k");
        std::fs::read(path).unwrap()
    });
    (tempfile::tempdir().unwrap(), SAMPLE.clone())
}

/// A text with its NUL as a patch can carry it, 8 bytes at a time.
fn put(at: usize, text: &str) -> Vec<Patch> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize((text.len() + 1).next_multiple_of(8), 0);
    let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    bytes.chunks(8).enumerate().map(|(index, bytes)| (at + 8 * index, 8, word(bytes))).collect()
}

#[test]
fn names_and_sizes_that_mean_nothing_are_refused() {
    let (directory, base) = sample();
    let path = directory.path().join("patched.luks");
    let size = |bytes| vec![(KEY_BYTES, 4, bytes)];
    let cases: Vec<(Vec<Vec<Patch>>, ErrorKind, &str)> = vec![
        (vec![put(CIPHER, "foo")], Unsupported, "cipher-name"),
        (vec![put(CIPHER, "")], Unsupported, "cipher-name"),
        (vec![put(CIPHER, "AES")], Unsupported, "cipher-name"),
        (vec![put(CIPHER, "cast5")], Unsupported, "cipher-name"),
        (vec![put(MODE, "xts")], InvalidFormat, "cipher-mode"),
        (vec![put(MODE, "foo-plain64")], Unsupported, "cipher-mode"),
        (vec![put(MODE, "-plain64")], Unsupported, "cipher-mode"),
        (vec![put(MODE, "xts-foo")], Unsupported, "cipher-mode"),
        (vec![put(MODE, "xts-essiv")], InvalidFormat, "cipher-mode"),
        (vec![put(MODE, "xts-essiv:foo")], Unsupported, "cipher-mode"),
        (vec![put(MODE, "xts-plain64:foo")], Unsupported, "cipher-mode"),
        (vec![put(MODE, "xts-plain:md5:foo")], Unsupported, "cipher-mode"),
        (vec![put(MODE, "xts-essiv:sha1")], Unsupported, "cipher-mode"),
        (vec![put(MODE, "xts-foo"), put(CIPHER, "foo")], Unsupported, "cipher-name"),
        (vec![put(MODE, "xts-foo"), put(HASH, "foo")], Unsupported, "hash-spec"),
        (vec![put(HASH, "whirlpool")], Unsupported, "hash-spec"),
        (vec![size(0)], Unsupported, "cipher-name"),
        (vec![size(17)], Unsupported, "cipher-name"),
        (vec![size(33)], InvalidFormat, "key-bytes"),
        (vec![size(32)], KeyError, "key-secret"),
        (vec![put(CIPHER, "cast5"), put(MODE, "xts-plain"), size(32)], Unsupported, "cipher-mode"),
        (vec![put(CIPHER, "cast5"), put(MODE, "cbc-essiv:sha1"), size(16)], Unsupported, "cipher-mode"),
        (vec![put(CIPHER, "cast5"), put(MODE, "cbc-essiv:md5"), size(16)], KeyError, "key-secret"),
        // No key slot is active.
        (vec![vec![(SLOTS, 4, 0xdead)]], KeyError, "key-secret"),
    ];
    for (patches, kind, field) in cases {
        let bytes = patched(&base, Order::Big, &patches.concat());
        std::fs::write(&path, &bytes).unwrap();
        let error = open(LUKS, &path, PASSWORD).err().unwrap_or_else(|| panic!("{patches:x?}"));
        assert_eq!((error.kind, error.field), (kind, field), "{error}");
        assert_eq!(Some(error.message), complaint(LUKS, &path, PASSWORD, ""));
        // What the header says is checked without a key as well, by `qemu-img info`.
        let without = Image::open_metadata(Memory::new(bytes), Some(LUKS)).err();
        let info = qemu_img(&["info", "-f", "luks", text(&path)]);
        assert_eq!(without.is_none(), info.status.success(), "{patches:x?}: {without:?}");
    }
}

/// SM3 is a hash of later releases, SM4 a cipher of the latest, in one mode.
#[test]
fn chinese_standards_are_known() {
    let (_directory, base) = sample();
    let size = (KEY_BYTES, 4, 16);
    let sm4 = |mode| [put(CIPHER, "sm4"), put(MODE, mode), vec![size]].concat();
    for (patches, message) in [
        (put(HASH, "sm3"), "Invalid password, cannot unlock any keyslot"),
        (sm4("ecb-plain64"), "Invalid password, cannot unlock any keyslot"),
        (sm4("ecb-essiv:md5"), "Invalid password, cannot unlock any keyslot"),
        (sm4("ecb-essiv:sha1"), "Cipher sm4 not supported with essiv"),
        (sm4("cbc-plain64"), "Unsupported cipher mode cbc"),
    ] {
        let storage = Memory::new(patched(&base, Order::Big, &patches));
        let error = open_storage(LUKS, storage, Key::Password(PASSWORD)).err().unwrap();
        assert_eq!(error.message, message);
    }
}

/// `qemu-img` computes for hours.
#[test]
fn the_work_to_unlock_an_image_is_bounded() {
    let (_directory, base) = sample();
    let most = |at| (at, 4, u64::from(u32::MAX));
    let slot = |index: usize| SLOTS + index * SLOT_LEN;
    let open = |patches: &[Patch]| {
        let storage = Memory::new(patched(&base, Order::Big, patches));
        open_storage(LUKS, storage, Key::Password("wrong")).err().unwrap()
    };
    let refused = |field, index| {
        let message = format!("Keyslot {index} takes more than 268435456 iterations to unlock");
        Error::new(Limit, field, message)
    };
    assert_eq!(open(&[most(slot(0) + 4)]), refused("iterations", 0));
    assert_eq!(open(&[most(164)]), refused("mk-digest-iter", 0));
    assert_eq!(open(&[(slot(5), 4, 0xac_71f3), most(slot(5) + 4)]), refused("iterations", 5));
    // Slots without a key cost nothing.
    assert_eq!(open(&[most(slot(5) + 4)]), invalid_password());
}

#[test]
fn key_material_that_is_cut_off_or_damaged_opens_nothing() {
    let (directory, base) = sample();
    let path = directory.path().join("cut.luks");
    for length in [592, 4096, 8192, 4096 + 256_000 - 512] {
        let mut bytes = base.clone();
        bytes.truncate(length);
        bytes.resize(base.len(), 0);
        std::fs::write(&path, &bytes).unwrap();
        let theirs = complaint(LUKS, &path, PASSWORD, "");
        assert_eq!(open(LUKS, &path, PASSWORD).err(), Some(invalid_password()), "{length}");
        assert_eq!(theirs, Some(invalid_password().message), "{length}");
    }
    let damaged = patched(&base, Order::Big, &[(4096 + 255_999, 1, 7)]);
    let error = open_storage(LUKS, Memory::new(damaged), Key::Password(PASSWORD)).err();
    assert_eq!(error, Some(invalid_password()));
}

/// The pointer to the LUKS header in a qcow2 image.
#[test]
fn a_luks_header_outside_its_area_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    create(Format::Qcow2, &path, &format!("encrypt.format=luks,encrypt.{QUICK}"), "64k");
    let base = std::fs::read(&path).unwrap();
    let extension = (0..1024).step_by(8).find(|&at| base[at..].starts_with(&0x0537_be77u32.to_be_bytes()));
    let (offset, length) = (extension.unwrap() + 8, extension.unwrap() + 16);
    for (patches, field, message) in [
        ([(length, 8, 591)], "header extension", "Request for data outside of extension header"),
        ([(length, 8, 4096)], "header extension", "Request for data outside of extension header"),
        ([(offset, 8, 1 << 40)], "magic", "Volume is not in LUKS format"),
        (
            [(offset, 8, u64::MAX << 16)],
            "header extension",
            "Could not read encryption header: Input/output error",
        ),
    ] {
        std::fs::write(&path, patched(&base, Order::Big, &patches)).unwrap();
        let error = open(Format::Qcow2, &path, PASSWORD).err().unwrap();
        assert_eq!((error.kind, error.field, error.message.as_str()), (InvalidFormat, field, message));
        assert_eq!(complaint(Format::Qcow2, &path, PASSWORD, "").as_deref(), Some(message));
    }
    std::fs::write(&path, patched(&base, Order::Big, &[(length, 8, u64::MAX)])).unwrap();
    assert!(open(Format::Qcow2, &path, PASSWORD).is_ok());
    assert_eq!(complaint(Format::Qcow2, &path, PASSWORD, ""), None);
}

/// Sectors are what is encrypted; and without a key they stay as they are.
#[test]
fn data_is_decrypted_in_whole_sectors_and_with_a_key() {
    let (_directory, base) = sample();
    let mut image = open_storage(LUKS, Memory::new(base.clone()), Key::Password(PASSWORD)).unwrap();
    let extent = image.extent_at(512).unwrap();
    let mut bytes = [0; 1024];
    assert_eq!(image.decrypt(&extent, 0, &mut bytes), Ok(()));
    for (within, length) in [(1, 512), (0, 511), (u64::MAX, 512)] {
        let error = image.decrypt(&extent, within, &mut bytes[..length]).err().unwrap();
        assert_eq!(error.kind, Limit, "{within}+{length}");
    }
    let metadata = Image::open_metadata(Memory::new(base), None).unwrap();
    assert_eq!(metadata.decrypt(&extent, 0, &mut bytes).err().map(|error| error.kind), Some(KeyError));
}

/// Compressed clusters are stored as they are in an image that is encrypted otherwise.
#[test]
fn compressed_clusters_are_not_encrypted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    create(Format::Qcow2, &path, &format!("encrypt.format=luks,encrypt.{QUICK}"), "128k");
    let image = image_opts(Format::Qcow2, &path);
    let commands = ["write -c -P 7 0 64k", "read -P 7 0 64k"];
    qemu_io_on(&["--object", &secret("s", PASSWORD), "--image-opts", &image], &commands);
    let mut image = open(Format::Qcow2, &path, PASSWORD).unwrap();
    let extent = image.extent_at(0).unwrap();
    assert!(image.stream(&extent).unwrap().is_some());
    let mut bytes = [7; 100];
    image.decrypt(&extent, 0, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 100]);
}

#[test]
fn damage_is_survived() {
    let (_directory, base) = sample();
    for at in 0..592 {
        for value in [0, 0xff, base[at] ^ 1] {
            let mut bytes = base[..592].to_vec();
            bytes[at] = value;
            survive(&bytes, Some(LUKS));
        }
    }
}

/// A key of 24 bytes makes key material that ends within a sector, where `qemu-img` crashes: this one is made here.
#[test]
fn key_material_need_not_be_whole_sectors() {
    use aes::Aes192;
    use cbc::Encryptor;
    use cipher::{BlockModeEncrypt, KeyIvInit, array::Array};
    use digest::Digest;
    use sha2::Sha256;

    let encrypt = |key: &[u8], bytes: &mut [u8]| {
        for (sector, bytes) in bytes.chunks_mut(512).enumerate() {
            let vector = (sector as u128).to_le_bytes();
            let mut encryptor = Encryptor::<Aes192>::new_from_slices(key, &vector).unwrap();
            encryptor.encrypt_blocks(Array::slice_as_chunks_mut(bytes).0);
        }
    };
    let derive = |password: &[u8], salt: &[u8], key: &mut [u8]| {
        pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, 1, key);
    };
    let (master_key, plain) = (plaintext(24), plaintext(512));
    let (_directory, base) = sample();
    let names = [put(CIPHER, "aes"), put(MODE, "cbc-plain64"), put(HASH, "sha256")].concat();
    let once = [(KEY_BYTES, 4, 24), (164, 4, 1), (SLOTS + 4, 4, 1)];
    let mut bytes = patched(&base, Order::Big, &[&names[..], &once].concat());

    let mut digest = [0; 20];
    derive(&master_key, &bytes[132..164], &mut digest);
    bytes[112..132].copy_from_slice(&digest);
    // The stripes but the last are anything; the last is what makes the key of them.
    let mut material = plaintext(24 * 4000);
    let mut last = [0; 24];
    for stripe in material[..24 * 3999].chunks(24) {
        let mixed: [u8; 24] = core::array::from_fn(|at| last[at] ^ stripe[at]);
        last.copy_from_slice(&Sha256::new_with_prefix([0; 4]).chain_update(mixed).finalize()[..24]);
    }
    for (at, byte) in material[24 * 3999..].iter_mut().enumerate() {
        *byte = last[at] ^ master_key[at];
    }
    let mut slot_key = [0; 24];
    derive(PASSWORD.as_bytes(), &bytes[SLOTS + 8..SLOTS + 40], &mut slot_key);
    encrypt(&slot_key, &mut material);
    bytes[4096..4096 + material.len()].copy_from_slice(&material);
    let payload = 512 * usize::try_from(u32::from_be_bytes(bytes[104..108].try_into().unwrap())).unwrap();
    bytes[payload..payload + 512].copy_from_slice(&plain);
    encrypt(&master_key, &mut bytes[payload..payload + 512]);

    let mut image = open_storage(LUKS, Memory::new(bytes), Key::Password(PASSWORD)).unwrap();
    let mut found = [0; 512];
    read(&mut image, 0, &mut found).unwrap();
    assert_eq!(found[..], plain[..]);
}
