//! The files of llama2.c. Where a real one is needed, it lies beside this checkout.

mod model;
mod tokenizer;

/// A file of Karpathy's. Fails in CI if it is missing, and says so elsewhere.
fn shared(name: &str) -> Option<Vec<u8>> {
    let path = format!("{}/../../shared/data/{name}", env!("CARGO_MANIFEST_DIR"));
    match std::fs::read(&path) {
        Ok(file) => Some(file),
        Err(error) if std::env::var_os("CI").is_none() => {
            println!("NOT RUN: {path}: {error}");
            None
        }
        Err(error) => panic!("{path}: {error}"),
    }
}
