//! Where a setting's value comes from: flag > environment > the file's profile > file > built-in profile > default. Unknown
//! names are errors, all of them are collected, and a value knows its origin so that a message can name it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file::{self, File};
use super::profile::{self, PROFILES};
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
    /// A profile in the configuration file.
    FileProfile(PathBuf, String),
    /// A built-in profile.
    Profile(&'static str),
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

/// A setting's value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// As text, which says it all unless there are pairs.
    pub text: String,
    /// Names and values, if it was given as such: a text could not hold every value.
    pub pairs: Option<BTreeMap<String, String>>,
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self { text, pairs: None }
    }
}

/// The values of all settings that have one.
#[derive(Debug)]
pub struct Layers {
    values: BTreeMap<&'static str, (Value, Origin)>,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
}

/// The environment, as far as settings are concerned: pairs of name and value.
pub type Environment = BTreeMap<String, String>;

impl Layers {
    /// Layers flags over the environment over the file, and these over the profile that they name. `flags` are by key.
    pub fn new(flags: &BTreeMap<&'static str, String>, environment: &Environment, file: Option<&Path>) -> Self {
        let mut layers = Self { values: BTreeMap::new(), problems: Vec::new() };
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            layers.put(setting.key, setting.default, Origin::Default);
        }
        let read = file.map(|path| (path, file::read(path, &mut layers.problems)));
        let found = read.as_ref().and_then(|(path, read)| Some((*path, read.as_ref()?)));
        let of_file = || Some(found?.1.keys.get("profile")?.text.clone());
        let profile = flags.get("profile").or(environment.get("LB_PROFILE")).cloned().or_else(of_file);
        let built_in = profile.as_deref().and_then(profile::find);
        for (key, value) in built_in.map_or(&[][..], |profile| profile.values) {
            layers.put(key, *value, Origin::Profile(built_in.map_or("", |profile| profile.name)));
        }
        let mut is_known = built_in.is_some() || profile.is_none();
        if let Some((path, file)) = found {
            for (key, value) in &file.keys {
                layers.values.insert(key, (value.clone(), Origin::File(path.to_owned())));
            }
            if let Some((name, values)) = profile.and_then(|profile| file.profiles.get_key_value(&profile)) {
                for (key, value) in values {
                    layers.values.insert(key, (value.clone(), Origin::FileProfile(path.to_owned(), name.clone())));
                }
                is_known = true;
            }
        }
        layers.read_environment(environment);
        for (key, value) in flags {
            layers.put(key, value, Origin::Flag);
        }
        // Who knows what a file has that can't be read?
        if !is_known && (file.is_none() || found.is_some()) {
            layers.refuse("profile", &format!("allowed: {}", profiles(found.map(|(_, file)| file))));
        }
        layers
    }

    fn put(&mut self, key: &'static str, text: impl Into<String>, origin: Origin) {
        self.values.insert(key, (Value::from(text.into()), origin));
    }

    fn read_environment(&mut self, environment: &Environment) {
        for (name, value) in environment {
            if name == "LB_CONFIG" {
                continue;
            }
            match SETTINGS.iter().find(|setting| setting.env == name) {
                Some(setting) => {
                    self.put(setting.key, value, Origin::Environment);
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
        if self.values.get(key).is_none_or(|(_, origin)| *origin == Origin::Default) {
            self.put(key, value, Origin::Default);
        }
    }

    /// A setting's value and origin, if it has one.
    pub fn get(&self, key: &str) -> Option<(&str, &Origin)> {
        self.values.get(key).map(|(value, origin)| (value.text.as_str(), origin))
    }

    /// Did somebody give it, other than by default or by choosing a built-in profile?
    pub fn is_given(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|(_, origin)| !matches!(origin, Origin::Default | Origin::Profile(_)))
    }

    /// The value as `parse` understands it. If it doesn't, its error says what is allowed, and that becomes a problem.
    pub fn parse<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.parse_value(key, |value| parse(&value.text))
    }

    /// The same, for a setting whose value may be more than a text.
    pub fn parse_value<T>(&mut self, key: &'static str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
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
        let shown = if setting.is_some_and(Setting::is_secret) { "(not shown)" } else { &value.text };
        self.problems.push(Problem(format!("{name} is '{shown}'; {why}")));
    }
}

/// The setting by the name that its origin uses.
fn name(setting: &Setting, origin: &Origin) -> String {
    match origin {
        Origin::Flag => format!("--{}", setting.flag()),
        Origin::Environment => setting.env.into(),
        Origin::File(path) => format!("{}: {}", path.display(), setting.key),
        Origin::FileProfile(path, profile) => format!("{}: profile.{profile}.{}", path.display(), setting.key),
        Origin::Profile(profile) => format!("{} of profile {profile}", setting.key),
        Origin::Default => setting.key.into(),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => path.display().fmt(f),
            Self::FileProfile(path, profile) => write!(f, "{} [profile.{profile}]", path.display()),
            Self::Profile(profile) => write!(f, "profile {profile}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The profiles that there are.
fn profiles(file: Option<&File>) -> String {
    let built_in = PROFILES.iter().map(|profile| profile.name);
    let own = file.into_iter().flat_map(|file| file.profiles.keys().map(String::as_str));
    let own = own.filter(|name| profile::find(name).is_none());
    let names: Vec<_> = built_in.chain(own).collect();
    format!("{}; a file has others as [profile.NAME]", names.join(", "))
}

/// "did you mean …", or all there are.
pub(super) fn suggestion(wrong: &str, name: impl Fn(&Setting) -> String) -> String {
    let names: Vec<String> = SETTINGS.iter().map(name).collect();
    let likeness = |name: &String| strsim::jaro_winkler(wrong, name);
    match names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(best) if likeness(best) > 0.85 => format!("did you mean '{best}'?"),
        _ => format!("allowed: {}", names.join(", ")),
    }
}
