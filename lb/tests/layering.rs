//! Modules stand on floors, as `docs/architecture.md` draws them: each imports from lower floors only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floors, lowest first.
const FLOORS: &[&[&str]] = &[
    &["placement", "ewma", "http1", "metrics", "shutdown", "memory", "net"],
    &["replica"],
    &["policy", "watchdog", "pin"],
    &["pool"],
    &["proxy", "relay", "runtime", "probe"],
    &["supervisor", "registry"],
    &["pilot"],
    &["agent"],
    &["admin", "control"],
    &["config"],
    &["app"],
    &["main", "cli"],
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules of the crate that `text` names: `crate::pool::…`, `lb::{app::App, …}`.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for prefix in ["crate::", "lb::"] {
        for (at, _) in text.match_indices(prefix) {
            let is_path =
                text[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_');
            let rest = &text[at + prefix.len()..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if is_path && !name.is_empty() {
                found.push(name);
            }
            assert!(
                !rest.starts_with('{'),
                "grouped imports of whole modules hide what is imported: {prefix}{rest:.40}"
            );
        }
    }
    found
}

#[test]
fn modules_import_from_lower_floors_only() {
    let floors: BTreeMap<&str, usize> =
        FLOORS.iter().enumerate().flat_map(|(floor, modules)| modules.iter().map(move |name| (*name, floor))).collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    assert!(files.len() > 20, "only {} files below {}", files.len(), source.display());
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in files {
        let relative = file.strip_prefix(&source).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let floor = *floors.get(module).unwrap_or_else(|| panic!("{module} stands on no floor: add it to FLOORS"));
        for import in imports(&std::fs::read_to_string(&file).unwrap()) {
            let Some(imported) = floors.get(import.as_str()) else { continue };
            seen += 1;
            let inside = import == module || (floor == FLOORS.len() - 1 && *imported == floor);
            if !inside && *imported >= floor {
                wrong.push(format!("{} (floor {floor}) imports {import} (floor {imported})", relative.display()));
            }
        }
    }
    assert!(seen > 50, "only {seen} imports were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_one_module_knows_the_engine_and_one_the_environment() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let naming = |what: &str| -> Vec<String> {
        let named = files.iter().filter(|file| std::fs::read_to_string(file).unwrap().contains(what));
        named.map(|file| file.strip_prefix(&source).unwrap().display().to_string()).collect()
    };
    assert_eq!(naming("bollard"), ["runtime/docker.rs"]);
    assert_eq!(naming("env::var"), ["config/mod.rs"]);
}
