//! How an image is to be opened: as which format, for what, and with which key.

use alloc::format;
use core::fmt;

use crate::{Error, ErrorKind, Format};

/// How an image is to be opened. The default is to probe it and to read its data, without a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions<'a> {
    /// Its format; probed if absent.
    pub format: Option<Format>,
    /// What it is opened for.
    pub access: Access<'a>,
    /// How a qcow2 or qcow image is encrypted (`encrypt.format`): one that is encrypted otherwise, or not at all, is
    /// refused. Other formats do not look at it.
    pub encryption: Option<&'a str>,
}

/// What an image is opened for.
#[derive(Clone, Copy, Debug)]
pub enum Access<'a> {
    /// To say what it is. Data that is encrypted stays so.
    Metadata,
    /// To check it: as [`Metadata`](Self::Metadata), but what the check itself looks at may be broken.
    Check,
    /// To read its data: whatever that takes is there, or opening fails.
    Data(Key<'a>),
}

impl Default for Access<'_> {
    fn default() -> Self {
        Self::Data(Key::None)
    }
}

/// What there is to open an encrypted image with. Images that are not encrypted do not look at it.
#[derive(Clone, Copy, Default)]
pub enum Key<'a> {
    /// Nothing.
    #[default]
    None,
    /// Something that is no password, and why.
    Unusable(&'a str),
    /// A password.
    Password(&'a str),
}

/// Never the password itself.
impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Unusable(why) => f.debug_tuple("Unusable").field(why).finish(),
            Self::Password(_) => f.write_str("Password"),
        }
    }
}

impl<'a> Key<'a> {
    /// The password, which is asked for with the message `required`.
    pub(crate) fn password(self, required: &str) -> Result<&'a [u8], Error> {
        match self {
            Self::None => Err(Error::new(ErrorKind::Key, "key-secret", required)),
            Self::Unusable(why) => Err(Error::new(ErrorKind::Key, "key-secret", why)),
            Self::Password(password) => Ok(password.as_bytes()),
        }
    }
}

/// Whether the encryption that a header has, by the name of its method, is the one that was asked for.
pub(crate) fn check_encryption(header: Option<&str>, asked: Option<&str>) -> Result<(), Error> {
    let message = match (header, asked) {
        (Some(found), Some(asked)) if found != asked => {
            let asked = asked.as_bytes().escape_ascii();
            format!("Header reported '{found}' encryption format but options specify '{asked}'")
        }
        (None, Some(asked)) => {
            let asked = asked.as_bytes().escape_ascii();
            format!("No encryption in image header, but options specified format '{asked}'")
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Key, "crypt_method", message))
}
