//! The training run of `ffi/examples/firmware/train.c`, whose bits `golden/device_steps.txt` states for every
//! processor: here on each instruction set of this machine. `scripts/test-device.sh` compares devices with it.

mod common;
#[path = "common/session.rs"]
mod session;

use common::instruction_sets;
use jostle::{Config, Decay, Dropout, Optimizer, Recipe, Schedule, Serial};
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
