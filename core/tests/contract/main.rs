//! The numerical contract on whole training runs: equal bits on every instruction set, and for any number of threads,
//! micro-batches and interruptions. Generation with a cache has the bits of the full forward pass.

#[path = "../common/mod.rs"]
mod common;
mod data_parallel;
mod head_rows;
mod llama;
mod lora;
mod pieces;
#[path = "../common/session.rs"]
mod session;
#[path = "../common/switches.rs"]
mod switches;

use common::{Random, Threads, bits, instruction_sets};
use jostle::{
    Activation, Config, Decay, Dropout, Error, Frozen, Generator, InstructionSet, Loss, Norm, Optimizer,
    Options, Pass, Plan, Positions, Recipe, Rope, Schedule, Serial, Shape, Tokens, checkpoint,
};
use session::Session;

/// Everything that could depend on order: dropout everywhere, odd sizes, a tied head, clipping.
fn config() -> Config {
    Config { dropout: Dropout::all(0.2), ..Config::new(27, 35, 2, 3, 21) }
}

fn recipe() -> Recipe {
    let schedule = Schedule { peak: 3e-3, warmup: 5, steps: 60, decay: Decay::Cosine { last: 1e-4 } };
    Recipe { schedule, ..session::recipe(3e-3, 1337) }
}

fn text(vocab: usize) -> Vec<u8> {
    session::text(vocab, 2000)
}

const STEPS: usize = 50;

fn trained(config: &Config, recipe: &Recipe, batch: usize, simd: InstructionSet, threads: usize) -> Vec<u32> {
    let mut session = Session::new(config, recipe, batch, threads);
    let parallel = Threads(threads);
    let text = text(config.vocab);
    session.train(recipe, simd, &parallel, &text, 0, STEPS);
    bits(&session.parameters)
}

#[test]
fn fifty_steps_have_equal_bits_on_every_instruction_set_and_number_of_threads() {
    let expected = trained(&config(), &recipe(), 4, InstructionSet::PORTABLE, 1);
    for simd in instruction_sets() {
        for threads in [1, 2, 3] {
            let found = trained(&config(), &recipe(), 4, simd, threads);
            assert!(found == expected, "{} with {threads} threads differs from portable", simd.name());
        }
    }
}

/// With fewer sequences than threads, or a number that they do not divide evenly, workers share each operation. Products and
/// element-wise operations are large enough for that, and some workers' rows begin within a sequence.
#[test]
fn work_sharing_has_the_bits_of_one_worker() {
    let recipe = Recipe { optimizer: PLAIN, clip: None, ..recipe() };
    let config = Config { dropout: Dropout::all(0.2), ..Config::new(27, 61, 2, 4, 80) };
    let simd = InstructionSet::detect();
    for (config, batch) in [(config, 1), (config, 3), (Config { tied: false, bias: false, ..config }, 1)] {
        let options = |threads| Options { threads, optimizer: PLAIN.state(), ..Options::new(batch) };
        let expected = trained_with(&config, &recipe, options(1), simd, false);
        for threads in [2, 5] {
            let options = options(threads);
            for options in [options, Options { recompute: true, fused: true, ..options }] {
                let found = trained_with(&config, &recipe, options, simd, false);
                assert!(found == expected, "{options:?} {config:?}");
            }
        }
    }
}

#[test]
fn other_recipes_have_equal_bits_too() {
    let untied = untied();
    let momentum = Recipe { optimizer: Optimizer::Sgd { momentum: 0.9 }, ..recipe() };
    for recipe in [recipe(), momentum, Recipe { optimizer: PLAIN, ..recipe() }] {
        let expected = trained(&untied, &recipe, 3, InstructionSet::PORTABLE, 1);
        for simd in instruction_sets() {
            let found = trained(&untied, &recipe, 3, simd, 2);
            assert!(found == expected, "{} differs from portable with {recipe:?}", simd.name());
        }
    }
}

#[test]
fn micro_batches_have_the_bits_of_one_large_batch() {
    let simd = InstructionSet::detect();
    // Many sequences of four tokens have no token of half a vocabulary of 250.
    let short = Config { vocab: 250, context: 4, ..config() };
    for config in [config(), Config { tied: false, ..config() }, short] {
        let expected = trained(&config, &recipe(), 6, simd, 2);
        for (batch, accumulate) in [(3, 2), (2, 3), (1, 6)] {
            let found = trained(&config, &Recipe { accumulate, ..recipe() }, batch, simd, 2);
            assert!(found == expected, "{accumulate} micro-batches of {batch} differ from one of 6");
        }
    }
}

/// A model after some steps, with any options, by whole steps or in pieces.
fn session_after(
    steps: usize,
    config: &Config,
    recipe: &Recipe,
    options: Options,
    simd: InstructionSet,
    poll: bool,
) -> Session {
    let text = text(27);
    let mut session = Session::with(config, &Options { optimizer: recipe.optimizer.state(), ..options });
    session.initialize(recipe.seed);
    let parallel = Threads(options.threads);
    let mut trainer = session.trainer(recipe, simd, &parallel);
    for _ in 0..steps {
        if poll {
            while trainer.poll(&text[..]).unwrap().is_pending() {}
        } else {
            trainer.step(&text[..]).unwrap();
        }
    }
    session
}

/// As [`trained`], with any options, by whole steps or in pieces.
fn trained_with(
    config: &Config,
    recipe: &Recipe,
    options: Options,
    simd: InstructionSet,
    poll: bool,
) -> (Vec<u32>, Vec<u32>) {
    let session = session_after(STEPS, config, recipe, options, simd, poll);
    (bits(&session.parameters), bits(&session.optimizer))
}

/// A checkpoint with the optimizer's state.
fn saved(session: &Session, step: u64, seed: u64) -> Vec<u8> {
    let contents = checkpoint::Contents {
        parameters: &session.parameters,
        frozen: &session.frozen,
        optimizer: Some(&session.optimizer),
        progress: checkpoint::Progress { step, seed },
        metadata: &[],
    };
    let mut bytes = vec![0; checkpoint::size(&session.plan, true, &[]).unwrap()];
    checkpoint::write(&mut bytes, &session.plan, &contents).unwrap();
    bytes
}

const PLAIN: Optimizer = Optimizer::Sgd { momentum: 0.0 };

fn untied() -> Config {
    Config { tied: false, bias: false, activation: Activation::GeluTanh, hidden: 50, ..config() }
}

/// As [`config`] with four blocks. A plan that recomputes keeps one block's activations.
#[test]
fn recomputed_activations_have_the_bits_of_kept_ones() {
    let sgd = Recipe { optimizer: PLAIN, ..recipe() };
    for (config, recipe) in [
        (config(), recipe()),
        (Config { layers: 4, ..config() }, recipe()),
        (Config { layers: 1, ..untied() }, sgd),
        (Config { layers: 3, ..untied() }, sgd),
    ] {
        let expected = trained(&config, &recipe, 4, InstructionSet::detect(), 1);
        let options = |batch, threads| Options { threads, recompute: true, ..Options::new(batch) };
        for simd in instruction_sets() {
            let (found, _) = trained_with(&config, &recipe, options(4, 2), simd, false);
            assert!(found == expected, "{} differs with {config:?}", simd.name());
        }
        let micro = Recipe { accumulate: 2, ..recipe };
        let (found, _) = trained_with(&config, &micro, options(2, 3), InstructionSet::detect(), true);
        assert!(found == expected, "polled micro-batches differ with {config:?}");
    }
}

/// Blocks that share memory leave the last block's values there.
#[test]
fn only_the_last_block_has_its_queries_where_activations_are_recomputed() {
    let (shape, tokens) = (Shape { sequences: 1, length: 4 }, [1, 2, 3, 4]);
    let [kept, recomputed] = [false, true].map(|recompute| {
        let mut session = Session::with(&config(), &Options { recompute, ..Options::new(1) });
        session.initialize(3);
        session.logits(InstructionSet::detect(), &tokens, shape);
        [0, 1].map(|layer| session.plan.qkv(&mut session.workspace, shape, layer).map(bits))
    });
    let missing = Error::Plan { what: "that block's activations" };
    assert_eq!(recomputed, [Err(missing), kept[1].clone()]);
    assert!(kept[0].is_ok() && kept[0] != kept[1]);
}

/// Parameters and optimizer state after a fused optimizer step, with several tiles for each tensor.
#[test]
fn a_fused_update_has_the_bits_of_one_after_backward() {
    let momentum = Optimizer::Sgd { momentum: 0.9 };
    let large = Config { vocab: 300, hidden: 300, layers: 1, ..config() };
    for (config, optimizer, batch) in [
        (config(), PLAIN, 3),
        (Config { layers: 3, ..untied() }, momentum, 3),
        (Config { tied: false, ..config() }, Optimizer::ADAMW, 1),
        (large, momentum, 2),
    ] {
        let recipe = Recipe { optimizer, clip: None, ..recipe() };
        let options = Options { threads: 2, ..Options::new(batch) };
        let simd = InstructionSet::detect();
        let expected = trained_with(&config, &recipe, options, simd, false);
        for (simd, threads, recompute, poll) in instruction_sets()
            .into_iter()
            .map(|simd| (simd, 1, false, false))
            .chain([(simd, 2, false, false), (simd, 1, true, false), (simd, 3, true, true)])
        {
            let options = Options { threads, recompute, fused: true, ..options };
            let found = trained_with(&config, &recipe, options, simd, poll);
            assert!(found == expected, "{} {options:?} {config:?} {recipe:?}", simd.name());
        }
    }
}

/// A fused step on the caller's batch, by a new trainer for each call. The reports agree up to the norm's last bits.
#[test]
fn a_fused_step_of_a_given_batch_ends_with_update() {
    let recipe = Recipe { optimizer: PLAIN, clip: None, ..recipe() };
    let shape = Shape { sequences: 2, length: 20 };
    let tokens: Vec<i32> = text(27).iter().take(41).map(|token| i32::from(*token)).collect();
    let (tokens, targets) = (&tokens[..40], &tokens[1..]);
    let results = [false, true].map(|fused| {
        let options = Options { optimizer: PLAIN.state(), fused, ..Options::new(2) };
        let mut session = Session::with(&config(), &options);
        session.initialize(recipe.seed);
        let before = bits(&session.parameters);
        let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
        let loss = trainer.accumulate(tokens, targets, shape, 40).unwrap();
        if fused {
            let again = trainer.accumulate(tokens, targets, shape, 40);
            assert_eq!(again, Err(Error::Fused { what: "accumulate" }));
        }
        let (accumulated, pieces) = (trainer.accumulated(), trainer.pieces());
        assert_eq!(bits(&session.parameters) == before, !fused);
        let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
        trainer.resume_at(0, accumulated);
        trainer.resume_pieces(pieces);
        let report = trainer.update(loss).unwrap();
        assert_eq!((trainer.steps(), trainer.accumulated()), (1, 0));
        (bits(&session.parameters), report)
    });
    let [(parameters, report), (fused, found)] = &results;
    assert!(parameters == fused);
    let norms = (report.gradient_norm, found.gradient_norm);
    assert!((norms.0 - norms.1).abs() < 1e-6 * norms.0, "{norms:?}");
    assert_eq!(*found, jostle::Report { gradient_norm: norms.1, ..*report });
}

#[test]
fn another_seed_gives_other_bits() {
    let simd = InstructionSet::detect();
    let other = trained(&config(), &Recipe { seed: 1338, ..recipe() }, 4, simd, 1);
    assert!(other != trained(&config(), &recipe(), 4, simd, 1));
}

#[test]
fn resuming_has_the_bits_of_never_having_stopped() {
    let (config, recipe, simd) = (config(), recipe(), InstructionSet::detect());
    let text = text(27);
    let expected = trained(&config, &recipe, 4, simd, 1);

    let mut first = Session::new(&config, &recipe, 4, 1);
    first.train(&recipe, simd, &Serial, &text, 0, 17);
    let bytes = saved(&first, 17, recipe.seed);

    let mut second = Session::new(&config, &recipe, 4, 1);
    let saved = checkpoint::Checkpoint::new(&bytes).unwrap();
    assert_eq!(saved.config(), Ok(config));
    let progress = saved.read(&second.plan, &mut second.parameters, Some(&mut second.optimizer)).unwrap();
    second.train(&recipe, simd, &Serial, &text, progress.step, STEPS - 17);
    assert!(bits(&second.parameters) == expected);
}

/// Debug builds panic where a product's scratch is too short.
#[test]
fn scratch_is_enough_at_any_shape() {
    let mut random = Random::new(7);
    for case in 0..150 {
        let heads = random.size(1, 4);
        let (vocab, context) = (random.size(2, 300), random.size(1, 130));
        let sizes = Config::new(vocab, context, 1, heads, heads * random.size(1, 40));
        let config = Config {
            hidden: random.size(1, 300),
            tied: case % 2 == 0,
            bias: case % 3 == 0,
            dropout: Dropout::all(0.1),
            ..sizes
        };
        let (batch, threads) = (random.size(1, 24), random.size(1, 3));
        let text: Vec<i32> = (0..400).map(|_| random.size(0, vocab - 1) as i32).collect();
        let mut session = Session::new(&config, &recipe(), batch, threads);
        session.initialize(case);
        let parallel = Threads(threads);
        let recipe = recipe();
        let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &parallel);
        trainer.step(&text[..]).unwrap();
        assert!(trainer.buffers().gradients.iter().all(|gradient| gradient.is_finite()), "{config:?}");
        trainer.evaluate(&text[..]).unwrap();
        let (mut memory, mut window) = (vec![0.0; session.plan.generation()], vec![0; context]);
        let simd = InstructionSet::detect();
        let mut generator =
            Generator::new(&session.plan, simd, &session.parameters, &[], &mut memory, &mut window).unwrap();
        generator.feed(&text[..context]).unwrap();
    }
}

/// A new trainer for every micro-batch and every update, as in hosts that cannot keep a Rust value.
#[test]
fn a_trainer_can_be_resumed_within_a_step() {
    let (config, recipe, simd) = (config(), recipe(), InstructionSet::detect());
    let text = text(27);
    let expected = trained(&config, &Recipe { accumulate: 2, ..recipe }, 2, simd, 1);

    let mut session = Session::new(&config, &recipe, 2, 1);
    session.initialize(recipe.seed);
    let shape = Shape { sequences: 2, length: config.context };
    let (mut tokens, mut targets) = (vec![0; shape.rows()], vec![0; shape.rows()]);
    for step in 0..STEPS as u64 {
        let mut accumulated = 0;
        let mut loss = Loss::default();
        for _ in 0..2 {
            let parts = tokens.chunks_mut(config.context).zip(targets.chunks_mut(config.context));
            for (sequence, (tokens, targets)) in (accumulated..).zip(parts) {
                let text = Tokens::from(&text[..]);
                let first = text.random_window(config.context, recipe.seed, step, sequence).unwrap();
                text.window(first, tokens, targets).unwrap();
            }
            let mut trainer = session.trainer(&recipe, simd, &Serial);
            trainer.resume_at(step, accumulated);
            let part = trainer.accumulate(&tokens, &targets, shape, 2 * shape.rows()).unwrap();
            loss = Loss { sum: loss.sum + part.sum, counted: loss.counted + part.counted };
            accumulated = trainer.accumulated();
        }
        assert_eq!(accumulated, 4);
        let mut trainer = session.trainer(&recipe, simd, &Serial);
        trainer.resume_at(step, accumulated);
        trainer.update(loss).unwrap();
        assert_eq!((trainer.steps(), trainer.accumulated()), (step + 1, 0));
    }
    assert!(bits(&session.parameters) == expected);
}

/// FNV-1a, easy to compute in any language, in hexadecimal digits.
fn checksum(bytes: impl IntoIterator<Item = u8>) -> String {
    let step = |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    format!("{:016x}", bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Rust, C, Python and every device must produce these bits: `golden/fifty_steps.txt`.
#[test]
fn fifty_steps_have_the_bits_that_were_written_down() {
    let found = trained(&config(), &recipe(), 4, InstructionSet::detect(), 1);
    let little_endian = found.into_iter().flat_map(u32::to_le_bytes);
    assert_eq!(checksum(little_endian), include_str!("../golden/fifty_steps.txt").trim());
}

/// The bytes of a checkpoint after training with frozen tensors: `golden/frozen_checkpoint.txt`.
#[test]
fn training_with_frozen_tensors_ends_in_the_checkpoint_that_was_written_down() {
    let plan = Plan::new(&config(), &Options::new(4)).unwrap();
    let names: Vec<String> = plan.tensors().map(|tensor| tensor.name.to_string()).collect();
    let left = |name: &&str| name.starts_with('w') || name.starts_with("h.0.") || *name == "h.1.ln_1.bias";
    let frozen = Frozen::named(&config(), names.iter().map(String::as_str).filter(left)).unwrap();
    let mut session = Session::with(&config(), &Options { frozen, ..Options::new(4) });
    session.initialize(recipe().seed);
    session.train(&recipe(), InstructionSet::detect(), &Serial, &text(27), 0, 20);
    assert_eq!(
        checksum(saved(&session, 20, recipe().seed)),
        include_str!("../golden/frozen_checkpoint.txt").trim()
    );
}

/// The logits of a full forward pass over one sequence, the last position's.
fn full_logits(session: &mut Session, simd: InstructionSet, tokens: &[i32]) -> Vec<u32> {
    let shape = Shape { sequences: 1, length: tokens.len() };
    let logits = session.logits(simd, tokens, shape);
    bits(&logits[logits.len() - session.plan.config().vocab..])
}

#[test]
fn cached_generation_has_the_bits_of_the_full_forward_pass() {
    let (config, recipe) = (config(), recipe());
    let mut session = Session::new(&config, &recipe, 4, 1);
    session.train(&recipe, InstructionSet::detect(), &Serial, &text(27), 0, 20);
    let tokens: Vec<i32> = text(27).iter().skip(100).take(80).map(|token| i32::from(*token)).collect();
    for simd in instruction_sets() {
        // One by one, then in groups that cross chunks of positions and the end of the context.
        for lumps in [[1; 60].as_slice(), &[7, 1, 20, 1, 1, 3], &[35, 1, 1], &[34, 4, 1, 30], &[80]] {
            let (mut memory, mut window) = (vec![0.0; session.plan.generation()], vec![0; config.context]);
            let (plan, parameters) = (session.plan, session.parameters.clone());
            let mut generator =
                Generator::new(&plan, simd, &parameters, &[], &mut memory, &mut window).unwrap();
            let mut fed = 0;
            for lump in lumps {
                let found = bits(generator.feed(&tokens[fed..fed + lump]).unwrap());
                fed += lump;
                let seen = &tokens[fed.saturating_sub(config.context)..fed];
                let expected = full_logits(&mut session, simd, seen);
                assert!(found == expected, "{} after {fed} tokens in lumps {lumps:?}", simd.name());
                // As in a host that cannot keep a Rust value.
                let filled = generator.filled();
                assert_eq!(filled, fed.min(config.context));
                generator = Generator::new(&plan, simd, &parameters, &[], &mut memory, &mut window).unwrap();
                generator.resume(filled);
            }
        }
    }
}

#[test]
fn a_later_token_changes_no_earlier_logit_by_a_single_bit() {
    let (config, recipe) = (config(), recipe());
    let mut session = Session::new(&config, &recipe, 2, 1);
    session.train(&recipe, InstructionSet::detect(), &Serial, &text(27), 0, 10);
    let shape = Shape { sequences: 2, length: config.context };
    let tokens: Vec<i32> = text(27).iter().take(shape.rows()).map(|token| i32::from(*token)).collect();
    for simd in instruction_sets() {
        let before = bits(&session.logits(simd, &tokens, shape));
        for changed in 0..config.context {
            let mut tokens = tokens.clone();
            tokens[changed] = (tokens[changed] + 1) % 27;
            let after = bits(&session.logits(simd, &tokens, shape));
            let (v, length) = (config.vocab, config.context);
            assert!(after[..changed * v] == before[..changed * v], "{} at {changed}", simd.name());
            assert!(after[changed * v..length * v] != before[changed * v..length * v]);
            assert!(after[length * v..] == before[length * v..], "the other sequence changed");
        }
    }
}

#[test]
fn evaluation_and_generation_never_drop() {
    let recipe = recipe();
    let with = config();
    let without = Config { dropout: Dropout::NONE, ..with };
    let tokens: Vec<i32> = text(27).iter().take(35).map(|token| i32::from(*token)).collect();
    let results = [with, without].map(|config| {
        let mut session = Session::new(&config, &recipe, 1, 1);
        session.initialize(9);
        let shape = Shape { sequences: 1, length: 35 };
        let logits = bits(&session.logits(InstructionSet::detect(), &tokens, shape));
        let loss = session.trainer(&recipe, InstructionSet::detect(), &Serial).evaluate(text(27).as_slice());
        let trained = session.trainer(&recipe, InstructionSet::detect(), &Serial).step(text(27).as_slice());
        (logits, loss.unwrap(), trained.unwrap().loss)
    });
    assert!(results[0].0 == results[1].0);
    assert_eq!(results[0].1, results[1].1);
    assert!(results[0].2 != results[1].2, "training does drop");
}

#[test]
fn evaluation_predicts_every_token_but_the_first_once() {
    let recipe = recipe();
    let mut session = Session::new(&config(), &recipe, 3, 1);
    session.initialize(3);
    for length in [2, 35, 36, 37, 71, 107, 300] {
        let text = &text(27)[..length];
        let found = session.trainer(&recipe, InstructionSet::detect(), &Serial).evaluate(text).unwrap();
        assert_eq!(found.counted, length - 1);
        let mut expected = 0.0;
        for first in (0..length - 1).step_by(35) {
            let end = (first + 36).min(length);
            let window: Vec<i32> = text[first..end].iter().map(|token| i32::from(*token)).collect();
            let (tokens, targets) = (&window[..window.len() - 1], &window[1..]);
            expected += session.loss(InstructionSet::detect(), tokens, targets).sum;
        }
        assert!((found.sum - expected).abs() < 1e-9 * expected, "{length} tokens");
    }
}

#[test]
fn windows_are_a_function_of_seed_step_and_sequence() {
    let text = text(27);
    let tokens = Tokens::from(text.as_slice());
    let window = |seed, step, sequence| tokens.random_window(35, seed, step, sequence).unwrap();
    assert_eq!(window(1, 2, 3), window(1, 2, 3));
    let starts: std::collections::BTreeSet<usize> = (0..400).map(|i| window(1, 2, i)).collect();
    assert!(starts.len() > 300 && *starts.last().unwrap() < text.len() - 35);
    assert_ne!(window(1, 2, 3), window(2, 2, 3));
    assert_ne!(window(1, 2, 3), window(1, 3, 3));
    // The last window ends with the last token.
    let all: std::collections::BTreeSet<usize> =
        (0..2000).map(|i| Tokens::from(&text[..40]).random_window(35, 0, 0, i).unwrap()).collect();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn pass_without_training_has_no_masks() {
    let mut session = Session::new(&config(), &recipe(), 1, 1);
    session.initialize(4);
    let tokens = [1, 2, 3];
    let shape = Shape { sequences: 1, length: 3 };
    let evaluation = session.logits(InstructionSet::detect(), &tokens, shape);
    let parameters = session.parameters.clone();
    let plan = session.plan;
    let pass = Pass {
        compute: jostle::Compute::serial(),
        plan: &plan,
        parameters: &parameters,
        frozen: &[],
        tokens: &tokens,
        shape,
        dropout: Some(jostle::DropoutKey { seed: 1, step: 0, first_sequence: 0 }),
    };
    pass.forward(&mut session.workspace).unwrap();
    let training = plan.logits(&mut session.workspace, shape).unwrap();
    assert!(bits(training) != bits(&evaluation));
}
