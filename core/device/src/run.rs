//! The training run of firmware. `ffi/examples/firmware/train.c` is the same run in C, and `core/tests/device.rs` includes
//! this file. `core/tests/golden/device_steps.txt` has the bits, which are equal on every processor.

use jostle::{Config, Decay, Dropout, Optimizer, Recipe, Schedule};

pub const SEED: u64 = 1337;
pub const CONFIG: Config = Config { dropout: Dropout::all(0.1), ..Config::new(27, 16, 1, 4, 16) };
/// Models of the Llama family, which train with the same recipe and text for ten steps. `scripts/test/device/firmware.sh`
/// has them as options of `jostle-plan`.
#[allow(dead_code, reason = "the firmware in Rust trains the GPT-2 only")]
pub const LLAMAS: [(&str, Config); 2] = [
    ("llama", Config { dropout: Dropout::all(0.1), ..Config::llama(27, 16, 2, 4, 2, 16, 24) }),
    (
        "llama, normed queries and keys",
        Config {
            dropout: Dropout::all(0.1),
            head_width: 6,
            qkv_bias: true,
            qk_norm: true,
            tied: false,
            ..Config::llama(27, 16, 1, 3, 1, 20, 32)
        },
    ),
];
pub const RECIPE: Recipe = Recipe {
    optimizer: Optimizer::ADAMW,
    schedule: Schedule { peak: 1e-2, warmup: 10, steps: 200, decay: Decay::Cosine { last: 1e-3 } },
    clip: Some(1.0),
    accumulate: 4,
    seed: SEED,
};

const LETTERS: &[u8] = include_bytes!("../../../ffi/examples/firmware/text.txt").trim_ascii_end();
const TOKENS: [u8; LETTERS.len()] = {
    let (mut tokens, mut i) = ([0; _], 0);
    while i < LETTERS.len() {
        tokens[i] = if LETTERS[i] == b' ' { 26 } else { LETTERS[i] - b'a' };
        i += 1;
    }
    tokens
};
/// The text, a to z as 0 to 25 and a space as 26. The last eighth is for evaluation.
pub static TEXT: (&[u8], &[u8]) = TOKENS.split_at(TOKENS.len() - TOKENS.len() / 8);

/// FNV-1a over the parameters' bytes, little-endian.
pub fn checksum(parameters: &[f32]) -> u64 {
    let bytes = parameters.iter().flat_map(|x| x.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
