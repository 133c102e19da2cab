//! Writes a C header of `#define`s for a model: its configuration and the size of each buffer, for static arrays in
//! firmware. The sizes come from the core; the library checks them again at run time.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs, io};

use clap::{Parser, ValueEnum};
use jostle::{
    Activation, Config, Dropout, Error, Frozen, Lora, LowRank, Norm, OptimizerState, Options, Plan,
    Positions, Rope, Target,
};

/// Writes a C header with the sizes of a model's buffers, for static arrays.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The number of different tokens
    #[arg(long)]
    vocab: u32,
    /// The longest sequence of the model
    #[arg(long)]
    context: u32,
    /// The number of blocks
    #[arg(long)]
    layers: u32,
    /// The number of attention heads
    #[arg(long)]
    heads: u32,
    /// The number of heads of keys and values [default: as many as heads]
    #[arg(long)]
    kv_heads: Option<u32>,
    /// The width of the residual stream
    #[arg(long)]
    width: u32,
    /// The width of a head [default: the width divided by the heads]
    #[arg(long)]
    head_width: Option<u32>,
    /// The hidden width of the MLP [default: 4 times the width]
    #[arg(long)]
    hidden: Option<u32>,
    /// Sequences in a pass
    #[arg(long, default_value_t = 1)]
    batch: u32,
    /// Threads that may work at once
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// The optimiser's state: AdamW's moments, a momentum, or none
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: OptimizerName,
    /// Recompute each block's activations in backward: less memory, more work, the same results
    #[arg(long)]
    recompute: bool,
    /// The rows of logits that exist at a time: less memory, more work, the same results [default: all]
    #[arg(long, value_name = "ROWS")]
    head_rows: Option<u32>,
    /// Fused optimizer step: memory for the gradients of some rows only, no clipping, one pass a step
    #[arg(long)]
    fused: bool,
    /// A tensor that is not trained, e.g. wte.weight; its values are only read, e.g. from flash; may be repeated
    #[arg(long, value_name = "NAME")]
    freeze: Vec<String>,
    /// The output matrix is not the token embedding
    #[arg(long)]
    untied: bool,
    /// Llama's choices where no other option says otherwise: RMS norm, rotary positions, SwiGLU, no biases
    #[arg(long)]
    llama: bool,
    /// Products and norms have no biases
    #[arg(long)]
    no_bias: bool,
    /// Queries, keys and values have biases, even if no other product has
    #[arg(long)]
    qkv_bias: bool,
    /// Each head's queries and keys are normalised
    #[arg(long)]
    qk_norm: bool,
    /// The activation of the MLP: gelu, gelu-tanh or swiglu [default: gelu]
    #[arg(long, value_parser = named(Activation::NAMES), value_name = "NAME")]
    activation: Option<Activation>,
    /// The norm before each branch and before the head: layer or rms [default: layer]
    #[arg(long, value_parser = named(Norm::NAMES), value_name = "NAME")]
    norm: Option<Norm>,
    /// How the model knows positions: learned or rotary [default: learned]
    #[arg(long, value_parser = named(Positions::NAMES), value_name = "NAME")]
    positions: Option<Positions>,
    /// Rotary positions: the base of the wavelengths
    #[arg(long, value_name = "THETA", default_value_t = Rope::USUAL.theta)]
    rope_theta: f32,
    /// Llama 3's scaling of rotary positions: slow rotations become slower by this factor
    #[arg(long, value_name = "FACTOR", default_value_t = Rope::USUAL.factor)]
    rope_factor: f32,
    /// ... rotations with fewer turns than this in the original context are slow
    #[arg(long, value_name = "TURNS", default_value_t = Rope::USUAL.low_freq_factor)]
    rope_low_freq_factor: f32,
    /// ... rotations with more turns than this keep their frequency
    #[arg(long, value_name = "TURNS", default_value_t = Rope::USUAL.high_freq_factor)]
    rope_high_freq_factor: f32,
    /// ... the context of the first training
    #[arg(long, value_name = "CONTEXT", default_value_t = Rope::USUAL.original_context)]
    rope_original_context: usize,
    /// The standard deviation of matrices before training [default: 0.02]
    #[arg(long, value_name = "DEVIATION")]
    initial_std: Option<f32>,
    /// Added to the variance in every norm [default: 1e-5]
    #[arg(long, value_name = "EPSILON")]
    norm_epsilon: Option<f32>,
    /// The rate of dropout in all four places
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    dropout: f32,
    /// ... on the sum of the embeddings
    #[arg(long, value_name = "RATE")]
    embedding_dropout: Option<f32>,
    /// ... on the attention weights
    #[arg(long, value_name = "RATE")]
    attention_dropout: Option<f32>,
    /// ... on the output of the attention's projection
    #[arg(long, value_name = "RATE")]
    attention_projection_dropout: Option<f32>,
    /// ... on the output of the MLP's projection
    #[arg(long, value_name = "RATE")]
    mlp_projection_dropout: Option<f32>,
    /// The rank of the adapter of c_attn of a GPT-2; 0 for none
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    lora_qkv_rank: usize,
    /// ... its part is multiplied by this, divided by the rank
    #[arg(long, value_name = "ALPHA", default_value_t = LowRank::NONE.alpha)]
    lora_qkv_alpha: f32,
    /// The rank of the adapter of q_proj; 0 for none
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    lora_q_rank: usize,
    /// ... its part is multiplied by this, divided by the rank
    #[arg(long, value_name = "ALPHA", default_value_t = LowRank::NONE.alpha)]
    lora_q_alpha: f32,
    /// The rank of the adapter of k_proj; 0 for none
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    lora_k_rank: usize,
    /// ... its part is multiplied by this, divided by the rank
    #[arg(long, value_name = "ALPHA", default_value_t = LowRank::NONE.alpha)]
    lora_k_alpha: f32,
    /// The rank of the adapter of v_proj; 0 for none
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    lora_v_rank: usize,
    /// ... its part is multiplied by this, divided by the rank
    #[arg(long, value_name = "ALPHA", default_value_t = LowRank::NONE.alpha)]
    lora_v_alpha: f32,
    /// The rank of the adapter of o_proj (GPT-2: attn.c_proj); 0 for none
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    lora_o_rank: usize,
    /// ... its part is multiplied by this, divided by the rank
    #[arg(long, value_name = "ALPHA", default_value_t = LowRank::NONE.alpha)]
    lora_o_alpha: f32,
    /// The rank of the adapter of gate_proj; 0 for none
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    lora_gate_rank: usize,
    /// ... its part is multiplied by this, divided by the rank
    #[arg(long, value_name = "ALPHA", default_value_t = LowRank::NONE.alpha)]
    lora_gate_alpha: f32,
    /// The rank of the adapter of up_proj (GPT-2: c_fc); 0 for none
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    lora_up_rank: usize,
    /// ... its part is multiplied by this, divided by the rank
    #[arg(long, value_name = "ALPHA", default_value_t = LowRank::NONE.alpha)]
    lora_up_alpha: f32,
    /// The rank of the adapter of down_proj (GPT-2: mlp.c_proj); 0 for none
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    lora_down_rank: usize,
    /// ... its part is multiplied by this, divided by the rank
    #[arg(long, value_name = "ALPHA", default_value_t = LowRank::NONE.alpha)]
    lora_down_alpha: f32,
    /// The adapters' alpha is divided by the root of the rank
    #[arg(long)]
    lora_rslora: bool,
    /// The rate of dropout on the inputs of adapters
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    lora_dropout: f32,
    /// Sizes for a microcontroller (32 bits, products without packing) instead of this machine
    #[arg(long)]
    device: bool,
    /// The beginning of all names of macros
    #[arg(long, value_name = "NAME", default_value = "MODEL", value_parser = identifier)]
    prefix: String,
    /// The file to write [default: the standard output]
    #[arg(short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    #[value(name = "adamw")]
    AdamW,
    Momentum,
    None,
}

/// Parses the name of a choice, with dashes or underscores.
fn named<T: Copy + Send + Sync>(
    known: &'static [(T, &'static str)],
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync {
    move |given| {
        let found = known.iter().find(|(_, name)| *name == given.replace('-', "_"));
        let names: Vec<String> = known.iter().map(|(_, name)| name.replace('_', "-")).collect();
        found.map(|(value, _)| *value).ok_or_else(|| format!("expected {}", names.join(" or ")))
    }
}

fn identifier(text: &str) -> Result<String, &'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let digit = |c: char| c.is_ascii_digit();
    if !text.is_empty() && text.chars().all(word) && !text.starts_with(digit) {
        Ok(text.to_owned())
    } else {
        Err("expected letters, digits and underscores, not beginning with a digit")
    }
}

impl Arguments {
    fn config(&self) -> Config {
        let rate = |own: Option<f32>| own.unwrap_or(self.dropout);
        let [vocab, context, layers, heads, width] =
            [self.vocab, self.context, self.layers, self.heads, self.width].map(|size| size as usize);
        let size = |given: Option<u32>| given.map_or(0, |size| size as usize);
        let gpt2 = Config::new(vocab, context, layers, heads, width);
        let llama = Config::llama(vocab, context, layers, heads, 0, width, gpt2.hidden);
        let usual = if self.llama { llama } else { gpt2 };
        Config {
            kv_heads: size(self.kv_heads),
            head_width: size(self.head_width),
            hidden: self.hidden.map_or(usual.hidden, |hidden| hidden as usize),
            dropout: Dropout {
                embedding: rate(self.embedding_dropout),
                attention: rate(self.attention_dropout),
                attention_projection: rate(self.attention_projection_dropout),
                mlp_projection: rate(self.mlp_projection_dropout),
            },
            norm: self.norm.unwrap_or(usual.norm),
            positions: self.positions.unwrap_or(usual.positions),
            rope: Rope {
                theta: self.rope_theta,
                factor: self.rope_factor,
                low_freq_factor: self.rope_low_freq_factor,
                high_freq_factor: self.rope_high_freq_factor,
                original_context: self.rope_original_context,
            },
            activation: self.activation.unwrap_or(usual.activation),
            qkv_bias: self.qkv_bias,
            qk_norm: self.qk_norm,
            initial_std: self.initial_std.unwrap_or(usual.initial_std),
            bias: usual.bias && !self.no_bias,
            tied: !self.untied,
            norm_epsilon: self.norm_epsilon.unwrap_or(usual.norm_epsilon),
            lora: Lora {
                qkv: LowRank::new(self.lora_qkv_rank, self.lora_qkv_alpha),
                q: LowRank::new(self.lora_q_rank, self.lora_q_alpha),
                k: LowRank::new(self.lora_k_rank, self.lora_k_alpha),
                v: LowRank::new(self.lora_v_rank, self.lora_v_alpha),
                o: LowRank::new(self.lora_o_rank, self.lora_o_alpha),
                gate: LowRank::new(self.lora_gate_rank, self.lora_gate_alpha),
                up: LowRank::new(self.lora_up_rank, self.lora_up_alpha),
                down: LowRank::new(self.lora_down_rank, self.lora_down_alpha),
                rslora: self.lora_rslora,
                dropout: self.lora_dropout,
            },
            ..usual
        }
    }

    fn options(&self) -> Result<Options, String> {
        let names = self.freeze.iter().map(String::as_str);
        let frozen = Frozen::named(&self.config(), names).map_err(|error| match error {
            Error::Name { index } => format!("the model has no tensor {:?}", self.freeze[index]),
            error => error.to_string(),
        })?;
        Ok(Options {
            batch: self.batch as usize,
            threads: self.threads as usize,
            optimizer: match self.optimizer {
                OptimizerName::AdamW => OptimizerState::AdamW,
                OptimizerName::Momentum => OptimizerState::Momentum,
                OptimizerName::None => OptimizerState::None,
            },
            recompute: self.recompute,
            fused: self.fused,
            head_rows: self.head_rows.unwrap_or(0) as usize,
            frozen,
        })
    }
}

/// The command line that makes the header again, without the path of the program and of the output.
fn command() -> String {
    let mut words = vec!["jostle-plan".to_owned()];
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "-o" {
            arguments.next();
        } else if !argument.starts_with("-o") {
            words.push(argument);
        }
    }
    words.join(" ")
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let target = if arguments.device { Target::Portable } else { Target::HERE };
    let plan = Plan::on(target, &arguments.config(), &arguments.options()?).map_err(|e| e.to_string())?;
    let text = jostle_plan::header(&command(), &arguments.prefix, arguments.device, &plan)
        .map_err(|e| e.to_string())?;
    match &arguments.output {
        Some(path) => fs::write(path, text).map_err(|error| format!("{}: {error}", path.display())),
        None => io::stdout().write_all(text.as_bytes()).map_err(|error| format!("standard output: {error}")),
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("jostle-plan: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use jostle::fields::Field;

    use super::Arguments;

    /// Fields whose argument negates them.
    const NEGATED: [(&str, &str); 2] = [("bias", "no-bias"), ("tied", "untied")];

    #[test]
    fn every_field_of_a_configuration_has_an_argument() {
        let command = Arguments::command();
        for field in Field::ALL {
            let negated = NEGATED.iter().find(|(name, _)| *name == field.name());
            let wanted =
                negated.map_or(field.name().replace('_', "-"), |(_, argument)| (*argument).to_owned());
            let found = command.get_arguments().any(|argument| argument.get_long() == Some(&wanted));
            assert!(found, "no argument --{wanted}");
        }
    }
}
