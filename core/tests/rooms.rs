//! Checks the column "may not know" of ARCHITECTURE.md: each room of the core imports only the rooms listed here.

use std::fs;
use std::path::Path;

/// A file or folder of `src`, and the rooms that it may import.
const ROOMS: [(&str, &[&str]); 23] = [
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
    ("matmul", &["fault", "error", "parallel", "simd", "target"]),
    (
        "model",
        &[
            "fault",
            "compact",
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
