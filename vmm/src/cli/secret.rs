//! `--object secret,id=ID,data=TEXT|file=NAME`: the only user-creatable object there is here.

mod content;

use std::collections::BTreeMap;

use protocol::{QemuVersion, Secret, SecretContent, options::HINT};

use serde_json::Value;

use crate::{
    launch::Cpu,
    report::{Failure, escape},
};

/// Properties of a secret beside its type and id.
const PROPERTIES: [&str; 5] = ["data", "file", "format", "iv", "keyid"];

/// The secrets given so far. What is in them is not looked at before a key is needed.
#[derive(Default)]
pub struct Secrets {
    given: Vec<Given>,
}

/// A secret as it was given.
struct Given {
    id: String,
    properties: BTreeMap<String, String>,
}

impl Secrets {
    /// The secrets in the order given, those that are `keys` with what is in them, and the instructions that a guest with
    /// these keys is to have.
    pub fn for_keys(&self, keys: &[&str]) -> Result<(Vec<Secret>, Cpu), Failure> {
        let cpu = if keys.is_empty() { Cpu::Baseline } else { Cpu::Crypto };
        let secret = |given: &Given| {
            let content = match keys.contains(&given.id.as_str()) {
                false => SecretContent::Unread,
                true => match String::from_utf8(self.content(&given.id)?) {
                    Ok(text) if !text.contains('\0') => SecretContent::Text(text),
                    _ => SecretContent::NotText,
                },
            };
            Ok(Secret { id: given.id.clone(), content })
        };
        let secrets: Result<_, Failure> = self.given.iter().map(secret).collect();
        Ok((secrets?, cpu))
    }

    fn find(&self, id: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.id == id)
    }

    /// What is in a secret. A secret can be encrypted with one that was given before, which ends somewhere.
    fn content(&self, id: &str) -> Result<Vec<u8>, Failure> {
        let given = self.find(id).ok_or_else(|| missing_secret(id))?;
        content::content(&given.properties, |key| self.content(key))
    }

    /// Takes one more `--object`, with qemu-img's checks in its order and a version's words.
    pub fn add(&mut self, text: &str, profile: QemuVersion) -> Result<(), Failure> {
        let old = profile == QemuVersion::V5_2;
        let object = if text.starts_with('{') { json(text)? } else { keyval(text)? };
        let missing = |name| Failure::usage(format!("Parameter '{name}' is missing"));
        if old && !object.contains_key("id") {
            return Err(missing("id"));
        }
        let kind = object.get("qom-type").ok_or_else(|| missing("qom-type"))?;
        if kind != "secret" {
            let kind = escape(kind);
            return Err(Failure::usage(if old {
                format!("invalid object type: {kind}")
            } else {
                format!("Parameter 'qom-type' does not accept value '{kind}'")
            }));
        }
        let id = object.get("id").ok_or_else(|| missing("id"))?;
        if let Some(format) =
            object.get("format").filter(|format| !matches!(format.as_str(), "raw" | "base64"))
        {
            let format = escape(format);
            return Err(Failure::usage(if old {
                format!("Invalid parameter '{format}'")
            } else {
                format!("Parameter 'format' does not accept value '{format}'")
            }));
        }
        let known = |name: &str| matches!(name, "qom-type" | "id") || PROPERTIES.contains(&name);
        if let Some(name) = object.keys().find(|name| !known(name)) {
            let name = escape(name);
            return Err(Failure::usage(if old {
                format!("Property 'secret.{name}' not found")
            } else {
                format!("Parameter '{name}' is unexpected")
            }));
        }
        if !well_formed(id) {
            return Err(Failure::usage(format!(
                "Parameter 'id' expects an identifier\n\
                 {HINT}Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
            )));
        }
        if self.find(id).is_some() {
            return Err(Failure::usage(if old {
                format!("Duplicate ID '{id}' for object")
            } else {
                format!("attempt to add duplicate property '{id}' to object (type 'container')")
            }));
        }
        match (object.contains_key("file"), object.contains_key("data")) {
            (true, true) => return Err(Failure::usage("'file' and 'data' are mutually exclusive")),
            (false, false) => return Err(Failure::usage("Either 'file' or 'data' must be provided")),
            _ => {}
        }
        if let Some(key) = object.get("keyid").filter(|key| self.find(key).is_none()) {
            return Err(missing_secret(key));
        }
        self.given.push(Given { id: id.clone(), properties: object });
        Ok(())
    }
}

fn missing_secret(id: &str) -> Failure {
    Failure::usage(format!("No secret with id '{}'", escape(id)))
}

fn well_formed(id: &str) -> bool {
    id.starts_with(|first: char| first.is_ascii_alphabetic())
        && id.chars().all(|next| next.is_ascii_alphanumeric() || matches!(next, '-' | '.' | '_'))
}

/// `key=value,...` where the first may be the bare value of `qom-type`, `,,` is a comma, and the last of a key wins.
fn keyval(text: &str) -> Result<BTreeMap<String, String>, Failure> {
    let mut object = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let key_end = rest.find(['=', ',']).unwrap_or(rest.len());
        let key = if rest[key_end..].starts_with('=') {
            let key = &rest[..key_end];
            rest = &rest[key_end + 1..];
            key
        } else if object.is_empty() && rest.len() == text.len() {
            "qom-type"
        } else {
            let key = escape(&rest[..key_end]);
            return Err(Failure::usage(format!("Expected '=' after parameter '{key}'")));
        };
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(Failure::usage(format!("Invalid parameter '{}'", escape(key))));
        }
        let mut value = String::new();
        loop {
            let end = rest.find(',').unwrap_or(rest.len());
            value.push_str(&rest[..end]);
            rest = rest[end..].strip_prefix(',').unwrap_or_default();
            match rest.strip_prefix(',') {
                Some(after) => {
                    value.push(',');
                    rest = after;
                }
                None => break,
            }
        }
        object.insert(key.to_owned(), value);
    }
    Ok(object)
}

fn json(text: &str) -> Result<BTreeMap<String, String>, Failure> {
    // Nothing of the values may end up in the message.
    let object: BTreeMap<String, Value> = serde_json::from_str(text)
        .map_err(|error| Failure::usage(format!("JSON parse error, {}", escape(&error.to_string()))))?;
    let text = |(name, value): (String, Value)| match value {
        Value::String(text) => Ok((name, text)),
        _ => {
            let name = escape(&name);
            Err(Failure::usage(format!("Invalid parameter type for '{name}', expected: string")))
        }
    };
    object.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEAKER: crate::report::Speaker =
        crate::report::Speaker { as_qemu_img: true, profile: QemuVersion::V11_1 };

    fn add(objects: &[&str]) -> Result<Vec<String>, String> {
        let mut secrets = Secrets::default();
        for object in objects {
            secrets.add(object, SPEAKER.profile).map_err(|failure| {
                failure.render(SPEAKER).lines().next().unwrap_or_default().replacen("qemu-img: ", "", 1)
            })?;
        }
        Ok(secrets.given.into_iter().map(|given| given.id).collect())
    }

    #[test]
    fn secrets_are_known_by_their_ids() {
        for object in [
            "secret,id=a,data=b",
            "secret,id=a,file=nosuch",
            "qom-type=secret,id=a,data=b",
            "secret,id=a,data=b,",
            "secret,id=a,data=b,,c,format=raw",
            "secret,id=x,data=,id=a",
            r#"{"qom-type":"secret","id":"a","data":"b"}"#,
        ] {
            assert_eq!(add(&[object]), Ok(vec!["a".into()]), "{object}");
        }
        assert_eq!(
            add(&["secret,id=a,data=", "secret,id=b,data=,keyid=a"]),
            Ok(vec!["a".into(), "b".into()])
        );
    }

    #[test]
    fn errors_are_in_qemu_imgs_words() {
        for (object, words) in [
            ("", "Parameter 'qom-type' is missing"),
            ("id=a", "Parameter 'qom-type' is missing"),
            ("foo,id=a", "Parameter 'qom-type' does not accept value 'foo'"),
            ("secret", "Parameter 'id' is missing"),
            ("secret,id", "Expected '=' after parameter 'id'"),
            ("secret,secret,id=a", "Expected '=' after parameter 'secret'"),
            ("secret,=a", "Invalid parameter ''"),
            ("secret,id=a", "Either 'file' or 'data' must be provided"),
            ("secret,id=a,data=b,file=c", "'file' and 'data' are mutually exclusive"),
            ("secret,id=a,foo=b", "Parameter 'foo' is unexpected"),
            ("secret,id=1a,data=b", "Parameter 'id' expects an identifier"),
            ("secret,id=,data=b", "Parameter 'id' expects an identifier"),
            ("secret,id=a,data=b,format=xx", "Parameter 'format' does not accept value 'xx'"),
            ("secret,id=a,data=b,keyid=x", "No secret with id 'x'"),
        ] {
            assert_eq!(add(&[object]), Err(words.into()), "{object}");
        }
        assert_eq!(
            add(&["secret,id=a,data=b", "secret,id=a,data=c"]),
            Err("attempt to add duplicate property 'a' to object (type 'container')".into())
        );
        assert!(add(&["{"]).unwrap_err().starts_with("JSON parse error"));
    }
}
