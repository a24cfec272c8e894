//! Where a setting's value comes from: flag > environment > file > default. Unknown names are errors, all of them are
//! collected, and a value knows its origin so that a message can name it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::settings::{SETTINGS, Setting, find};

/// Where a value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment,
    /// The configuration file.
    File(PathBuf),
    /// Nowhere: the default.
    Default,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(pub String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The values of all settings that have one, as text.
#[derive(Debug)]
pub struct Layers {
    values: BTreeMap<&'static str, (String, Origin)>,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
}

/// The environment, as far as settings are concerned: pairs of name and value.
pub type Environment = BTreeMap<String, String>;

impl Layers {
    /// Layers flags over the environment over the file. `flags` are by key.
    pub fn new(flags: &BTreeMap<&'static str, String>, environment: &Environment, file: Option<&Path>) -> Self {
        let mut layers = Self { values: BTreeMap::new(), problems: Vec::new() };
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            layers.values.insert(setting.key, (setting.default.into(), Origin::Default));
        }
        if let Some(path) = file {
            layers.read_file(path);
        }
        layers.read_environment(environment);
        for (key, value) in flags {
            layers.values.insert(key, (value.clone(), Origin::Flag));
        }
        layers
    }

    fn read_file(&mut self, path: &Path) {
        let mut problem = |text: String| self.problems.push(Problem(format!("{}: {text}", path.display())));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return problem(format!("cannot be read: {error}")),
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => return problem(format!("is not TOML: {}", error.to_string().trim_end())),
        };
        for (key, value) in table {
            let Some(setting) = find(&key) else {
                problem(format!("unknown key '{key}' = {value}; {}", suggestion(&key, |setting| setting.key.into())));
                continue;
            };
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => value.to_string(),
                toml::Value::Array(items) if items.iter().all(toml::Value::is_str) => {
                    items.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(",")
                }
                other => {
                    problem(format!("'{key}' is {other}; allowed: a text or a number"));
                    continue;
                }
            };
            self.values.insert(setting.key, (value, Origin::File(path.to_owned())));
        }
    }

    fn read_environment(&mut self, environment: &Environment) {
        for (name, value) in environment {
            if name == "LB_CONFIG" {
                continue;
            }
            match SETTINGS.iter().find(|setting| setting.env == name) {
                Some(setting) => {
                    self.values.insert(setting.key, (value.clone(), Origin::Environment));
                }
                None if name.starts_with("LB_") => self.problems.push(Problem(format!(
                    "unknown environment variable {name}={value}; {}",
                    suggestion(name, |setting| setting.env.into())
                ))),
                None => {}
            }
        }
    }

    /// Another default, for a command that has its own.
    pub fn set_default(&mut self, key: &'static str, value: &str) {
        if !self.is_given(key) {
            self.values.insert(key, (value.to_owned(), Origin::Default));
        }
    }

    /// A setting's value and origin, if it has one.
    pub fn get(&self, key: &str) -> Option<(&str, &Origin)> {
        self.values.get(key).map(|(value, origin)| (value.as_str(), origin))
    }

    /// Did somebody give it, other than by default?
    pub fn is_given(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|(_, origin)| *origin != Origin::Default)
    }

    /// The value as `parse` understands it. If it doesn't, its error says what is allowed, and that becomes a problem.
    pub fn parse<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (value, _) = self.values.get(key)?;
        match parse(value) {
            Ok(value) => Some(value),
            Err(allowed) => {
                self.refuse(key, &format!("allowed: {allowed}"));
                None
            }
        }
    }

    /// Says that a setting's value can't be used.
    pub fn refuse(&mut self, key: &str, why: &str) {
        let Some((value, origin)) = self.values.get(key) else { return };
        let setting = find(key);
        let name = setting.map_or_else(|| key.to_owned(), |setting| name(setting, origin));
        let shown = if setting.is_some_and(Setting::is_secret) { "(not shown)" } else { value };
        self.problems.push(Problem(format!("{name} is '{shown}'; {why}")));
    }
}

/// The setting by the name that its origin uses.
fn name(setting: &Setting, origin: &Origin) -> String {
    match origin {
        Origin::Flag => format!("--{}", setting.flag()),
        Origin::Environment => setting.env.into(),
        Origin::File(path) => format!("{}: {}", path.display(), setting.key),
        Origin::Default => setting.key.into(),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => path.display().fmt(f),
            Self::Default => f.write_str("default"),
        }
    }
}

/// "did you mean …", or all there are.
fn suggestion(wrong: &str, name: impl Fn(&Setting) -> String) -> String {
    let names: Vec<String> = SETTINGS.iter().map(name).collect();
    let likeness = |name: &String| strsim::jaro_winkler(wrong, name);
    match names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(best) if likeness(best) > 0.85 => format!("did you mean '{best}'?"),
        _ => format!("allowed: {}", names.join(", ")),
    }
}
