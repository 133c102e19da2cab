//! Models of the Llama family that differ in every switch of the configuration, of odd sizes.

use jostle::{Activation, Config, Dropout, Lora, LowRank, Norm, Positions, Rope};

/// Adapters of all matrices of Llama's, of different ranks, with dropout.
pub fn lora() -> Lora {
    Lora {
        q: LowRank::new(4, 8.0),
        k: LowRank::new(2, 1.0),
        v: LowRank::new(5, 9.0),
        o: LowRank::new(3, 4.0),
        gate: LowRank::new(7, 5.0),
        up: LowRank::new(1, 2.0),
        down: LowRank::new(6, 16.0),
        rslora: true,
        dropout: 0.3,
        ..Lora::NONE
    }
}

/// Adapters of all matrices of a GPT-2.
pub fn lora_gpt2() -> Lora {
    let Lora { q, k, v, .. } = Lora::NONE;
    Lora { qkv: LowRank::new(17, 20.0), q, k, v, gate: LowRank::NONE, ..lora() }
}

/// Each switch alone, and together with others. All have dropout and a vocabulary of 27.
pub fn models() -> Vec<(&'static str, Config)> {
    let llama = Config { dropout: Dropout::all(0.2), ..Config::llama(27, 35, 2, 6, 2, 36, 50) };
    let scaled = Rope { theta: 500.0, factor: 8.0, original_context: 16, ..Rope::USUAL };
    let gpt2 = Config { hidden: 50, dropout: Dropout::all(0.2), ..Config::new(27, 35, 2, 3, 24) };
    vec![
        ("llama", llama),
        ("a key/value head for each head, untied", Config { kv_heads: 0, tied: false, ..llama }),
        ("one key/value head, scaled angles", Config { kv_heads: 1, rope: scaled, ..llama }),
        ("wide heads, normalised queries and keys", Config { head_width: 10, qk_norm: true, ..llama }),
        (
            "narrow heads, biases of queries, keys and values",
            Config { head_width: 4, qkv_bias: true, ..llama },
        ),
        ("all biases", Config { bias: true, tied: false, ..llama }),
        ("layer norm", Config { norm: Norm::Layer, bias: true, ..llama }),
        ("GELU", Config { activation: Activation::GeluTanh, ..llama }),
        ("learned positions", Config { positions: Positions::Learned, qk_norm: true, ..llama }),
        ("a GPT-2 with rotary positions", Config { positions: Positions::Rotary, ..gpt2 }),
        ("a GPT-2 with RMS norm, untied", Config { norm: Norm::Rms, tied: false, ..gpt2 }),
        ("a GPT-2 with shared keys", Config { kv_heads: 1, ..gpt2 }),
        ("adapters", Config { lora: lora(), ..llama }),
        ("a GPT-2 with adapters", Config { lora: lora_gpt2(), ..gpt2 }),
    ]
}
