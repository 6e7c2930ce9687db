//! LUKS: what the header says without a key, in `qemu-img info`'s words where it is refused.

mod support;

use std::sync::LazyLock;

use formats::ErrorKind::{InvalidFormat, Key, Unsupported};
use formats::{Error, Format, Image};
use support::cases::Expect::Refused;
use support::cases::{Order, Patch, check_file, flips, patched};
use support::{Memory, qemu_img, qemu_img_ok, text};

const PAYLOAD: usize = 104;
const KEY_BYTES: usize = 108;
const SLOTS: usize = 208;
const SLOT_LEN: usize = 48;

/// An image of 1 MiB in a file of its own; to make one takes seconds.
fn sample() -> (tempfile::TempDir, Vec<u8>) {
    static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(create);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("sample.luks"), &*SAMPLE).unwrap();
    (directory, SAMPLE.clone())
}

fn create() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sample.luks");
    let options = "key-secret=s,iter-time=10";
    // Some releases give up on their key derivation benchmark at random.
    for _ in 0..20 {
        let secret = ["--object", "secret,id=s,data=x", "-o", options];
        let args = [&["create", "-q", "-f", "luks"], &secret[..], &[text(&path), "1M"]].concat();
        if qemu_img(&args).status.success() {
            break;
        }
    }
    std::fs::read(&path).unwrap()
}

#[test]
fn a_disk_is_what_follows_the_key_material() {
    let (directory, mut bytes) = sample();
    let path = directory.path().join("sample.luks");
    let image = Image::open_metadata(Memory::new(bytes.clone()), None).unwrap();
    assert_eq!((image.format(), image.virtual_size()), (Format::Luks, 1 << 20));
    assert!(image.encrypted() && !image.reports_block_status());
    let info = qemu_img_ok(&["info", "-f", "luks", text(&path)]);
    assert!(info.contains("virtual size: 1 MiB"), "{info}");
    bytes.pop();
    assert_eq!(Image::open_metadata(Memory::new(bytes), None).unwrap().virtual_size(), 1 << 20);
}

#[test]
fn data_is_not_read_without_a_key() {
    let (directory, bytes) = sample();
    let path = directory.path().join("sample.luks");
    let key = Refused(Key, "key-secret", "Parameter 'key-secret' is required for cipher");
    check_file(Format::Luks, &path, key, "a key is missing");
    std::fs::write(&path, [0; 512]).unwrap();
    check_file(Format::Luks, &path, key, "a key is missed before the signature");
    assert_eq!(Image::open(Memory::new(bytes), None).err().map(|error| error.kind), Some(Key));
}

#[test]
fn fields_of_the_header() {
    let (directory, base) = sample();
    let path = directory.path().join("patched.luks");
    let slot =
        |index: usize, field: usize, value: u64| -> Patch { (SLOTS + index * SLOT_LEN + field, 4, value) };
    let long = |at| -> [Patch; 4] { core::array::from_fn(|index| (at + index * 8, 8, u64::MAX)) };
    let cases: [(&[Patch], &'static str, &'static str); 17] = [
        (&[(0, 1, 0)], "magic", "Volume is not in LUKS format"),
        (&[(6, 2, 2)], "version", "LUKS version 2 is not supported"),
        (&long(8), "cipher-name", "LUKS header cipher name is not NUL terminated"),
        (&long(40), "cipher-mode", "LUKS header cipher mode is not NUL terminated"),
        (&long(72), "hash-spec", "LUKS header hash spec is not NUL terminated"),
        (&[(PAYLOAD, 4, 7)], "payload-offset", "LUKS payload is overlapping with the header"),
        (&[(PAYLOAD, 4, 8)], "key-material-offset", "Keyslot 0 is overlapping with the encrypted payload"),
        (
            &[(PAYLOAD, 4, u64::from(u32::MAX))],
            "payload-offset",
            "Could not refresh total sector count: Input/output error",
        ),
        (
            &[(KEY_BYTES, 4, 1 << 20)],
            "key-material-offset",
            "Keyslot 0 is overlapping with the encrypted payload",
        ),
        (&[(164, 4, 0)], "mk-digest-iter", "LUKS key iteration count is zero"),
        (&[slot(0, 0, 5)], "active", "Keyslot 0 state (active/disable) is corrupted"),
        (&[slot(0, 4, 0)], "iterations", "Keyslot 0 iteration count is zero"),
        (&[slot(0, 40, 2)], "key-material-offset", "Keyslot 0 is overlapping with the LUKS header"),
        (&[slot(7, 40, 5000)], "key-material-offset", "Keyslot 7 is overlapping with the encrypted payload"),
        (&[slot(1, 40, 8)], "key-material-offset", "Keyslots 0 and 1 are overlapping in the header"),
        (&[slot(0, 44, 3999)], "stripes", "Keyslot 0 is corrupted (stripes 3999 != 4000)"),
        (&[slot(7, 44, 1)], "stripes", "Keyslot 7 is corrupted (stripes 1 != 4000)"),
    ];
    for (patches, field, message) in cases {
        let bytes = patched(&base, Order::Big, patches);
        std::fs::write(&path, &bytes).unwrap();
        let kind = if field == "version" { Unsupported } else { InvalidFormat };
        let found = Image::open_metadata(Memory::new(bytes), Some(Format::Luks)).err();
        assert_eq!(found, Some(Error::new(kind, field, message)));
        let output = qemu_img(&["info", "-f", "luks", text(&path)]);
        let theirs = String::from_utf8(output.stderr).unwrap();
        assert_eq!(theirs, format!("qemu-img: Could not open '{}': {message}\n", text(&path)));
    }
}

/// `qemu-img` adds in 32 bits, so that such a slot ends before it begins.
#[test]
fn a_key_slot_does_not_wrap_round() {
    let (_directory, base) = sample();
    let bytes = patched(&base, Order::Big, &[(SLOTS + 40, 4, u32::MAX.into())]);
    let error = Image::open_metadata(Memory::new(bytes), None).err().unwrap();
    assert_eq!(error.message, "Keyslot 0 is overlapping with the encrypted payload");
}

#[test]
fn damage_is_survived() {
    let (_directory, mut base) = sample();
    base.truncate(5000 * 512);
    flips(&base[..4096], Format::Luks, 592, 1000);
}
