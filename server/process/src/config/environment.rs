//! The layer of `SWITCHBOARD_*` variables.

use std::collections::BTreeMap;

use figment::value::{Dict, Tag, Value};

use super::{faults::Faults, schema};

const PREFIX: &str = "SWITCHBOARD_";

/// Between a section and its key; one underscore is part of a name.
const SECTION: &str = "__";

/// Variables that commands of the binary read themselves; a server that has no such key passes
/// them over, so that an operator's shell can hold them.
const FOREIGN: &[&str] = &["STORE", "GATEWAY", "CA", "TOKEN", "CONFIG", "OUTPUT", "LOG"];

/// The values of the variables; those that name no valid key go to `faults`.
pub(super) fn values(
    variables: &BTreeMap<String, String>,
    valid: &Dict,
    faults: &mut Faults,
) -> Dict {
    let mut values = Dict::new();
    for (name, text) in variables {
        let Some(bare) = name.strip_prefix(PREFIX) else { continue };
        let path: Vec<String> = bare.split(SECTION).map(str::to_lowercase).collect();
        match find(valid, &path) {
            Some(Value::Dict(..)) | None if FOREIGN.contains(&bare) => {}
            Some(Value::Dict(..)) => {
                faults
                    .unknown(&format!("environment variable {name} (a section, not a key)"), None);
            }
            None => {
                let all = schema::leaves(valid);
                let nearest = schema::nearest(&path.join("."), &all).map(variable);
                faults.unknown(&format!("environment variable {name}"), nearest.as_deref());
            }
            Some(kind) => insert(&mut values, &path, parse(text, kind)),
        }
    }
    values
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', SECTION).to_uppercase())
}

fn find<'a>(valid: &'a Dict, path: &[String]) -> Option<&'a Value> {
    let (last, sections) = path.split_last()?;
    let mut dict = valid;
    for section in sections {
        dict = match dict.get(section)? {
            Value::Dict(_, inner) => inner,
            _ => return None,
        };
    }
    dict.get(last)
}

/// Reads `text` as the kind of value that the default is: a string stays one even if it looks like
/// a number, and a list may be written with commas alone.
fn parse(text: &str, kind: &Value) -> Value {
    let string = |text: &str| Value::String(Tag::Default, text.to_owned());
    match kind {
        Value::String(..) => string(text),
        Value::Array(..) if !text.trim_start().starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(Tag::Default, items.map(string).collect())
        }
        // Without its own error: what is no number, list or boolean is a string.
        _ => text.parse().unwrap_or_else(|_| string(text)),
    }
}

fn insert(values: &mut Dict, path: &[String], value: Value) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        values.insert(name.clone(), value);
        return;
    }
    let inner =
        values.entry(name.clone()).or_insert_with(|| Value::Dict(Tag::Default, Dict::new()));
    if let Value::Dict(_, inner) = inner {
        insert(inner, rest, value);
    }
}
