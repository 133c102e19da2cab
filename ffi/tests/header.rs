//! The committed header is what cbindgen makes of this crate, and its configuration has the core's fields.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Set by `make header`, to write the header instead of comparing it.
const WRITE: &str = "JOSTLE_WRITE_HEADER";

/// All files below a folder.
fn source(folder: &Path) -> String {
    let read = |path: PathBuf| if path.is_dir() { source(&path) } else { fs::read_to_string(path).unwrap() };
    fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap().path())).collect()
}

/// The function that begins each section of the header, and the section's title.
const SECTIONS: [(&str, &str); 6] = [
    ("jostle_version", "START HERE: errors, the model's configuration, its plan, its memory"),
    ("jostle_trainer_init", "TRAIN: steps, evaluation"),
    ("jostle_generator_init", "USE: text, logits, losses and gradients"),
    ("jostle_checkpoint_size", "KEEP: checkpoints in memory and in flash"),
    ("jostle_compute_init", "DEVICES: instruction sets and threads"),
    ("jostle_attention_forward", "OPERATIONS: for programs with a model of their own"),
];

/// The header with the sections' titles.
fn in_sections(header: &str) -> String {
    let mut parts: Vec<_> = header.split("\n\n").map(str::to_owned).collect();
    for (function, title) in SECTIONS {
        let begins = |line: &str| !line.starts_with("//") && line.contains(&format!("{function}("));
        let found = parts.iter_mut().find(|part| part.lines().any(begins)).expect(function);
        *found = format!("/* {title} */\n\n{found}");
    }
    parts.join("\n\n")
}

/// The header whose enums have no tags in C, where nothing uses them: their values cross the border as integers. A tag with
/// the name of another type is a warning of -Wc++-compat.
fn without_tags(header: &str) -> String {
    let mut header = header.to_owned();
    while let Some((before, rest)) = header.split_once("\nenum jostle_") {
        let (name, rest) = rest.split_once("\n").unwrap();
        let (condition, rest) = rest.split_once("\n  : ").unwrap();
        header = format!("{before}\nenum\n{condition}\n  jostle_{name} : {rest}");
    }
    header
}

/// The header with JOSTLE_FLOATS behind each function that takes or returns a float by value. It is defined at the
/// header's begin, by cbindgen.toml.
fn with_float_calls(header: &str) -> String {
    let by_value = |part: &str| part.trim().strip_prefix("float ").is_some_and(|name| !name.starts_with('*'));
    let floats = |line: &str| !line.starts_with("//") && line.split(['(', ',']).any(by_value);
    let items = header.split("\n\n").map(|item| match item.strip_suffix(");") {
        Some(start) if item.lines().any(floats) => format!("{start}) JOSTLE_FLOATS;"),
        _ => item.to_owned(),
    });
    items.collect::<Vec<_>>().join("\n\n")
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    config.header = Some(fs::read_to_string(here.join("header.h")).unwrap().trim_end().to_owned());
    let mut bytes = Vec::new();
    cbindgen::generate_with_config(here, config).unwrap().write(&mut bytes);
    // What Rust calls safety is, in C, what pointers must be.
    let generated = String::from_utf8(bytes).unwrap().replace("// # Safety\n//", "// Pointers:\n//");
    let generated = in_sections(&with_float_calls(&without_tags(&generated)));

    // What no function mentions is there only if cbindgen.toml names it.
    for line in source(&here.join("src")).lines() {
        if let Some(name) = line.strip_prefix("pub enum ").and_then(|name| name.strip_suffix(" {")) {
            assert!(generated.contains(&format!("  {name} : ")), "cbindgen.toml does not name {name}");
        }
    }

    let path = here.join("../include/jostle.h");
    if env::var_os(WRITE).is_some() {
        fs::write(path, generated).unwrap();
    } else {
        let committed = fs::read_to_string(path).unwrap();
        let differs = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
        assert!(committed == generated, "first difference at line {differs:?}; `make header` writes it anew");
    }
}

#[test]
fn the_configuration_has_the_fields_of_the_core() {
    let header =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/jostle.h")).unwrap();
    let (_, rest) = header.split_once("typedef struct jostle_config {").unwrap();
    let (body, _) = rest.split_once("} jostle_config;").unwrap();
    let fields = body.lines().filter_map(|line| line.trim().strip_suffix(';')?.rsplit(' ').next());
    let wanted =
        ["struct_size"].into_iter().chain(jostle::fields::Field::ALL.iter().map(|field| field.name()));
    assert!(fields.eq(wanted.clone()), "wanted, in this order: {:?}", wanted.collect::<Vec<_>>());
}
