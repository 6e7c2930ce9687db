//! An `-o` list as values: grammar, names and types, one option after the other as they are written.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};

use protocol::{
    ErrorRecord, QemuVersion,
    options::{HINT, parameters},
    size::{self, SizeError},
};

use super::{Driver, Kind, Quoted, usage};

/// The options given for one driver. Where one is given twice the last counts, but all are checked.
#[derive(Debug, Default)]
pub struct Values(Vec<Given>);

/// An option as it is written, and what that means.
#[derive(Debug)]
struct Given {
    name: &'static str,
    text: String,
    value: Value,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Bool(bool),
    /// A number, or a size in bytes.
    Number(u64),
    Text,
}

impl Values {
    /// Reads a list `name=value,flag,noflag`, in which `,,` stands for a comma inside a value.
    pub fn parse(driver: &Driver, list: &str, profile: QemuVersion) -> Result<Self, ErrorRecord> {
        let mut values = Vec::new();
        for (name, value) in parameters(list) {
            let (name, value) = option(name, value);
            // An id names a group of options inside QEMU; image options have no use for it.
            if name == "id" {
                continue;
            }
            values.push(read(driver, name, value, profile).map_err(|message| {
                usage(format_args!("{message}\nInvalid options for file format '{}'", driver.name))
            })?);
        }
        Ok(Self(values))
    }

    /// Sets an option, which then counts before what was given; `None` if the driver has no such option.
    pub fn set(&mut self, driver: &Driver, name: &str, text: &str, profile: QemuVersion) -> Option<()> {
        self.0.push(read(driver, name, text.to_owned(), profile).ok()?);
        Some(())
    }

    /// The text an option is set to.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.last(name).map(|given| given.text.as_str())
    }

    /// The number, or the size in bytes, that an option is set to.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.last(name)?.value {
            Value::Number(number) => Some(number),
            Value::Bool(_) | Value::Text => None,
        }
    }

    /// Whether a flag is on; off when it is not given.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.last(name), Some(Given { value: Value::Bool(true), .. }))
    }

    /// Whether an option is given, with any value.
    pub fn has(&self, name: &str) -> bool {
        self.last(name).is_some()
    }

    fn last(&self, name: &str) -> Option<&Given> {
        self.0.iter().rev().find(|given| given.name == name)
    }
}

/// The option that a parameter sets, and what to. A name alone is a flag, on or off.
fn option(name: &str, value: Option<String>) -> (&str, String) {
    match (value, name.strip_prefix("no")) {
        (Some(value), _) => (name, value),
        // So `nocow` is the flag `cow` turned off, which no format has.
        (None, Some(flag)) => (flag, "off".to_string()),
        (None, None) => (name, "on".to_string()),
    }
}

/// Checks one option; an error is the first line or lines of the message.
fn read(driver: &Driver, name: &str, text: String, profile: QemuVersion) -> Result<Given, String> {
    let spec = driver
        .option(name, profile)
        .ok_or_else(|| format!("Invalid parameter '{}'", Quoted(name.as_bytes())))?;
    let (name, shown) = (spec.name, Quoted(text.as_bytes()));
    let value = match spec.kind {
        Kind::Text => Value::Text,
        Kind::Bool => match text.as_str() {
            "on" | "yes" | "true" | "y" => Value::Bool(true),
            "off" | "no" | "false" | "n" => Value::Bool(false),
            _ => return Err(format!("Parameter '{name}' expects 'on' or 'off'")),
        },
        Kind::Number => Value::Number(size::parse_number(&text, profile).map_err(|error| match error {
            SizeError::Invalid => format!("Parameter '{name}' expects a number"),
            SizeError::Range => format!("Value '{shown}' is too large for parameter '{name}'"),
        })?),
        Kind::Size => Value::Number(size::parse_wide(&text, profile).map_err(|error| match error {
            SizeError::Invalid => format!(
                "Parameter '{name}' expects a non-negative number below 2^64\n\
                 {HINT}Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
                 {HINT}and exabytes, respectively."
            ),
            SizeError::Range => format!("Value '{shown}' is out of range for parameter '{name}'"),
        })?),
    };
    Ok(Given { name, text, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const PROFILE: QemuVersion = QemuVersion::V11_1;

    fn qcow2(list: &str) -> Result<Values, String> {
        let driver = Driver::find("qcow2", PROFILE).unwrap();
        Values::parse(driver, list, PROFILE).map_err(|error| error.message)
    }

    fn refused(list: &str, first_line: &str) {
        let message = format!("{first_line}\nInvalid options for file format 'qcow2'");
        assert_eq!(qcow2(list).unwrap_err(), message, "{list}");
    }

    #[test]
    fn the_last_of_a_name_counts() {
        let values = qcow2("cluster_size=4k,backing_file=a,,b=c,lazy_refcounts,cluster_size=512").unwrap();
        assert_eq!(values.number("cluster_size"), Some(512));
        assert_eq!(values.text("backing_file"), Some("a,b=c"));
        assert!(values.flag("lazy_refcounts") && !values.flag("extended_l2"));
        assert!(values.has("cluster_size") && !values.has("compat"));
    }

    #[test]
    fn flags_can_be_negated_and_ids_are_dropped() {
        assert!(!qcow2("extended_l2,noextended_l2,id=x,noid,id").unwrap().flag("extended_l2"));
        refused("nocow", "Invalid parameter 'cow'");
        refused("no", "Invalid parameter ''");
        refused("nohelp", "Invalid parameter 'help'");
    }

    #[test]
    fn names_and_values_are_refused_in_the_order_written() {
        for (list, first_line) in [
            ("foo,bar", "Invalid parameter 'foo'"),
            ("a,,b", "Invalid parameter 'a'"),
            ("=1", "Invalid parameter ''"),
            ("cluster_size=4k, compat=0.10", "Invalid parameter ' compat'"),
            ("lazy_refcounts=ON", "Parameter 'lazy_refcounts' expects 'on' or 'off'"),
            ("refcount_bits=8k", "Parameter 'refcount_bits' expects a number"),
            (
                "refcount_bits=18446744073709551616",
                "Value '18446744073709551616' is too large for parameter 'refcount_bits'",
            ),
            ("cluster_size=-1", "Value '-1' is out of range for parameter 'cluster_size'"),
        ] {
            refused(list, first_line);
        }
    }

    #[test]
    fn hints_are_marked() {
        let message = qcow2("cluster_size=foo").unwrap_err();
        let hints: Vec<bool> = message.lines().map(|line| line.starts_with(HINT)).collect();
        assert_eq!(hints, vec![false, true, true, false]);
    }
}
