//! The training run of `ffi/examples/firmware/train.c`, whose bits `golden/device_steps.txt` states for every
//! processor: here on each instruction set of this machine. `scripts/test-device.sh` compares devices with it.

use std::{env, fs};

mod common;
#[path = "common/session.rs"]
mod session;

use common::{assert_same_bits, instruction_sets};
use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{Config, Decay, Dropout, InstructionSet, Optimizer, Recipe, Schedule, Serial};
use session::Session;

fn config() -> Config {
    Config { dropout: Dropout::all(0.1), ..Config::new(27, 16, 1, 4, 16) }
}

fn recipe() -> Recipe {
    Recipe {
        optimizer: Optimizer::ADAMW,
        schedule: Schedule { peak: 1e-2, warmup: 10, steps: 200, decay: Decay::Cosine { last: 1e-3 } },
        clip: Some(1.0),
        accumulate: 4,
        seed: 1337,
    }
}

/// What the device trains on: all but the last eighth, a to z as 0 to 25, a space as 26.
fn text() -> Vec<u8> {
    let text = include_str!("../../ffi/examples/firmware/text.txt").trim_end();
    let token = |c: u8| if c == b' ' { 26 } else { c - b'a' };
    text.bytes().map(token).take(text.len() - text.len() / 8).collect()
}

/// FNV-1a over the parameters' bytes, little-endian, in the words that the device prints.
fn line(step: u64, parameters: &[f32]) -> String {
    let bytes = parameters.iter().flat_map(|x| x.to_le_bytes());
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("step {step}: checksum {sum:016x}")
}

#[test]
fn every_instruction_set_has_the_bits_of_the_devices() {
    let (recipe, text) = (recipe(), text());
    for simd in instruction_sets() {
        let mut session = Session::new(&config(), &recipe, 1, 1);
        session.train(&recipe, simd, &Serial, &text, 0, 10);
        let early = line(10, &session.parameters);
        session.train(&recipe, simd, &Serial, &text, 10, 190);
        let found = format!("{early}\n{}\n", line(200, &session.parameters));
        assert_eq!(found, include_str!("golden/device_steps.txt"), "{}", simd.name());
        println!("{}:\n{found}", simd.name());
    }
}

/// Where there is one, the checkpoint is a device's: `scripts/test-device.sh` hands it over. Else it is this machine's.
#[test]
fn a_checkpoint_goes_on_to_the_bits_of_the_devices() {
    let (recipe, text, simd) = (recipe(), text(), InstructionSet::detect());
    let mut own = Session::new(&config(), &recipe, 1, 1);
    own.train(&recipe, simd, &Serial, &text, 0, 10);
    let file = if let Some(path) = env::var_os("JOSTLE_DEVICE_CHECKPOINT") {
        fs::read(path).unwrap()
    } else {
        let mut file = vec![0; checkpoint::size(&own.plan, true, &[]).unwrap()];
        let progress = Progress { step: 10, seed: recipe.seed };
        let Session { parameters, optimizer, .. } = &own;
        let contents = Contents { parameters, optimizer: Some(optimizer), progress, metadata: &[] };
        checkpoint::write(&mut file, &own.plan, &contents).unwrap();
        file
    };

    let mut session = Session::new(&config(), &recipe, 1, 1);
    let Session { plan, parameters, optimizer, .. } = &mut session;
    let progress = Checkpoint::new(&file).unwrap().read(plan, parameters, Some(optimizer)).unwrap();
    assert_eq!(progress, Progress { step: 10, seed: recipe.seed });
    assert_same_bits(&session.parameters, &own.parameters, "parameters");
    assert_same_bits(&session.optimizer, &own.optimizer, "optimizer");
    session.train(&recipe, simd, &Serial, &text, 10, 190);
    let last = include_str!("golden/device_steps.txt").lines().last();
    assert_eq!(Some(line(200, &session.parameters).as_str()), last);
}
