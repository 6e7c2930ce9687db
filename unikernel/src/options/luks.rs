//! The options of LUKS, for an image of its own and inside qcow2, checked in `qemu-img`'s order.
//!
//! One deliberate difference: a secret that is not given is not missed. No size depends on it.

use alloc::format;
use core::ops::RangeInclusive;

use calc::luks::{CipherKey, KeyUse};
use protocol::{
    ErrorKind, ErrorRecord,
    QemuVersion::{self, V5_2, V7_2, V10_0, V11_1},
    size,
};

use super::{Quoted, Values, bad_value, usage};

/// What a LUKS header's size depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LuksOptions {
    /// Key of the cipher.
    pub key: CipherKey,
    /// One key or two.
    pub key_use: KeyUse,
}

/// How LUKS is to encrypt: words that are known, which may not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LuksWords<'a> {
    /// `cipher-alg`.
    pub cipher: &'a str,
    /// `cipher-mode`.
    pub mode: &'a str,
    /// `ivgen-alg`.
    pub generator: Option<&'a str>,
    /// `ivgen-hash-alg`.
    pub generator_hash: Option<&'a str>,
    /// `hash-alg`.
    pub hash: &'a str,
    /// `iter-time`, in milliseconds.
    pub iter_time: Option<i64>,
    algorithm: &'static Cipher,
}

/// A block cipher by name, in the releases that know it.
#[derive(Debug, PartialEq, Eq)]
struct Cipher {
    name: &'static str,
    releases: RangeInclusive<QemuVersion>,
    /// Absent where the name is known but LUKS has no such cipher.
    key: Option<CipherKey>,
    modes: &'static [&'static str],
    /// What `essiv` calls its family, in which it finds a cipher for any key length; others keep their own.
    family: Option<&'static str>,
}

const ANY: RangeInclusive<QemuVersion> = V5_2..=V11_1;
const MODES: &[&str] = &["ecb", "cbc", "xts", "ctr"];
const IV_GENERATORS: &[&str] = &["plain", "plain64", "essiv"];

const fn family(name: &'static str, key: CipherKey, family: &'static str) -> Cipher {
    Cipher { name, releases: ANY, key: Some(key), modes: MODES, family: Some(family) }
}

const fn other(
    name: &'static str,
    releases: RangeInclusive<QemuVersion>,
    key: Option<CipherKey>,
    modes: &'static [&'static str],
) -> Cipher {
    Cipher { name, releases, key, modes, family: None }
}

/// The ciphers as Debian builds `qemu-img`.
const CIPHERS: &[Cipher] = &[
    family("aes-128", CipherKey::Bits128, "AES"),
    family("aes-192", CipherKey::Bits192, "AES"),
    family("aes-256", CipherKey::Bits256, "AES"),
    family("serpent-128", CipherKey::Bits128, "Serpent"),
    family("serpent-192", CipherKey::Bits192, "Serpent"),
    family("serpent-256", CipherKey::Bits256, "Serpent"),
    family("twofish-128", CipherKey::Bits128, "Twofish"),
    family("twofish-192", CipherKey::Bits192, "Twofish"),
    family("twofish-256", CipherKey::Bits256, "Twofish"),
    other("cast5-128", ANY, Some(CipherKey::Bits128), &["ecb", "cbc", "ctr"]),
    other("sm4", V10_0..=V10_0, None, &[]),
    other("sm4", V11_1..=V11_1, Some(CipherKey::Bits128), &["ecb"]),
    other("des-rfb", V5_2..=V5_2, None, &[]),
    other("des", V7_2..=V11_1, None, &[]),
    other("3des", ANY, None, &[]),
];

/// Hashes: name, releases, bytes of a digest.
const HASHES: &[(&str, RangeInclusive<QemuVersion>, u64)] = &[
    ("md5", ANY, 16),
    ("sha1", ANY, 20),
    ("sha224", ANY, 28),
    ("sha256", ANY, 32),
    ("sha384", ANY, 48),
    ("sha512", ANY, 64),
    ("ripemd160", ANY, 20),
    ("sm3", V10_0..=V11_1, 32),
];

impl LuksOptions {
    /// The options of a list, their names behind `prefix` there; `secrets` are the names of the secrets there are.
    pub fn new(
        values: &Values,
        prefix: &str,
        secrets: &[&str],
        profile: QemuVersion,
    ) -> Result<Self, ErrorRecord> {
        let words = LuksWords::new(values, prefix, profile)?;
        let secret = values.text(&format!("{prefix}key-secret"));
        if let Some(secret) = secret.filter(|secret| !secrets.contains(secret)) {
            return Err(usage(format_args!("No secret with id '{}'", Quoted(secret.as_bytes()))));
        }
        words.together(profile)
    }
}

impl<'a> LuksWords<'a> {
    /// The words of a list, their names behind `prefix` there.
    pub fn new(values: &'a Values, prefix: &str, profile: QemuVersion) -> Result<Self, ErrorRecord> {
        let given = |name: &str| values.text(&format!("{prefix}{name}"));
        let one_of = |name: &str, known: &dyn Fn(&str) -> bool| match given(name) {
            Some(value) if !known(value) => Err(bad_value(name, value, profile)),
            value => Ok(value),
        };
        let is_hash = |name: &str| digest_of(name, profile).is_some();
        let cipher = one_of("cipher-alg", &|name| cipher_of(name, profile).is_some())?.unwrap_or("aes-256");
        let mode = one_of("cipher-mode", &|mode| MODES.contains(&mode))?.unwrap_or("xts");
        let generator = one_of("ivgen-alg", &|name| IV_GENERATORS.contains(&name))?;
        let generator_hash = one_of("ivgen-hash-alg", &is_hash)?;
        let hash = one_of("hash-alg", &is_hash)?.unwrap_or("sha256");
        let iter_time = given("iter-time").map(|time| size::parse_signed(time, profile)).transpose();
        let iter_time =
            iter_time.map_err(|_| usage(format_args!("Parameter 'iter-time' expects integer")))?;
        if values.has(&format!("{prefix}detached-header")) {
            return Err(usage(format_args!("Parameter 'detached-header' is unexpected")));
        }
        let unknown = || bad_value("cipher-alg", cipher, profile);
        let algorithm = cipher_of(cipher, profile).ok_or_else(unknown)?;
        Ok(Self { cipher, mode, generator, generator_hash, hash, iter_time, algorithm })
    }

    /// What the words mean together.
    pub fn together(&self, profile: QemuVersion) -> Result<LuksOptions, ErrorRecord> {
        let hash = (self.generator == Some("essiv")).then_some(self.generator_hash.unwrap_or("sha256"));
        self.algorithm.layout(self.mode, hash.and_then(|hash| digest_of(hash, profile)))
    }
}

fn cipher_of(name: &str, profile: QemuVersion) -> Option<&'static Cipher> {
    CIPHERS.iter().find(|cipher| cipher.name == name && cipher.releases.contains(&profile))
}

/// Bytes of a digest of the hash of this name.
fn digest_of(name: &str, profile: QemuVersion) -> Option<u64> {
    let known = HASHES.iter().find(|(hash, releases, _)| *hash == name && releases.contains(&profile));
    known.map(|hash| hash.2)
}

impl Cipher {
    /// Whether the cipher works in this mode, and with `essiv` over digests of that many bytes.
    fn layout(&self, mode: &str, essiv: Option<u64>) -> Result<LuksOptions, ErrorRecord> {
        let unsupported = |message| Err(ErrorRecord::new(ErrorKind::Unsupported, message));
        let Some(key) = self.key else {
            return unsupported(format!("Algorithm '{}' not supported", self.name));
        };
        match (essiv, self.family) {
            (Some(digest), Some(_)) if [16, 24, 32].contains(&digest) => {}
            (Some(digest), Some(family)) => {
                return unsupported(format!("No {family} cipher with key size {digest} available"));
            }
            (Some(digest), None) if digest != key.bytes() => {
                return unsupported(format!("Cipher {} not supported with essiv", self.name));
            }
            _ => {}
        }
        if !self.modes.contains(&mode) {
            return unsupported(format!("Unsupported cipher mode {mode}"));
        }
        Ok(LuksOptions { key, key_use: if mode == "xts" { KeyUse::Double } else { KeyUse::Single } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Driver;
    use alloc::string::String;

    fn options(list: &str, profile: QemuVersion) -> Result<LuksOptions, String> {
        let driver = Driver::find("luks", profile).unwrap();
        Values::parse(driver, list, profile)
            .and_then(|values| LuksOptions::new(&values, "", &["s"], profile))
            .map_err(|error| error.message)
    }

    #[test]
    fn the_default_is_aes_256_xts_and_needs_no_secret() {
        let default = LuksOptions { key: CipherKey::Bits256, key_use: KeyUse::Double };
        assert_eq!(options("", V11_1), Ok(default));
        assert_eq!(options("key-secret=s,hash-alg=sm3,iter-time=-1", V11_1), Ok(default));
    }

    #[test]
    fn a_cipher_that_crashes_qemu_img_has_a_size() {
        // 24 bytes * 4000 stripes are 187.5 sectors; qemu-img of every release aborts on an assertion here.
        let single = LuksOptions { key: CipherKey::Bits192, key_use: KeyUse::Single };
        assert_eq!(options("cipher-alg=aes-192,cipher-mode=cbc", V11_1), Ok(single));
    }

    #[test]
    fn the_first_check_that_fails_speaks() {
        for (list, message) in [
            ("hash-alg=x,cipher-mode=x", "Parameter 'cipher-mode' does not accept value 'x'"),
            ("hash-alg=x,ivgen-hash-alg=x", "Parameter 'ivgen-hash-alg' does not accept value 'x'"),
            ("hash-alg=x,iter-time=18446744073709551615", "Parameter 'hash-alg' does not accept value 'x'"),
            ("iter-time=18446744073709551615,detached-header", "Parameter 'iter-time' expects integer"),
            ("iter-time=-1,detached-header=off,key-secret=t", "Parameter 'detached-header' is unexpected"),
            ("key-secret=t,cipher-alg=des", "No secret with id 't'"),
            ("key-secret", "No secret with id 'on'"),
            ("cipher-alg=des", "Algorithm 'des' not supported"),
            ("cipher-alg=cast5-128", "Unsupported cipher mode xts"),
            (
                "cipher-alg=cast5-128,ivgen-alg=essiv,cipher-mode=cbc",
                "Cipher cast5-128 not supported with essiv",
            ),
            ("ivgen-alg=essiv,ivgen-hash-alg=sha1", "No AES cipher with key size 20 available"),
            (
                "cipher-alg=twofish-192,ivgen-alg=essiv,ivgen-hash-alg=sha512",
                "No Twofish cipher with key size 64 available",
            ),
        ] {
            assert_eq!(options(list, V11_1), Err(message.into()), "{list}");
        }
    }

    #[test]
    fn releases_know_different_ciphers() {
        let sm4 = "cipher-alg=sm4,cipher-mode=ecb";
        assert_eq!(options(sm4, V5_2), Err("Invalid parameter 'sm4'".into()));
        assert_eq!(options(sm4, V7_2), Err("Parameter 'cipher-alg' does not accept value 'sm4'".into()));
        assert_eq!(options(sm4, V10_0), Err("Algorithm 'sm4' not supported".into()));
        let single = LuksOptions { key: CipherKey::Bits128, key_use: KeyUse::Single };
        assert_eq!(options(sm4, V11_1), Ok(single));
    }
}
