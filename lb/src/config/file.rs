//! The configuration file: settings, and tables of settings by profile.
//!
//! Every table is read, also those of profiles that are not in use, so that what is wrong in them is found.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Value as Toml;

use super::layers::{Problem, Value, suggestion};
use super::settings::{Setting, Shape, find};

/// The key that names a profile, and the table that holds them.
const PROFILE: &str = "profile";
/// A file that holds profiles names the one to use by this key among them.
const USE: &str = "use";

/// Settings and their values.
type Values = BTreeMap<&'static str, Value>;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Its own keys.
    pub(super) keys: Values,
    /// Those of its profiles.
    pub(super) profiles: BTreeMap<String, Values>,
}

/// Reads a file, as far as it can be read. None of one that can't be read at all.
pub(super) fn read(path: &Path, problems: &mut Vec<Problem>) -> Option<File> {
    let mut reader = Reader { path, problems };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return reader.problem(&format!("cannot be read: {error}")),
    };
    let mut table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return reader.problem(&format!("is not TOML: {}", error.to_string().trim_end())),
    };
    let mut file = File::default();
    // Either it names a profile, or it has some.
    if let Some(Toml::Table(profiles)) = table.get_mut(PROFILE).filter(|value| value.is_table()) {
        let mut profiles = std::mem::take(profiles);
        match profiles.remove(USE).filter(Toml::is_str) {
            Some(name) => table.insert(PROFILE.to_owned(), name),
            None => table.remove(PROFILE),
        };
        for (name, values) in profiles {
            match values {
                Toml::Table(values) => {
                    let values = reader.values(&values, Some(&name));
                    file.profiles.insert(name, values);
                }
                other => {
                    let allowed = format!("a table of settings ([profile.{name}]), or {USE} = \"NAME\"");
                    let _: Option<()> = reader.problem(&format!("'profile.{name}' is {other}; allowed: {allowed}"));
                }
            }
        }
    }
    file.keys = reader.values(&table, None);
    Some(file)
}

struct Reader<'a> {
    path: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn problem<T>(&mut self, text: &str) -> Option<T> {
        self.problems.push(Problem(format!("{}: {text}", self.path.display())));
        None
    }

    /// The settings of a table: the file's own, or that of a profile.
    fn values(&mut self, table: &toml::Table, profile: Option<&str>) -> Values {
        table.iter().filter_map(|(key, value)| self.setting(key, value, profile)).collect()
    }

    fn setting(&mut self, key: &str, value: &Toml, profile: Option<&str>) -> Option<(&'static str, Value)> {
        let name = profile.map_or_else(|| key.to_owned(), |profile| format!("profile.{profile}.{key}"));
        let setting = match find(key) {
            Some(setting) if profile.is_none() || key != PROFILE => setting,
            Some(_) => {
                let allowed = "a profile can't name another; allowed: any other setting";
                return self.problem(&format!("'{name}' is {value}; {allowed}"));
            }
            None => {
                let meant = suggestion(key, |setting| setting.key.into());
                return self.problem(&format!("unknown key '{name}' = {value}; {meant}"));
            }
        };
        match self::value(setting, value) {
            Ok(value) => Some((setting.key, value)),
            Err(allowed) => {
                let shown = if setting.is_secret() { "(not shown)".to_owned() } else { value.to_string() };
                self.problem(&format!("'{name}' is {shown}; allowed: {allowed}"))
            }
        }
    }
}

/// A setting's value from the file's. The error says what is allowed.
fn value(setting: &Setting, value: &Toml) -> Result<Value, &'static str> {
    match (setting.shape(), value) {
        (Shape::Pairs, Toml::Table(table)) => {
            let pair = |(name, value): (&String, &Toml)| Some((name.clone(), scalar(value)?));
            let pairs: Option<BTreeMap<_, _>> = table.iter().map(pair).collect();
            let pairs = pairs.ok_or("a table of texts and numbers, such as { A = \"1\", B = \"x,y\" }")?;
            Ok(Value { text: value.to_string(), pairs: Some(pairs) })
        }
        (Shape::Pairs, Toml::Array(items)) => {
            let pair = |item: &Toml| item.as_str()?.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
            let pairs: Option<BTreeMap<_, _>> = items.iter().map(pair).collect();
            let pairs = pairs.ok_or("an array of texts, such as [\"A=1\", \"B=x,y\"]")?;
            Ok(Value { text: value.to_string(), pairs: Some(pairs) })
        }
        (Shape::Words, Toml::Array(items)) => {
            let words: Option<Vec<_>> = items.iter().map(scalar).collect();
            let words = words.ok_or("an array of texts and numbers, such as [\"my-server\", \"--port\", 5000]")?;
            // As a shell would take it, so that each word stays one.
            let text = shlex::try_join(words.iter().map(String::as_str)).map_err(|_| "words without a NUL")?;
            Ok(text.into())
        }
        (Shape::Text, Toml::Array(items)) => {
            let items: Option<Vec<_>> = items.iter().map(scalar).collect();
            Ok(items.ok_or("a text, a number, or an array of these")?.join(",").into())
        }
        (shape, value) => scalar(value).map(Value::from).ok_or(match shape {
            Shape::Pairs => "a text, or a table of texts and numbers, such as { A = \"1\", B = \"x,y\" }",
            Shape::Words => "a text, or an array of words, such as [\"my-server\", \"--port\", 5000]",
            Shape::Text => "a text or a number",
        }),
    }
}

fn scalar(value: &Toml) -> Option<String> {
    match value {
        Toml::String(text) => Some(text.clone()),
        Toml::Integer(_) | Toml::Float(_) | Toml::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}
