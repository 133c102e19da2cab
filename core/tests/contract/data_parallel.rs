//! Data-parallel passes: gradients, losses, and memory that must stay untouched.

use std::sync::atomic::{AtomicUsize, Ordering};

use jostle::{
    Activation, Compute, Config, Dropout, DropoutKey, Error, Frozen, Gradients, InstructionSet, Options,
    Parallel, Pass, Plan, Recipe, Shape,
};

use crate::common::{Random, Threads, assert_same_bits, bits, instruction_sets};
use crate::session::{Session, part};
use crate::{PLAIN, recipe, text};

/// Counts how often its threads were forked.
struct Counted(Threads, AtomicUsize);

impl Counted {
    fn new(threads: usize) -> Counted {
        Counted(Threads(threads), AtomicUsize::new(0))
    }
}

// SAFETY: as the threads that it counts.
unsafe impl Parallel for Counted {
    fn threads(&self) -> usize {
        self.0.threads()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.run(tasks, task);
    }

    fn give_way(&self) {
        std::thread::yield_now();
    }
}

/// Claims more threads than it has: one, which takes the last call first.
struct Backwards(usize);

// SAFETY: one call for each index, one after the other.
unsafe impl Parallel for Backwards {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).rev().for_each(task);
    }
}

/// Odd sizes: no width is a multiple of a register or of a tile.
fn config() -> Config {
    Config { dropout: Dropout::all(0.2), ..Config::new(27, 19, 2, 2, 22) }
}

/// Tokens and targets, with some ignored targets.
fn windows(vocab: usize, rows: usize) -> (Vec<i32>, Vec<i32>) {
    let mut random = Random::new(11);
    let mut token = || random.size(0, vocab - 1) as i32;
    let tokens = (0..rows).map(|_| token()).collect();
    (tokens, (0..rows).map(|row| if row % 5 == 3 { -1 } else { token() }).collect())
}

/// The sum of losses and the gradients of that many micro-batches, which overwrite the buffer's contents.
fn gradients(session: &mut Session, compute: Compute<'_>, shape: Shape, batches: usize) -> (u64, Vec<f32>) {
    let (tokens, targets) = windows(session.plan.config().vocab, batches * shape.rows());
    session.gradients.fill(f32::NAN);
    let mut sum = 0.0;
    let batched = tokens.chunks(shape.rows()).zip(targets.chunks(shape.rows())).enumerate();
    for (batch, (tokens, targets)) in batched {
        let Session { plan, parameters, frozen, gradients, workspace, .. } = &mut *session;
        let first_sequence = (batch * shape.sequences) as u64;
        let dropout = Some(DropoutKey { seed: 7, step: 3, first_sequence });
        let pass = Pass { compute, plan, parameters, frozen, tokens, shape, dropout };
        let mode = if batch == 0 { Gradients::Overwrite } else { Gradients::Add };
        sum += pass.backward(gradients, mode, workspace, targets, 100).unwrap().sum;
    }
    (f64::to_bits(sum), session.gradients.clone())
}

/// Compares two micro-batches on all threads with the same two, and with one large batch, on one thread.
fn check(config: &Config, options: Options, shape: Shape, threads: &[usize], simd: InstructionSet) {
    let one = Compute { simd, ..Compute::serial() };
    let mut whole = Session::with(config, &Options { batch: 2 * options.batch, recompute: false, ..options });
    whole.initialize(3);
    let (_, expected) = gradients(&mut whole, one, Shape { sequences: 2 * shape.sequences, ..shape }, 1);
    let (loss, _) = gradients(&mut whole, one, shape, 2);
    for &threads in threads {
        let mut session = Session::with(config, &Options { threads, ..options });
        session.initialize(3);
        let counted = Counted::new(threads);
        let backwards = Backwards(threads);
        for parallel in [&counted as &dyn Parallel, &backwards] {
            let what = format!("{threads} threads, {shape:?} {options:?} {config:?}");
            let found = gradients(&mut session, Compute { simd, parallel }, shape, 2);
            assert_same_bits(&found.1, &expected, &what);
            assert_eq!(found.0, loss, "{what}");
        }
        // Forward and backward, twice: workers join only at the loss.
        assert_eq!(counted.1.into_inner(), 4, "not data-parallel: {threads} threads, {shape:?} {config:?}");
    }
}

/// Numbers of sequences that threads divide evenly, and others, which give workers unequal shares.
const CASES: [(usize, &[usize]); 6] =
    [(4, &[2]), (5, &[2, 5]), (6, &[2, 3]), (10, &[5]), (8, &[8]), (16, &[8])];

#[test]
fn data_parallel_passes_have_the_bits_of_one_worker() {
    let simd = InstructionSet::detect();
    for (tied, bias) in [(true, true), (true, false), (false, true), (false, false)] {
        let config = Config { tied, bias, ..config() };
        for (batch, threads) in CASES {
            let shape = Shape { sequences: batch, length: config.context };
            for recompute in [false, true] {
                check(&config, Options { recompute, ..Options::new(batch) }, shape, threads, simd);
            }
        }
    }
}

#[test]
fn data_parallel_passes_have_the_same_bits_on_every_instruction_set() {
    let shape = Shape { sequences: 6, length: 19 };
    for simd in instruction_sets() {
        check(&config(), Options::new(6), shape, &[2, 3], simd);
    }
}

#[test]
fn data_parallel_passes_drop_the_elements_of_one_worker() {
    let none = Dropout::NONE;
    for dropout in [
        none,
        Dropout { embedding: 0.3, ..none },
        Dropout { attention: 0.3, ..none },
        Dropout { attention_projection: 0.3, ..none },
        Dropout { mlp_projection: 0.3, ..none },
    ] {
        let config = Config { dropout, activation: Activation::GeluTanh, ..config() };
        let shape = Shape { sequences: 5, length: 19 };
        check(&config, Options::new(5), shape, &[2, 5], InstructionSet::detect());
    }
}

/// Fewer sequences than there is room for, and shorter ones.
#[test]
fn data_parallel_passes_of_less_than_a_batch_have_the_bits_of_one_worker() {
    for (sequences, length) in [(4, 19), (6, 7), (7, 12)] {
        let options = Options::new(9);
        check(&config(), options, Shape { sequences, length }, &[2], InstructionSet::detect());
    }
}

/// Gradients large enough to be passed on in pieces: rows of the token embedding or the output head, rows and columns of
/// wide weights. Workers have unequal shares, so that their pieces differ too.
#[test]
fn large_gradients_are_handed_on_in_pieces() {
    let large = Config { vocab: 1301, layers: 1, ..config() };
    let wide = Config { hidden: 301, layers: 1, ..Config::new(27, 33, 1, 3, 66) };
    for (config, batch, threads) in [
        (large, 5, &[2, 5][..]),
        (Config { tied: false, ..large }, 6, &[2, 3]),
        (wide, 5, &[2]),
        (Config { bias: false, ..wide }, 8, &[2, 8]),
        (Config { hidden: 20, tied: false, ..wide }, 9, &[3]),
    ] {
        let shape = Shape { sequences: batch, length: config.context };
        check(&config, Options::new(batch), shape, threads, InstructionSet::detect());
    }
}

/// So many rows that a norm's gradients take as long as pieces of a weight. Each norm's gradients are one piece.
#[test]
fn norms_of_many_rows_have_the_bits_of_one_worker() {
    let config = Config { hidden: 4, ..Config::new(27, 20, 1, 1, 128) };
    let shape = Shape { sequences: 420, length: 20 };
    check(&config, Options::new(420), shape, &[2], InstructionSet::detect());
}

#[test]
fn data_parallel_passes_leave_out_frozen_tensors() {
    // Enough rows that biases alone are worth the fork.
    let shape = Shape { sequences: 10, length: 19 };
    let is = |name: &str, begins: &[&str]| begins.iter().any(|begin| name.starts_with(begin));
    let choices: [&dyn Fn(&str) -> bool; 7] = [
        &|name| is(name, &["w", "h.0.", "h.1.ln_1"]),
        &|name| is(name, &["h.1.", "ln_f"]),
        &|name| is(name, &["h.0.mlp.c_fc.weight", "h.1.attn.c_attn.bias", "h.1.ln_2.weight"]),
        &|name| !name.ends_with(".bias"),
        &|name| name.ends_with(".bias"),
        &|name| name == "wte.weight",
        &|name| name == "wpe.weight" || name == "lm_head.weight",
    ];
    for tied in [true, false] {
        let config = Config { tied, ..config() };
        let plan = Plan::new(&config, &Options::new(1)).unwrap();
        let names: Vec<String> = plan.tensors().map(|tensor| tensor.name.to_string()).collect();
        let simd = InstructionSet::detect();
        let mut whole = Session::with(&config, &Options::new(10));
        whole.initialize(3);
        let (loss, all) = gradients(&mut whole, Compute::serial(), shape, 2);
        for is_frozen in choices {
            let left = names.iter().map(String::as_str).filter(|name| is_frozen(name));
            let frozen = Frozen::named(&config, left).unwrap();
            for (threads, recompute) in [(2, false), (5, true)] {
                let options = Options { frozen, threads, recompute, ..Options::new(10) };
                let mut session = Session::with(&config, &options);
                session.initialize(3);
                let parallel = Counted::new(threads);
                let found = gradients(&mut session, Compute { simd, parallel: &parallel }, shape, 2);
                assert_same_bits(&found.1, &part(&session.plan, &all, false), format!("{options:?}"));
                assert_eq!(found.0, loss);
                assert_eq!(parallel.1.into_inner(), 4, "not data-parallel: {options:?}");
            }
        }
    }
}

/// Equal to the last bit of an f64, for any number of threads.
#[test]
fn data_parallel_evaluation_has_the_loss_of_one_worker() {
    let text = text(27);
    let losses = [1, 2, 3, 4, 8].map(|threads| {
        let options = Options { threads, optimizer: PLAIN.state(), ..Options::new(8) };
        let mut session = Session::with(&config(), &options);
        session.initialize(3);
        let (recipe, parallel) = (Recipe { optimizer: PLAIN, ..recipe() }, Counted::new(threads));
        let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &parallel);
        let loss = trainer.evaluate(&text[..8 * 19 * 5 + 2 * 19 + 8]).unwrap();
        (loss.counted, f64::to_bits(loss.sum))
    });
    assert!(losses.iter().all(|loss| *loss == losses[0]), "{losses:?}");
}

/// The loss of the last worker's sequences alone is not finite.
#[test]
fn a_loss_that_is_not_finite_leaves_gradients_and_parameters_as_they_are() {
    let shape = Shape { sequences: 6, length: 19 };
    for threads in [1, 2, 3, 6] {
        let options = Options { threads, optimizer: PLAIN.state(), ..Options::new(6) };
        let mut session = Session::with(&config(), &options);
        session.initialize(3);
        let (mut tokens, targets) = windows(26, shape.rows());
        *tokens.last_mut().unwrap() = 26;
        session.parameters[26 * 22..27 * 22].fill(f32::INFINITY);
        session.gradients.fill(7.0);
        let (parameters, gradients) = (bits(&session.parameters), bits(&session.gradients));
        let (recipe, parallel) = (Recipe { optimizer: PLAIN, ..recipe() }, Counted::new(threads));
        let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &parallel);
        let error = trainer.accumulate(&tokens, &targets, shape, 100).unwrap_err();
        assert!(matches!(error, Error::Diverged { what: "loss", tensor: Some(0), .. }), "{error}");
        assert_eq!((trainer.steps(), trainer.accumulated()), (0, 0));
        assert!(bits(&session.parameters) == parameters && bits(&session.gradients) == gradients);
        assert_eq!(parallel.1.into_inner(), usize::from(threads > 1));
    }
}

/// A step in pieces is never data-parallel, and has the bits of a whole step.
#[test]
fn steps_and_pieces_by_turns_have_the_bits_of_steps_by_one_worker() {
    let text = text(27);
    let recipe = Recipe { accumulate: 2, ..recipe() };
    let runs = [(1, 0), (2, 1), (2, 2), (4, 3)].map(|(threads, pieces)| {
        let options = Options { threads, optimizer: recipe.optimizer.state(), ..Options::new(4) };
        let mut session = Session::with(&config(), &options);
        session.initialize(recipe.seed);
        let parallel = Counted::new(threads);
        let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &parallel);
        let losses = [0, 1, 2, 3, 4, 5].map(|step| {
            // One thread takes whole steps. Then every step is in pieces, or every second, or every third.
            if pieces > 0 && step % pieces == 0 {
                loop {
                    if let core::task::Poll::Ready(report) = trainer.poll(&text[..]).unwrap() {
                        break report.loss.to_bits();
                    }
                }
            } else {
                trainer.step(&text[..]).unwrap().loss.to_bits()
            }
        });
        let evaluated = f64::to_bits(trainer.evaluate(&text[..500]).unwrap().sum);
        (losses, evaluated, bits(&session.parameters), bits(&session.optimizer))
    });
    assert!(runs.iter().all(|run| *run == runs[0]));
}
