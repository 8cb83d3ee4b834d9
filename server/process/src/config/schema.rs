//! Valid keys, taken from the serialized defaults, and what differs from them.

use figment::value::{Dict, Value};

/// Below this similarity (Jaro-Winkler, 0 to 1) a suggestion would only confuse.
const SIMILAR_ENOUGH: f64 = 0.75;

/// Calls `found` with each dotted key of `values` that `valid` lacks, and the nearest key it has.
pub(super) fn unknown_keys(values: &Dict, valid: &Dict, found: &mut dyn FnMut(&str, Option<&str>)) {
    let all = leaves(valid);
    walk(values, valid, "", &mut |key| found(key, nearest(key, &all)));
}

fn walk(values: &Dict, valid: &Dict, prefix: &str, found: &mut dyn FnMut(&str)) {
    for (name, value) in values {
        let key = format!("{prefix}{name}");
        match (valid.get(name), value) {
            (None, _) => found(&key),
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
