//! Valid keys, taken from the serialized defaults, and what differs from them.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

/// Below this similarity (Jaro-Winkler, 0 to 1) a suggestion would only confuse.
const SIMILAR_ENOUGH: f64 = 0.75;

/// Calls `found` with each dotted key of `values` that `valid` lacks, and the nearest key it has; for a
/// section, the nearest section.
pub(super) fn unknown_keys(values: &Dict, valid: &Dict, found: &mut dyn FnMut(&str, Option<&str>)) {
    let (keys, sections) = (leaves(valid), sections(valid));
    walk(values, valid, "", &mut |key, value| {
        let all = if matches!(value, Value::Dict(..)) { &sections } else { &keys };
        found(key, nearest(key, all));
    });
}

fn walk(values: &Dict, valid: &Dict, prefix: &str, found: &mut dyn FnMut(&str, &Value)) {
    for (name, value) in values {
        let key = format!("{prefix}{name}");
        match (valid.get(name), value) {
            (None, _) => found(&key, value),
            (Some(Value::Dict(_, inner)), Value::Dict(_, values)) => {
                walk(values, inner, &format!("{key}."), found);
            }
            (Some(_), _) => {}
        }
    }
}

/// `values` without the keys that `valid` lacks: those are reported, and must not hide other
/// faults.
pub(super) fn known(values: Dict, valid: &Dict) -> Dict {
    let keep = |(name, value): (String, Value)| {
        let value = match (valid.get(&name)?, value) {
            (Value::Dict(_, inner), Value::Dict(tag, values)) => {
                Value::Dict(tag, known(values, inner))
            }
            (_, value) => value,
        };
        Some((name, value))
    };
    values.into_iter().filter_map(keep).collect()
}

/// `values` without `None`s: a flag that was not given says nothing.
pub(super) fn without_unset(values: Dict) -> Dict {
    let keep = |(name, value): (String, Value)| match value {
        Value::Empty(..) => None,
        Value::Dict(tag, inner) => Some((name, Value::Dict(tag, without_unset(inner)))),
        value => Some((name, value)),
    };
    values.into_iter().filter_map(keep).collect()
}

/// The TOML `text` of `values` with a comment for each key that is unset.
pub(super) fn with_unset(text: &str, values: &Dict) -> String {
    let mut sections = BTreeMap::new();
    unset(values, "", &mut sections);
    let mut out = Vec::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            let blank = out.pop_if(|line: &mut String| line.is_empty());
            out.append(&mut sections.remove(&section).unwrap_or_default());
            out.extend(blank);
            section = name.trim_end_matches(']').to_owned();
        }
        out.push(line.to_owned());
    }
    out.append(&mut sections.remove(&section).unwrap_or_default());
    out.join("\n") + "\n"
}

fn unset(values: &Dict, section: &str, found: &mut BTreeMap<String, Vec<String>>) {
    for (name, value) in values {
        match value {
            Value::Empty(..) => {
                found.entry(section.to_owned()).or_default().push(format!("# {name} = …"));
            }
            Value::Dict(_, inner) if section.is_empty() => unset(inner, name, found),
            Value::Dict(_, inner) => unset(inner, &format!("{section}.{name}"), found),
            _ => {}
        }
    }
}

/// Every dotted key that holds a value.
pub(super) fn leaves(valid: &Dict) -> Vec<String> {
    let mut keys = Vec::new();
    for (name, value) in valid {
        match value {
            Value::Dict(_, inner) => {
                keys.extend(leaves(inner).into_iter().map(|key| format!("{name}.{key}")));
            }
            _ => keys.push(name.clone()),
        }
    }
    keys
}

/// Every dotted name of a section.
fn sections(valid: &Dict) -> Vec<String> {
    let mut names = Vec::new();
    for (name, value) in valid {
        if let Value::Dict(_, inner) = value {
            names.push(name.clone());
            names.extend(sections(inner).into_iter().map(|inner| format!("{name}.{inner}")));
        }
    }
    names
}

/// The valid key most like `key`: as a whole, or by its last part, for a key in a wrong section.
pub(super) fn nearest<'a>(key: &str, all: &'a [String]) -> Option<&'a str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let score = |candidate: &str| {
        strsim::jaro_winkler(key, candidate).max(strsim::jaro_winkler(&last(key), &last(candidate)))
    };
    all.iter()
        .map(|candidate| (score(candidate), candidate.as_str()))
        .filter(|(score, _)| *score >= SIMILAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
