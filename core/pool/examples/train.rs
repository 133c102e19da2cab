//! Trains a model of characters with all threads, saves it, resumes it, and lets it write: what a host adds to
//! `core/examples`. It is the twin of `ffi/examples/train.c`, whose checkpoints have the same bytes.
//!
//! ```text
//! cargo run --release -p jostle-pool --example train -- --text FILE [--steps N] [--stop N] [--threads N] [--seed N]
//!     [--dropout RATE] [--generate N] [--save FILE] [--resume FILE]
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{Write, stdout};
use std::str::FromStr;
use std::time::{Duration, Instant};

use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{
    Buffers, CharTable, Compute, Config, Decay, Dropout, Generator, InstructionSet, Optimizer, Options, Plan,
    Recipe, Sampling, Schedule, Trainer, initialize,
};
use jostle_pool::Pool;

const CONTEXT: usize = 64;
const BATCH: usize = 12;
const PROMPT: &str = "The ";
/// Keys of the checkpoint's metadata.
const CHARACTERS: &str = "train.characters";
const PLANNED_STEPS: &str = "train.steps";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// `--name value` pairs.
struct Arguments(BTreeMap<String, String>);

impl Arguments {
    fn new() -> Result<Arguments> {
        let (mut pairs, mut words) = (BTreeMap::new(), std::env::args().skip(1));
        while let Some(name) = words.next() {
            pairs.insert(name.clone(), words.next().ok_or_else(|| format!("{name} needs a value"))?);
        }
        Ok(Arguments(pairs))
    }

    fn get<T: FromStr<Err: Error + 'static>>(&self, name: &str) -> Result<Option<T>> {
        Ok(self.0.get(name).map(|value| value.parse()).transpose()?)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::new()?;
    let text = fs::read_to_string(arguments.get::<String>("--text")?.ok_or("--text FILE is missing")?)?;
    let resumed = arguments.get::<String>("--resume")?.map(fs::read).transpose()?;
    let resumed = resumed.as_deref().map(Checkpoint::new).transpose()?;
    let metadata = |key| Some(resumed?.metadata(key)?.to_string());

    // The last tenth of the text is for validation. A resumed model keeps its characters.
    let length = text.chars().count();
    let mut buffer = match metadata(CHARACTERS) {
        Some(characters) => characters.chars().collect(),
        None => vec!['\0'; length],
    };
    let table = match resumed {
        Some(_) => CharTable::new(&buffer)?,
        None => CharTable::collect(&text, &mut buffer)?,
    };
    let mut tokens = vec![0; length];
    table.encode(&text, &mut tokens)?;
    let (training, validation) = tokens.split_at(length - length.div_ceil(10));

    let simd = InstructionSet::detect();
    let machine = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.get("--threads")?.unwrap_or(machine);
    let pool = Pool::new(threads)?;
    let dropout = match (arguments.get("--dropout")?, resumed) {
        (Some(rate), _) => Dropout::all(rate),
        (None, Some(file)) => file.config()?.dropout,
        (None, None) => Dropout::all(0.1),
    };
    // With so few characters a head of its own costs 1 % more parameters, and predicts better than a tied one.
    let config = Config { tied: false, dropout, ..Config::new(table.vocab(), CONTEXT, 4, 4, 128) };
    let plan = Plan::new(&config, &Options { threads, ..Options::new(BATCH) })?;
    let mut parameters = vec![0.0; plan.parameters()];
    let mut optimizer = vec![0.0; plan.optimizer()];
    let progress = match resumed {
        Some(file) => file.read(&plan, &mut parameters, Some(&mut optimizer))?,
        None => {
            let seed = arguments.get("--seed")?.unwrap_or(1337);
            initialize(simd, &plan, &mut parameters, seed)?;
            Progress { step: 0, seed }
        }
    };

    // The learning rate is a function of the planned steps. `--stop` ends earlier, to be resumed.
    let planned = metadata(PLANNED_STEPS).and_then(|steps| steps.parse().ok());
    let steps = arguments.get("--steps")?.or(planned).unwrap_or(1400);
    let stop = arguments.get("--stop")?.unwrap_or(steps);
    let recipe = Recipe {
        optimizer: Optimizer::ADAMW,
        schedule: Schedule { peak: 1e-3, warmup: steps.min(100), steps, decay: Decay::Cosine { last: 1e-4 } },
        clip: Some(1.0),
        accumulate: 1,
        seed: progress.seed,
    };
    let (mut gradients, mut workspace) = (vec![0.0; plan.gradients()], vec![0.0; plan.workspace()]);
    let mut batch = vec![0; plan.batch()];
    let buffers = Buffers {
        parameters: &mut parameters,
        frozen: &[],
        gradients: &mut gradients,
        optimizer: &mut optimizer,
        workspace: &mut workspace,
        batch: &mut batch,
    };
    let mut trainer = Trainer::new(&plan, &recipe, buffers, Compute { simd, parallel: &pool })?;
    trainer.resume_at(progress.step, 0);
    println!("{} parameters, {}, threads: {threads}", plan.parameters(), simd.name());
    println!("validation loss {} at step {}", trainer.evaluate(validation)?.mean(), progress.step);
    let mut printed = Instant::now();
    while trainer.steps() < stop {
        let report = trainer.step(training)?;
        if printed.elapsed() > Duration::from_secs(5) || trainer.steps() == stop {
            printed = Instant::now();
            println!("step {}/{stop}  loss {:.3}", trainer.steps(), report.loss);
        }
    }
    println!("validation loss {} at step {stop}", trainer.evaluate(validation)?.mean());

    if let Some(path) = arguments.get::<String>("--save")? {
        let progress = Progress { step: trainer.steps(), ..progress };
        let (characters, steps) = (String::from_iter(table.chars()), steps.to_string());
        let metadata = [(CHARACTERS, &*characters), (PLANNED_STEPS, &*steps)];
        let optimizer = Some(&*optimizer);
        let contents =
            Contents { parameters: &parameters, frozen: &[], optimizer, progress, metadata: &metadata };
        let mut bytes = vec![0; checkpoint::size(&plan, true, &metadata)?];
        checkpoint::write(&mut bytes, &plan, &contents)?;
        // The file appears whole or not at all.
        let partial = format!("{path}.partial");
        fs::write(&partial, bytes)?;
        fs::rename(partial, path)?;
    }

    let (mut memory, mut window) = (vec![0.0; plan.generation()], vec![0; CONTEXT]);
    let mut order = vec![0; config.vocab];
    let mut generator = Generator::new(&plan, simd, &parameters, &[], &mut memory, &mut window)?;
    // A text without the prompt's characters is continued from its first one.
    let prompt: Option<Vec<i32>> = PROMPT.chars().map(|character| table.encode_char(character)).collect();
    let prompt = prompt.unwrap_or(tokens[..1].to_vec());
    generator.feed(&prompt)?;
    println!();
    prompt.iter().filter_map(|token| table.decode(*token)).for_each(|character| print!("{character}"));
    for number in 0..arguments.get("--generate")?.unwrap_or(500) {
        let token = generator.draw(&Sampling::new(0.8), &mut order, progress.seed, number)?;
        generator.feed(&[token])?;
        print!("{}", table.decode(token).unwrap_or(char::REPLACEMENT_CHARACTER));
        stdout().flush()?;
    }
    println!();
    Ok(())
}
