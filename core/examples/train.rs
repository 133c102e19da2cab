//! Trains a model of characters on a text, nanoGPT's recipe for one processor, and lets it write.
//!
//! ```text
//! cargo run --release -p jostle --example train -- --text FILE
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{
    Buffers, CharTable, Compute, Config, Decay, Dropout, Generator, InstructionSet, Optimizer, Options, Plan,
    Recipe, Sampling, Schedule, Trainer, initialization,
};
use jostle_pool::Pool;

const CONTEXT: usize = 64;
const BATCH: usize = 12;
const SEED: u64 = 1337;
/// About a minute on two cores.
const STEPS: u64 = 1400;
const PROMPT: &str = "The ";
const SAMPLING: Sampling = Sampling::new(0.8);

/// Keys of a checkpoint's metadata.
const CHARACTERS: &str = "train.characters";
const PLANNED_STEPS: &str = "train.steps";

/// Between two lines of progress where there is no terminal.
const PAUSE: Duration = Duration::from_secs(5);

/// Trains a model of characters on a text, then lets it write.
#[derive(Parser)]
struct Arguments {
    /// The text, UTF-8; its last tenth is kept for validation
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Steps of the whole training, on which the learning rate depends [default: 1400, or the checkpoint's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Stop when so many steps are done, to be resumed later
    #[arg(long, value_name = "N")]
    stop: Option<u64>,
    /// What the model is to continue [default: "The ", or the text's first character]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// How many characters to generate
    #[arg(long, value_name = "N", default_value_t = 500)]
    generate: u64,
    /// Seed of everything random [default: 1337]
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    seed: Option<u64>,
    /// Threads to use [default: as many as the machine has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Probability of dropout, at least 0 and less than 1 [default: 0.1, or the checkpoint's]
    #[arg(long, value_name = "RATE")]
    dropout: Option<f32>,
    /// Vector instructions: portable, neon, avx2 or avx512 [default: the fastest there are]
    #[arg(long, value_name = "NAME")]
    instruction_set: Option<String>,
    /// Where to save a checkpoint at the end
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// The checkpoint to go on from
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

/// What is told to the user: a sentence that names the file or the value.
type Refusal = Box<dyn Error>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln`, which panics where nobody listens any more.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that is not the model: the vocabulary and the text in it.
struct Data {
    /// The characters of the vocabulary, in the order of their tokens.
    characters: Vec<char>,
    training: Vec<i32>,
    validation: Vec<i32>,
    prompt: Vec<i32>,
}

fn run(arguments: &Arguments) -> Result<(), Refusal> {
    let resumed =
        arguments.resume.as_deref().map(|path| Ok::<_, Refusal>((path, read(path)?))).transpose()?;
    let resumed = match &resumed {
        Some((path, bytes)) => Some((*path, Checkpoint::new(bytes).map_err(|error| of(path, error))?)),
        None => None,
    };
    let data = Data::new(arguments, resumed)?;
    let simd = match &arguments.instruction_set {
        Some(name) => InstructionSet::named(name).map_err(|_| {
            let known = InstructionSet::NAMES.join(", ");
            format!("this machine or build has no instruction set {name:?} (known: {known})")
        })?,
        None => InstructionSet::detect(),
    };
    let threads = match arguments.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let pool = Pool::new(threads).map_err(|error| format!("{threads} threads cannot be had: {error}"))?;
    let compute = Compute { simd, parallel: &pool };

    let mut dropout = arguments.dropout.map(Dropout::all);
    let mut steps = arguments.steps;
    if let Some((path, file)) = resumed {
        dropout = dropout.or(Some(file.config().map_err(|error| of(path, error))?.dropout));
        steps = steps.or_else(|| file.metadata(PLANNED_STEPS)?.to_string().parse().ok());
    }
    let steps = steps.unwrap_or(STEPS);
    let dropout = dropout.unwrap_or(Dropout::all(0.1));
    // With so few characters a head of its own costs 1 % more parameters, and predicts better than a tied one.
    let config = Config { tied: false, dropout, ..Config::new(data.characters.len(), CONTEXT, 4, 4, 128) };
    let plan = Plan::new(&config, &Options { threads, ..Options::new(BATCH) })?;

    let mut parameters = vec![0.0; plan.parameters];
    let mut optimizer = vec![0.0; plan.optimizer];
    let progress = match resumed {
        Some((path, file)) => {
            file.read(&plan, &mut parameters, Some(&mut optimizer)).map_err(|error| of(path, error))?
        }
        None => {
            let progress = Progress { step: 0, seed: arguments.seed.unwrap_or(SEED) };
            initialization::initialize(simd, &plan, &mut parameters, progress.seed)?;
            progress
        }
    };
    let stop = arguments.stop.unwrap_or(steps).min(steps);
    if progress.step > stop {
        return Err(format!("{} steps are done already, more than {stop}", progress.step).into());
    }
    let mut save = arguments.save.as_deref().map(Save::new).transpose()?;

    let recipe = Recipe {
        optimizer: Optimizer::ADAMW,
        schedule: Schedule { peak: 1e-3, warmup: steps.min(100), steps, decay: Decay::Cosine { last: 1e-4 } },
        clip: Some(1.0),
        accumulate: 1,
        seed: progress.seed,
    };
    let (mut gradients, mut workspace) = (vec![0.0; plan.gradients], vec![0.0; plan.workspace()]);
    let mut batch = vec![0; plan.batch];
    let buffers = Buffers {
        parameters: &mut parameters,
        frozen: &[],
        gradients: &mut gradients,
        optimizer: &mut optimizer,
        workspace: &mut workspace,
        batch: &mut batch,
    };
    let mut trainer = Trainer::new(&plan, &recipe, buffers, compute)?;
    trainer.resume_at(progress.step, 0);
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} parameters, {} characters of text ({} different), {} KiB, {}, threads: {threads}",
        plan.parameters,
        data.training.len() + data.validation.len(),
        config.vocab,
        plan.bytes() / 1024,
        simd.name(),
    )?;
    writeln!(
        out,
        "validation loss {} at step {}",
        trainer.evaluate(&data.validation[..])?.mean(),
        progress.step
    )?;
    train(&mut trainer, &data.training, stop, &mut out)?;
    writeln!(out, "validation loss {} at step {stop}", trainer.evaluate(&data.validation[..])?.mean())?;

    let progress = Progress { step: trainer.steps(), seed: progress.seed };
    if let Some(save) = &mut save {
        let metadata =
            [(CHARACTERS, &*data.characters.iter().collect::<String>()), (PLANNED_STEPS, &steps.to_string())];
        let contents = Contents {
            parameters: &parameters,
            frozen: &[],
            optimizer: Some(&optimizer),
            progress,
            metadata: &metadata,
        };
        let mut bytes = vec![0; checkpoint::size(&plan, true, &metadata)?];
        checkpoint::write(&mut bytes, &plan, &contents)?;
        save.write(&bytes)?;
        writeln!(out, "saved to {}", save.path.display())?;
    }
    write_on(&plan, simd, &parameters, &data, arguments.generate, progress.seed, &mut out)
}

/// Trains until so many steps are done, and shows how it goes: on a terminal in one line, elsewhere in a line
/// from time to time.
fn train(trainer: &mut Trainer<'_>, text: &[i32], stop: u64, out: &mut impl Write) -> Result<(), Refusal> {
    let first = trainer.steps();
    let bar = ProgressBar::new(stop).with_position(first);
    bar.set_style(ProgressStyle::with_template("{bar:24} {msg}")?);
    let begin = Instant::now();
    let mut printed = begin;
    while trainer.steps() < stop {
        let report = trainer.step(text)?;
        let (done, elapsed) = (trainer.steps(), begin.elapsed());
        let speed = (done - first) as f64 / elapsed.as_secs_f64();
        let line = format!(
            "step {done}/{stop}  loss {:.3}  {:.0} tokens/s  {:.0} s left",
            report.loss,
            speed * (BATCH * CONTEXT) as f64,
            (stop - done) as f64 / speed,
        );
        if bar.is_hidden() && (printed.elapsed() >= PAUSE || done == stop) {
            printed = Instant::now();
            writeln!(out, "{line}")?;
        }
        bar.set_message(line);
        bar.set_position(done);
        if done == stop {
            bar.finish_and_clear();
            writeln!(
                out,
                "{} steps in {:.1} s; the last loss is {}",
                done - first,
                elapsed.as_secs_f64(),
                report.loss
            )?;
        }
    }
    Ok(())
}

/// Prints the prompt and what the model makes of it, character by character.
fn write_on(
    plan: &Plan,
    simd: InstructionSet,
    parameters: &[f32],
    data: &Data,
    count: u64,
    seed: u64,
    out: &mut impl Write,
) -> Result<(), Refusal> {
    let table = CharTable::new(&data.characters)?;
    let (mut memory, mut window) = (vec![0.0; plan.generation], vec![0; plan.config.context]);
    let mut order = vec![0; plan.config.vocab];
    let mut generator = Generator::new(plan, simd, parameters, &[], &mut memory, &mut window)?;
    let prompt: String = data.prompt.iter().filter_map(|token| table.decode(*token)).collect();
    write!(out, "\n{prompt}")?;
    generator.feed(&data.prompt)?;
    for number in 0..count {
        let token = generator.draw(&SAMPLING, &mut order, seed, number)?;
        generator.feed(&[token])?;
        write!(out, "{}", table.decode(token).unwrap_or(char::REPLACEMENT_CHARACTER))?;
        out.flush()?;
    }
    writeln!(out)?;
    Ok(())
}

impl Data {
    fn new(arguments: &Arguments, resumed: Option<(&Path, Checkpoint<'_>)>) -> Result<Data, Refusal> {
        let name = arguments.text.display();
        let text = String::from_utf8(read(&arguments.text)?).map_err(|error| {
            format!("{name} is not UTF-8 text (byte {} and following)", error.utf8_error().valid_up_to())
        })?;
        let length = text.chars().count();
        // Of each ten characters one is for validation; training needs a window and its last target.
        let training = length - length.div_ceil(10);
        if training <= CONTEXT {
            let wanted = (CONTEXT + 1) * 10 / 9 + 1;
            return Err(format!("{name} has {length} characters; at least {wanted} are needed").into());
        }
        let characters = match resumed {
            Some((path, file)) => file
                .metadata(CHARACTERS)
                .ok_or_else(|| format!("{} holds no table of characters", path.display()))?
                .chars()
                .collect(),
            None => {
                let mut buffer = vec!['\0'; length];
                CharTable::collect(&text, &mut buffer)?.chars().to_vec()
            }
        };
        let table = CharTable::new(&characters)?;
        let encode = |what: &str, text: &str| {
            if let Some(foreign) = text.chars().find(|char| table.encode_char(*char).is_none()) {
                return Err(format!("the character {foreign:?} in {what} is not one that the model knows"));
            }
            Ok(text.chars().filter_map(|char| table.encode_char(char)).collect::<Vec<i32>>())
        };
        let mut tokens = encode(&name.to_string(), &text)?;
        let prompt = match arguments.prompt.as_deref() {
            Some("") => return Err("the prompt is empty; at least one character is needed".into()),
            Some(prompt) => encode("the prompt", prompt)?,
            None => encode("the prompt", PROMPT).unwrap_or_else(|_| tokens.iter().take(1).copied().collect()),
        };
        let validation = tokens.split_off(training);
        Ok(Data { characters, training: tokens, validation, prompt })
    }
}

/// A checkpoint to be: found out before training to be writable, and in place only when it is complete.
struct Save<'a> {
    path: &'a Path,
    partial: PathBuf,
    file: File,
}

impl<'a> Save<'a> {
    fn new(path: &'a Path) -> Result<Save<'a>, Refusal> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if path.is_dir() {
            return Err(format!("{} is a directory", path.display()).into());
        }
        let file = File::create(&partial).map_err(|error| of(&partial, error))?;
        Ok(Save { path, partial, file })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        written.and_then(|()| fs::rename(&self.partial, self.path)).map_err(|error| of(self.path, error))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    fs::read(path).map_err(|error| of(path, error))
}

fn of(path: &Path, error: impl Error) -> Refusal {
    format!("{}: {error}", path.display()).into()
}
