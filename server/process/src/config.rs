//! Configuration: defaults, then a TOML file, then `SWITCHBOARD_*` variables, then flags.
//!
//! A key that the configuration does not have is an error that names the key, where it came from
//! and the nearest valid key; so is a value out of bounds. All faults of a load are reported at
//! once. Durations and sizes are plain integers with their unit in the key (`lease_ms`,
//! `body_bytes_max`).
//!
//! ```text
//! T::default() ◀─ file ◀─ environment ◀─ flags      the last one that names a key wins
//!       └── its serialized form is the list of valid keys
//! ```
//! In the environment a section is set off by two underscores: `SWITCHBOARD_LIMITS__TTL_MS` is
//! `ttl_ms` in `[limits]`.

mod environment;
mod faults;
mod schema;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::Serialized,
    value::{Dict, Map, Value},
};
use serde::{Serialize, de::DeserializeOwned};

pub use faults::{Fault, Faults};

/// A process's configuration: its default is valid but for what has no sensible default.
pub trait Config: Serialize + DeserializeOwned + Default {
    /// Adds every value that is out of bounds or contradicts another to `faults`.
    fn validate(&self, faults: &mut Faults);
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        source: Box<toml::de::Error>,
    },
    /// The flags cannot be represented; a fault of the caller.
    #[error("the flags are no configuration: {0}")]
    Flags(#[source] Box<figment::Error>),
    /// Keys that do not exist, values of the wrong type or out of bounds.
    #[error("the configuration is not valid:\n{0}")]
    Invalid(Faults),
}

/// Where a load takes its values from.
#[derive(Debug, Default)]
pub struct Layers {
    file: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    flags: Option<Dict>,
}

impl Layers {
    /// Defaults only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a TOML file; it must exist.
    #[must_use]
    pub fn file(mut self, path: Option<&Path>) -> Self {
        self.file = path.map(Path::to_owned);
        self
    }

    /// Adds the `SWITCHBOARD_*` variables of this process.
    #[must_use]
    pub fn process_environment(self) -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        self.environment(variables)
    }

    /// Adds the `SWITCHBOARD_*` variables among these.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Adds flags: a value that serializes to a map; what is `None` in it is not set.
    ///
    /// # Errors
    /// [`ConfigError::Flags`] when it serializes to something else.
    pub fn flags(mut self, flags: &impl Serialize) -> Result<Self, ConfigError> {
        let value = Value::serialize(flags).map_err(|e| ConfigError::Flags(Box::new(e)))?;
        self.flags = value.into_dict().map(schema::without_unset);
        Ok(self)
    }

    /// Loads the configuration and validates it.
    ///
    /// # Errors
    /// See [`ConfigError`]; [`ConfigError::Invalid`] lists every fault found.
    pub fn load<T: Config>(&self) -> Result<T, ConfigError> {
        let defaults = T::default();
        let valid = Value::serialize(&defaults)
            .map_err(|e| ConfigError::Flags(Box::new(e)))?
            .into_dict()
            .unwrap_or_default();
        let mut faults = Faults::default();
        let mut figment = Figment::from(Serialized::defaults(&defaults));
        if let Some(path) = &self.file {
            let values = read_file(path)?;
            let source = format!("in {}", path.display());
            schema::unknown_keys(&values, &valid, &mut |key, nearest| {
                faults.unknown(&format!("key `{key}` {source}"), nearest);
            });
            figment = figment.merge(Layer { source, values: schema::known(values, &valid) });
        }
        let values = environment::values(&self.environment, &valid, &mut faults);
        figment = figment.merge(Layer { source: "in the environment".to_owned(), values });
        if let Some(values) = self.flags.clone() {
            schema::unknown_keys(&values, &valid, &mut |key, nearest| {
                faults.unknown(&format!("flag for `{key}`"), nearest);
            });
            let values = schema::known(values, &valid);
            figment = figment.merge(Layer { source: "on the command line".to_owned(), values });
        }
        extract(&figment, faults)
    }
}

/// Loads a configuration from a file, this process's environment and flags.
///
/// # Errors
/// See [`ConfigError`].
pub fn load<T: Config>(file: Option<&Path>, flags: &impl Serialize) -> Result<T, ConfigError> {
    Layers::new().file(file).process_environment().flags(flags)?.load()
}

/// The configuration as TOML: what `--print-config` shows. TOML has no word for what is unset: such keys
/// end their section as comments.
///
/// # Errors
/// When a value has no TOML form, as an integer above the signed 64-bit range.
pub fn render(config: &impl Serialize) -> Result<String, toml::ser::Error> {
    let text = toml::to_string_pretty(config)?;
    let keys = Value::serialize(config).ok().and_then(Value::into_dict).unwrap_or_default();
    Ok(schema::with_unset(&text, &keys))
}

fn read_file(path: &Path) -> Result<Dict, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) })
}

fn extract<T: Config>(figment: &Figment, mut faults: Faults) -> Result<T, ConfigError> {
    match figment.extract::<T>() {
        Ok(config) => {
            config.validate(&mut faults);
            if faults.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(faults)) }
        }
        Err(errors) => {
            for error in errors {
                let source = error.metadata.as_ref().map_or("", |metadata| metadata.name.as_ref());
                faults.add(&error.path.join("."), &format!("{source}: {}", error.kind));
            }
            Err(ConfigError::Invalid(faults))
        }
    }
}

/// One layer's values, with the words that say where they came from.
struct Layer {
    source: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}
