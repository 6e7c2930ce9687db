//! `--image-opts` and `json:` names: an image described by options in place of a name.
//!
//! This is the part of QEMU's block options that leads to local files: which file, in which format, on top of which
//! other image, decrypted by which secret. What the formats make of it is the guest's to check.

use std::collections::BTreeMap;

use protocol::{
    MAX_CHAIN, QemuVersion, Window,
    options::{HINT, parameters},
    size,
};
use serde_json::Value;

use crate::report::{self, Speaker, escape};

/// In front of a name that is a JSON object.
const JSON: &str = "json:";

/// Options that say how QEMU accesses a node and make no difference to what is in it.
const ACCESS: [&str; 9] = [
    "aio",
    "auto-read-only",
    "cache.direct",
    "cache.no-flush",
    "detect-zeroes",
    "discard",
    "force-share",
    "node-name",
    "read-only",
];

/// Those of them that are on or off.
const SWITCHES: [&str; 5] = ["auto-read-only", "cache.direct", "cache.no-flush", "force-share", "read-only"];

/// An image as it is described.
#[derive(Debug, PartialEq, Eq)]
pub struct Description {
    /// Path of the file that holds it.
    pub path: String,
    /// Name of its format; probed when absent.
    pub format: Option<String>,
    /// The part of the file that holds it.
    pub window: Option<Window>,
    /// Id of the secret that decrypts it.
    pub key_secret: Option<String>,
    /// How it is encrypted.
    pub encrypt_format: Option<String>,
    /// What is below it, if it is not the image that says so.
    pub backing: Option<Below>,
    /// Path of the file with its data, if it is not the image that names it.
    pub data_file: Option<String>,
}

impl Description {
    /// Whether it says no more of what the image holds than its name and format do.
    pub fn is_plain(&self) -> bool {
        self.window.is_none() && self.key_secret.is_none() && self.encrypt_format.is_none()
    }
}

/// What is below an image by its description.
#[derive(Debug, PartialEq, Eq)]
pub enum Below {
    /// Nothing.
    Nothing,
    /// This.
    Image(Box<Description>),
}

/// Options by their dotted names. `None` is JSON's null.
type Options = BTreeMap<String, Option<String>>;

/// Whether a name is a description.
pub fn is_json(name: &str) -> bool {
    name.starts_with(JSON)
}

/// Reads what `--image-opts` makes of the operand.
pub fn parse_list(list: &str, speaker: Speaker) -> Result<Description, String> {
    let mut options = Options::new();
    for (index, (name, value)) in parameters(list).enumerate() {
        let (name, value) = match (value, name.strip_prefix("no")) {
            (Some(value), _) => (name, value),
            // The first may be the bare value of `file`, which names a node.
            (None, _) if index == 0 => ("file", name.to_owned()),
            (None, flag) => {
                let (flag, value) = flag.map_or((name, "on"), |flag| (flag, "off"));
                if speaker.profile > QemuVersion::V5_2 {
                    let (speaker, name) = (speaker.name(), escape(name));
                    report::complain(&format!(
                        "{speaker}: warning: short-form boolean option '{name}' deprecated\nPlease use {}={value} instead\n",
                        escape(flag),
                    ));
                }
                (flag, value.to_owned())
            }
        };
        options.insert(name.to_owned(), Some(value));
    }
    describe(options, None, speaker.profile, MAX_CHAIN)
}

/// Reads a name that [is a description](is_json); `format` is that of `-f`, which counts more than what is in it.
pub fn parse_json(name: &str, format: Option<&str>, speaker: Speaker) -> Result<Description, String> {
    let text = name.strip_prefix(JSON).unwrap_or(name);
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("Could not parse the JSON options: JSON parse error, {error}"))?;
    let Value::Object(_) = value else { return Err("Invalid JSON object given".into()) };
    let mut options = Options::new();
    flatten(String::new(), value, &mut options)?;
    describe(options, format, speaker.profile, MAX_CHAIN)
}

/// Makes nested objects dotted names.
fn flatten(name: String, value: Value, options: &mut Options) -> Result<(), String> {
    let text = match value {
        Value::Object(members) => {
            for (member, value) in members {
                let name = if name.is_empty() { member } else { format!("{name}.{member}") };
                flatten(name, value, options)?;
            }
            return Ok(());
        }
        Value::Array(_) => {
            return Err(format!("Option '{}' is a list, which is not supported", escape(&name)));
        }
        Value::Null => None,
        Value::Bool(flag) => Some(if flag { "on" } else { "off" }.to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text),
    };
    options.insert(name, text);
    Ok(())
}

/// The options whose names begin with `prefix`, without it.
fn take_prefixed(options: &mut Options, prefix: &str) -> Options {
    let names: Vec<String> = options.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    names
        .into_iter()
        .filter_map(|name| options.remove_entry(&name))
        .map(|(name, value)| (name[prefix.len()..].to_owned(), value))
        .collect()
}

fn take(options: &mut Options, name: &str) -> Option<String> {
    options.remove(name).flatten()
}

/// An image of a format, or a file as it is.
fn describe(
    mut options: Options,
    format: Option<&str>,
    profile: QemuVersion,
    depth: usize,
) -> Result<Description, String> {
    if depth == 0 {
        return Err(format!("More than {MAX_CHAIN} images stand above one another"));
    }
    let own = take(&mut options, "driver");
    let format = format.map(str::to_owned).or(own);
    check_switches(&options)?;
    if let Some("file" | "host_device") = format.as_deref() {
        let path = file(options)?;
        let format = Some("raw".to_owned());
        let (window, key_secret, encrypt_format, backing, data_file) = Default::default();
        return Ok(Description { path, format, window, key_secret, encrypt_format, backing, data_file });
    }
    let inner = take_prefixed(&mut options, "file.");
    let (path, mut window) = match take(&mut options, "file") {
        Some(node) => return Err(no_such_node(&node)),
        None if inner.is_empty() && format.is_none() => {
            return Err("Must specify either driver or file".into());
        }
        None if inner.is_empty() => return Err("A block device must be specified for \"file\"".into()),
        None => container(inner, profile)?,
    };
    if format.as_deref() == Some("raw")
        && let Some(own) = take_window(&mut options, profile)?
    {
        if window.is_some() {
            return Err("A part of a part of a file is not supported".into());
        }
        window = Some(own);
    }
    if window.is_some() && format.as_deref() != Some("raw") {
        return Err("An image in a part of a file is not supported, unless it is raw".into());
    }
    let key_secret = match format.as_deref() {
        Some("luks") => take(&mut options, "key-secret"),
        // What will be found is not known: either name means the key.
        None => take(&mut options, "encrypt.key-secret").or_else(|| take(&mut options, "key-secret")),
        _ => take(&mut options, "encrypt.key-secret"),
    };
    let encrypt_format = take(&mut options, "encrypt.format");
    let backing = below(&mut options, profile, depth)?;
    let data_file = match take_prefixed(&mut options, "data-file.") {
        data if data.is_empty() => match take(&mut options, "data-file") {
            Some(node) => return Err(no_such_node(&node)),
            None => None,
        },
        data => Some(protocol(data)?),
    };
    if let Some(name) = options.keys().find(|name| !ACCESS.contains(&name.as_str())) {
        let format = format.unwrap_or_default();
        return Err(format!(
            "Block format '{}' does not support the option '{}'",
            escape(&format),
            escape(name)
        ));
    }
    Ok(Description { path, format, window, key_secret, encrypt_format, backing, data_file })
}

/// What the options say of the image below.
fn below(options: &mut Options, profile: QemuVersion, depth: usize) -> Result<Option<Below>, String> {
    let inner = take_prefixed(options, "backing.");
    match options.remove("backing") {
        None if inner.is_empty() => Ok(None),
        None => describe(inner, None, profile, depth - 1).map(|image| Some(Below::Image(Box::new(image)))),
        Some(None) => Ok(Some(Below::Nothing)),
        Some(Some(text)) if text.is_empty() => Ok(Some(Below::Nothing)),
        Some(Some(node)) => Err(no_such_node(&node)),
    }
}

/// What holds an image: a file, or a part of one.
fn container(mut options: Options, profile: QemuVersion) -> Result<(String, Option<Window>), String> {
    match options.get("driver").and_then(Option::as_deref) {
        Some("raw") => {
            options.remove("driver");
            let window = take_window(&mut options, profile)?;
            let inner = take_prefixed(&mut options, "file.");
            if let Some(name) = options.keys().find(|name| !ACCESS.contains(&name.as_str())) {
                return Err(format!("Block format 'raw' does not support the option '{}'", escape(name)));
            }
            if inner.is_empty() {
                return Err("A block device must be specified for \"file\"".into());
            }
            Ok((protocol(inner)?, window))
        }
        _ => Ok((protocol(options)?, None)),
    }
}

/// The path of a file node.
fn protocol(mut options: Options) -> Result<String, String> {
    match take(&mut options, "driver").as_deref() {
        None | Some("file" | "host_device") => file(options),
        Some(other) => Err(format!("Driver '{}' is not supported in this place", escape(other))),
    }
}

fn file(mut options: Options) -> Result<String, String> {
    check_switches(&options)?;
    let path = take(&mut options, "filename");
    options.remove("locking");
    if let Some(name) = options.keys().find(|name| !ACCESS.contains(&name.as_str())) {
        return Err(format!("Block protocol 'file' doesn't support the option '{}'", escape(name)));
    }
    path.filter(|path| !path.is_empty()).ok_or_else(|| "The 'file' block driver requires a file name".into())
}

/// The `offset` and `size` of a raw node.
fn take_window(options: &mut Options, profile: QemuVersion) -> Result<Option<Window>, String> {
    let mut number = |name: &str| match take(options, name) {
        None => Ok(None),
        Some(text) => size::parse(&text, profile).map(Some).map_err(|_| {
            format!(
                "Parameter '{name}' expects a non-negative number below 2^64\n\
                 {HINT}Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
                 {HINT}and exabytes, respectively."
            )
        }),
    };
    let (offset, size) = (number("offset")?, number("size")?);
    Ok((offset.is_some() || size.is_some()).then(|| Window { offset: offset.unwrap_or(0), size }))
}

fn check_switches(options: &Options) -> Result<(), String> {
    let wrong = SWITCHES.into_iter().find(|&name| match options.get(name) {
        Some(Some(text)) => {
            !matches!(text.as_str(), "on" | "off" | "yes" | "no" | "true" | "false" | "y" | "n")
        }
        _ => false,
    });
    match wrong {
        Some(name) => Err(format!("Parameter '{name}' expects 'on' or 'off'")),
        None => Ok(()),
    }
}

fn no_such_node(name: &str) -> String {
    let name = escape(name);
    format!("Cannot find device='{name}' nor node-name='{name}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEAKER: Speaker = Speaker { as_qemu_img: true, profile: QemuVersion::V11_1 };

    fn plain(path: &str, format: Option<&str>) -> Description {
        Description {
            path: path.into(),
            format: format.map(Into::into),
            window: None,
            key_secret: None,
            encrypt_format: None,
            backing: None,
            data_file: None,
        }
    }

    #[test]
    fn a_file_and_its_format() {
        for (list, description) in [
            ("driver=qcow2,file.filename=a", plain("a", Some("qcow2"))),
            ("file.filename=a,,b", plain("a,b", None)),
            ("driver=file,filename=a", plain("a", Some("raw"))),
            ("driver=raw,file.driver=file,file.filename=a", plain("a", Some("raw"))),
            ("driver=vmdk,file.driver=raw,file.file.filename=nbd:a", plain("nbd:a", Some("vmdk"))),
            (
                "driver=qed,file.filename=a,read-only=on,node-name=x,file.locking=auto",
                plain("a", Some("qed")),
            ),
        ] {
            assert_eq!(parse_list(list, SPEAKER), Ok(description), "{list}");
        }
        for name in [
            r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"a"}}"#,
            r#"json:{"driver":"qcow2","file.filename":"a","read-only":true}"#,
        ] {
            assert_eq!(parse_json(name, None, SPEAKER), Ok(plain("a", Some("qcow2"))), "{name}");
            assert_eq!(parse_json(name, Some("raw"), SPEAKER), Ok(plain("a", Some("raw"))), "{name}");
        }
    }

    #[test]
    fn parts_keys_and_what_is_below() {
        let list = "driver=qcow2,file.driver=raw,file.file.filename=a,encrypt.format=luks,\
                    encrypt.key-secret=s,data-file.filename=d,backing.driver=raw,backing.size=512,backing.file.filename=b";
        let below =
            Description { window: Some(Window { offset: 0, size: Some(512) }), ..plain("b", Some("raw")) };
        let image = Description {
            key_secret: Some("s".into()),
            encrypt_format: Some("luks".into()),
            data_file: Some("d".into()),
            backing: Some(Below::Image(Box::new(below))),
            ..plain("a", Some("qcow2"))
        };
        assert_eq!(parse_list(list, SPEAKER), Ok(image));
        let luks = Description { key_secret: Some("s".into()), ..plain("a", Some("luks")) };
        assert_eq!(parse_list("driver=luks,key-secret=s,file.filename=a", SPEAKER), Ok(luks));
        let alone = Description { backing: Some(Below::Nothing), ..plain("a", Some("qed")) };
        assert_eq!(parse_list("driver=qed,file.filename=a,backing=", SPEAKER).as_ref(), Ok(&alone));
        let null = r#"json:{"driver":"qed","file":{"filename":"a"},"backing":null}"#;
        assert_eq!(parse_json(null, None, SPEAKER), Ok(alone));
    }

    #[test]
    fn errors_are_in_qemu_img_s_words() {
        for (list, words) in [
            ("", "Must specify either driver or file"),
            ("filename=a", "Must specify either driver or file"),
            ("driver=qcow2", "A block device must be specified for \"file\""),
            ("a", "Cannot find device='a' nor node-name='a'"),
            ("driver=qcow2,file=a", "Cannot find device='a' nor node-name='a'"),
            ("driver=qcow2,file.filename=a,foo=1", "Block format 'qcow2' does not support the option 'foo'"),
            (
                "driver=qcow2,file.filename=a,size=1",
                "Block format 'qcow2' does not support the option 'size'",
            ),
            (
                "driver=qcow2,file.filename=a,key-secret=s",
                "Block format 'qcow2' does not support the option 'key-secret'",
            ),
            (
                "driver=raw,file.filename=a,file.foo=1",
                "Block protocol 'file' doesn't support the option 'foo'",
            ),
            ("driver=raw,file.filename=a,read-only=maybe", "Parameter 'read-only' expects 'on' or 'off'"),
            ("driver=raw,file.driver=file", "The 'file' block driver requires a file name"),
        ] {
            assert_eq!(parse_list(list, SPEAKER), Err(words.into()), "{list}");
        }
        let wrong = parse_list("driver=raw,size=x,file.filename=a", SPEAKER).unwrap_err();
        assert!(wrong.starts_with("Parameter 'size' expects a non-negative number below 2^64\n"));
        assert_eq!(parse_json("json:[]", None, SPEAKER), Err("Invalid JSON object given".into()));
        assert!(
            parse_json("json:{", None, SPEAKER)
                .unwrap_err()
                .starts_with("Could not parse the JSON options: ")
        );
        let other = "driver=qcow2,file.driver=nbd,file.host=x";
        assert!(parse_list(other, SPEAKER).unwrap_err().contains("'nbd'"));
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = |count: usize| "backing.".repeat(count) + "file.filename=a";
        let list = (0..=MAX_CHAIN).map(deep).collect::<Vec<_>>().join(",");
        assert!(parse_list(&list, SPEAKER).unwrap_err().starts_with("More than 64"));
    }
}
