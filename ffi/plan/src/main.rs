//! Writes a C header of `#define`s for a model: its configuration and the size of each buffer, for static arrays in
//! firmware. The sizes come from the core; the library checks them again at run time.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs, io};

use clap::{Parser, ValueEnum};
use jostle::{Activation, Config, Dropout, Error, Frozen, OptimizerState, Options, Plan, Target};

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
    /// The number of attention heads; divides the width
    #[arg(long)]
    heads: u32,
    /// The width of the residual stream
    #[arg(long)]
    width: u32,
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
    /// Fused optimizer step: memory for the gradients of some rows only, no clipping, one pass a step
    #[arg(long)]
    fused: bool,
    /// A tensor that is not trained, e.g. wte.weight; its values are only read, e.g. from flash; may be repeated
    #[arg(long, value_name = "NAME")]
    freeze: Vec<String>,
    /// The output matrix is not the token embedding
    #[arg(long)]
    untied: bool,
    /// Products and norms have no biases
    #[arg(long)]
    no_bias: bool,
    /// The activation of the MLP
    #[arg(long, value_enum, default_value = "gelu")]
    activation: ActivationName,
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

#[derive(Clone, Copy, ValueEnum)]
enum ActivationName {
    Gelu,
    GeluTanh,
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
        let usual = Config::new(vocab, context, layers, heads, width);
        Config {
            hidden: self.hidden.map_or(usual.hidden, |hidden| hidden as usize),
            dropout: Dropout {
                embedding: rate(self.embedding_dropout),
                attention: rate(self.attention_dropout),
                attention_projection: rate(self.attention_projection_dropout),
                mlp_projection: rate(self.mlp_projection_dropout),
            },
            activation: match self.activation {
                ActivationName::Gelu => Activation::Gelu,
                ActivationName::GeluTanh => Activation::GeluTanh,
            },
            bias: !self.no_bias,
            tied: !self.untied,
            norm_epsilon: self.norm_epsilon.unwrap_or(usual.norm_epsilon),
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
