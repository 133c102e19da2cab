//! Checks what ARCHITECTURE.md says of the code: which rooms of the core import which, where unsafe code stands, and the
//! dependencies.

use std::fs;
use std::path::{Path, PathBuf};

/// A file or folder of `src`, and the rooms that it may import.
const ROOMS: [(&str, &[&str]); 24] = [
    ("checkpoint", &["compact", "config", "error", "layout", "rng", "target"]),
    ("compact", &["simd", "target"]),
    ("config.rs", &["error"]),
    ("data.rs", &["error", "rng", "simd"]),
    ("error.rs", &[]),
    ("fault.rs", &["error"]),
    (
        "generate.rs",
        &[
            "fault", "config", "error", "layout", "matmul", "model", "ops", "parallel", "rng", "sampling",
            "simd",
        ],
    ),
    ("initialization.rs", &["error", "layout", "rng", "simd"]),
    ("layout", &["fault", "compact", "config", "error", "matmul", "ops", "target"]),
    ("llama2c", &["compact", "config", "error", "layout"]),
    ("matmul", &["fault", "error", "parallel", "simd", "target"]),
    (
        "model",
        &[
            "fault",
            "compact",
            "config",
            "error",
            "layout",
            "matmul",
            "ops",
            "optimizer",
            "parallel",
            "rng",
            "simd",
            "target",
        ],
    ),
    ("ops", &["compact", "config", "error", "matmul", "rng", "simd", "target"]),
    ("optimizer.rs", &["fault", "compact", "error", "layout", "parallel", "simd"]),
    ("parallel", &["fault", "simd"]),
    ("parallel.rs", &["fault", "simd"]),
    ("rng.rs", &["simd"]),
    ("sampling", &["ops", "rng", "simd"]),
    ("sampling.rs", &["compact", "config", "error", "ops", "rng", "simd"]),
    ("schedule.rs", &["compact", "error"]),
    ("simd", &["fault", "error", "target"]),
    ("target.rs", &[]),
    ("tokenizer.rs", &["error"]),
    (
        "trainer.rs",
        &["fault", "data", "error", "layout", "model", "ops", "optimizer", "parallel", "schedule"],
    ),
];

/// The rooms that a file imports, in code that is not a comment.
fn imports(path: &Path, found: &mut Vec<String>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| imports(&entry.unwrap().path(), found));
        return;
    }
    let text = fs::read_to_string(path).unwrap();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<String>();
    for import in code.split("crate::").skip(1) {
        let end = import.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(import.len());
        found.push(import[..end].to_string());
    }
}

#[test]
fn rooms_import_only_what_they_may_know() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(&src).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let own = name.trim_end_matches(".rs");
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == name) else {
            // The front page re-exports, and `trainer` is the top.
            assert!(["lib.rs", "trainer"].contains(&&*name), "{name} is not in the list of rooms");
            continue;
        };
        let mut found = Vec::new();
        imports(&src.join(&name), &mut found);
        for import in found {
            // Types of the front page have capitals; tests have helpers of their own.
            let is_type = import.starts_with(char::is_uppercase);
            let is_fine = is_type || import == own || import == "test_common" || allowed.contains(&&*import);
            assert!(is_fine, "{name} may not import {import:?}");
        }
    }
}

/// Where unsafe code may stand, as ARCHITECTURE.md lists it: what instructions read and write, what threads share, and the
/// borders to C and Python.
const UNSAFE: [&[&str]; 3] = [
    &["core/src/simd/", "core/src/matmul/"],
    &["core/src/parallel", "core/src/fault.rs", "core/pool/src/"],
    &["ffi/src/", "python/src/"],
];

/// The Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn unsafe_code_stands_in_three_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let document = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    UNSAFE.iter().flat_map(|place| *place).for_each(|place| assert!(document.contains(place), "{place}"));
    let mut files = Vec::new();
    for folder in ["core/src", "core/pool/src", "ffi/src", "ffi/plan/src", "python/src"] {
        sources(&root.join(folder), &mut files);
    }
    for path in files {
        let file = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let is_unsafe = |line: &str| {
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|form| line.contains(form))
        };
        let is_allowed = UNSAFE.iter().any(|place| place.iter().any(|begin| file.starts_with(begin)));
        assert!(is_allowed || !code.into_iter().any(is_unsafe), "{file} has unsafe code");
    }
}

/// ARCHITECTURE.md gives a reason for each.
#[test]
fn the_core_has_at_most_four_dependencies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap();
    let names = section.lines().skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = names.map(|line| line.split(' ').next().unwrap()).collect();
    assert!(names.len() <= 4, "{names:?}");
    let document = fs::read_to_string(root.join("../ARCHITECTURE.md")).unwrap();
    let section = document.split("## Dependencies").nth(1).unwrap();
    for name in names {
        assert!(
            section.contains(&format!("| `{name}` |")),
            "ARCHITECTURE.md does not give the reason for {name}"
        );
    }
}
