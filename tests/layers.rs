//! The rules of the sources that the compiler does not know: layers import downwards, replay is pure, files stay small.

use std::path::{Path, PathBuf};

/// Each layer and the layers that it may import besides itself.
const LAYERS: [(&str, &[&str]); 10] = [
    ("fault", &[]),
    ("probes", &[]),
    ("model", &[]),
    ("config", &["model"]),
    ("wire", &["model"]),
    ("backend", &["model", "config", "wire", "probes", "fault"]),
    ("replay", &["model", "wire", "fault"]),
    ("engine", &["model", "wire", "backend", "replay", "fault"]),
    (
        "worker",
        &["model", "wire", "backend", "replay", "engine", "fault", "probes"],
    ),
    ("client", &["model", "wire", "backend", "replay", "engine", "fault"]),
];

/// What stands above all layers and may import them all.
const TOP: [&str; 7] = ["lib", "main", "bin", "cli", "gateway", "dashboard", "testing"];

/// What replay must not name, and its tests neither: runtimes and servers.
const OUTSIDE: [&str; 5] = ["tokio::", "use tokio", "lapin", "redis", "redb::"];

/// What replay itself must not name besides: clocks and randomness.
const IMPURE: [&str; 7] = [
    "SystemTime",
    "Instant",
    "rand::",
    "new_v4",
    "now_v7",
    "now_v1",
    "::generate()",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under a folder of the package, by their path within it.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                walk(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    let named = found.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).expect("a source file is text");
        let within = path.strip_prefix(root()).expect("it is in the package");
        (within.to_string_lossy().replace('\\', "/"), text)
    });
    named.collect()
}

/// The lines that are not comments, numbered from 1.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
}

/// The first names after each `crate::`, also in `crate::{a::B, c}`.
fn imports(text: &str) -> Vec<String> {
    let text: String = code(text).flat_map(|(_, line)| [line, "\n"]).collect();
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(first_name(rest));
            continue;
        };
        let (mut depth, mut begin) = (0_usize, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.push(first_name(group[begin..at].trim()));
                    begin = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// `src/replay/tests/kit.rs` is of the layer `replay`.
fn layer_of(path: &str) -> &str {
    let within = path.trim_start_matches("src/");
    within.split(['/', '.']).next().unwrap_or_default()
}

#[test]
fn layers_import_only_downwards() {
    let files = sources("src");
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for (path, text) in &files {
        let layer = layer_of(path);
        if TOP.contains(&layer) {
            continue;
        }
        let Some((_, below)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            wrong.push(format!(
                "{path}: `{layer}` is not a layer yet: give it its place in tests/layers.rs"
            ));
            continue;
        };
        for name in imports(text) {
            let is_known = LAYERS.iter().any(|(known, _)| *known == name) || TOP.contains(&name.as_str());
            if !is_known {
                wrong.push(format!(
                    "{path}: `crate::{name}` hides its layer: import it from its module"
                ));
            } else if name != layer && !below.contains(&name.as_str()) {
                wrong.push(format!(
                    "{path}: `{layer}` must not import `crate::{name}`; it may import {below:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_groups_and_paths() {
    let text = "use crate::{model::{A, B}, wire, engine::C};\n// crate::comment\nlet x = crate::worker::run();";
    assert_eq!(imports(text), ["model", "wire", "engine", "worker"]);
}

#[test]
fn replay_names_no_runtime_no_server_no_clock_and_no_randomness() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src/replay") {
        let own: &[&str] = if path.starts_with("src/replay/tests/") {
            &[]
        } else {
            &IMPURE
        };
        for (at, line) in code(&text) {
            for word in OUTSIDE.iter().chain(own).filter(|word| line.contains(*word)) {
                wrong.push(format!("{path}:{at} names `{word}`: {}", line.trim()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "replay must be a function of the history alone:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn no_file_is_too_long_to_hold_one_idea() {
    let mut wrong = Vec::new();
    for (folder, most) in [("src", 800), ("workers", 800), ("tests", 1200)] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            if lines > most {
                wrong.push(format!(
                    "{path} has {lines} lines, {most} is the most: which are its two ideas?"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
