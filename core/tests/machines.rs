//! Checkpoints move between machines: each writes the same bytes, and continues from the file of each other. The folder that
//! JOSTLE_MACHINES names has the files of machines on which this test has run (scripts/test/machines.sh).

mod common;
#[path = "common/session.rs"]
mod session;

use std::{env, fs, path::PathBuf};

use common::assert_same_bits;
use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{Config, Dropout, InstructionSet, Recipe, Serial};
use session::{Session, recipe, text};

fn train(session: &mut Session, recipe: &Recipe, first: u64, count: usize) {
    let text = text(session.plan.config().vocab, 500);
    session.train(recipe, InstructionSet::detect(), &Serial, &text, first, count);
}

fn file(session: &Session, seed: u64) -> Vec<u8> {
    let metadata = [("alphabet", "äöü \u{1f980}")];
    let mut bytes = vec![0; checkpoint::size(&session.plan, true, &metadata).unwrap()];
    let contents = Contents {
        parameters: &session.parameters,
        frozen: &session.frozen,
        optimizer: Some(&session.optimizer),
        progress: Progress { step: 3, seed },
        metadata: &metadata,
    };
    checkpoint::write(&mut bytes, &session.plan, &contents).unwrap();
    bytes
}

#[test]
fn each_machine_writes_the_same_bytes_and_continues_from_them() {
    let config = Config { dropout: Dropout::all(0.1), tied: false, ..Config::new(29, 8, 2, 2, 12) };
    let recipe = recipe(1e-2, 1337);
    let mut own = Session::new(&config, &recipe, 2, 1);
    train(&mut own, &recipe, 0, 3);
    let written = file(&own, recipe.seed);
    let mut files = vec![(PathBuf::from("its own"), written.clone())];
    if let Some(folder) = env::var_os("JOSTLE_MACHINES") {
        let name = format!("{}.safetensors", env::consts::ARCH);
        fs::write(PathBuf::from(&folder).join(name), &written).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            files.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    train(&mut own, &recipe, 3, 2);
    for (path, bytes) in files {
        assert!(bytes == written, "{} differs", path.display());
        let mut other = Session::new(&config, &recipe, 2, 1);
        let checkpoint = Checkpoint::new(&bytes).unwrap();
        let progress =
            checkpoint.read(&other.plan, &mut other.parameters, Some(&mut other.optimizer)).unwrap();
        assert_eq!(progress, Progress { step: 3, seed: recipe.seed });
        train(&mut other, &recipe, 3, 2);
        assert_same_bits(&other.parameters, &own.parameters, path.display());
    }
}
