//! The encryption of qcow, which qcow2 took over: AES-128 in CBC, the key being the password's first bytes.

use crate::Error;
use crate::access::Key;
use crate::crypto::{Algorithm, DiskCipher, IvGenerator, Mode, Scheme};

const SCHEME: Scheme = Scheme { algorithm: Algorithm::AES_128, mode: Mode::Cbc, iv: IvGenerator::Plain64 };

/// Any password is one: nothing tells whether it is right.
pub(crate) fn decryptor(key: Key<'_>) -> Result<DiskCipher, Error> {
    let password = key.password("Parameter 'encrypt.key-secret' is required for cipher")?;
    let mut key = [0; 16];
    for (byte, with) in key.iter_mut().zip(password) {
        *byte = *with;
    }
    DiskCipher::new(SCHEME, &key)
}
