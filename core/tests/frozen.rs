//! Frozen tensors: their layout, and training of the others. The bits are as if all tensors were trained, and the frozen
//! ones restored after every step.

mod common;
#[path = "common/session.rs"]
mod session;

use common::{Threads, assert_same_bits, bits, instruction_sets};
use jostle::Tensor;
use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{Backward, Forward, Stage};
use jostle::{
    Compute, Config, Dropout, DropoutKey, Error, Frozen, Generator, Gradients, InstructionSet, Optimizer,
    Options, Pass, Plan, Recipe, Shape,
};
use session::{Session, part, places};

fn config() -> Config {
    Config { dropout: Dropout::all(0.2), ..Config::new(27, 12, 3, 3, 21) }
}

fn untied() -> Config {
    Config { tied: false, bias: false, hidden: 50, ..config() }
}

fn recipe(optimizer: Optimizer) -> Recipe {
    Recipe { optimizer, clip: None, ..session::recipe(3e-3, 7) }
}

fn text() -> Vec<u8> {
    session::text(27, 500)
}

/// The names of the tensors that `is` accepts.
fn names(config: &Config, is: impl Fn(&str) -> bool) -> Vec<String> {
    let plan = Plan::new(config, &Options::new(1)).unwrap();
    plan.tensors().map(|tensor| tensor.name.to_string()).filter(|name| is(name)).collect()
}

fn frozen(config: &Config, names: &[String]) -> Frozen {
    Frozen::named(config, names.iter().map(String::as_str)).unwrap()
}

/// Choices of frozen tensors: the embeddings and the first two blocks; scattered tensors; all but biases; all but the
/// last norm and the head; the token embedding.
fn choices(config: &Config) -> Vec<Vec<String>> {
    let here_and_there = ["h.1.mlp.c_fc.weight", "ln_f.weight", "h.0.ln_1.weight", "h.2.attn.c_attn.weight"];
    vec![
        names(config, |name| ["w", "h.0.", "h.1."].iter().any(|begin| name.starts_with(begin))),
        names(config, |name| here_and_there.contains(&name)),
        names(config, |name| !name.ends_with(".bias")),
        names(config, |name| name.starts_with('h') || name.starts_with('w')),
        names(config, |name| name == "wte.weight"),
    ]
}

#[test]
fn frozen_tensors_lie_apart_without_gaps() {
    for tied in [true, false] {
        let config = Config { tied, bias: tied, ..config() };
        let whole = Plan::new(&config, &Options::new(2)).unwrap();
        for names in
            choices(&config).into_iter().filter(|names| !names.is_empty() && (tied || names.len() < 20))
        {
            let frozen = frozen(&config, &names);
            let plan = Plan::new(&config, &Options { frozen, ..Options::new(2) });
            let plan = plan.unwrap();
            let mut ends = [0, 0];
            for (number, (tensor, all)) in places(&plan).into_iter().enumerate() {
                assert_eq!(tensor.frozen, names.contains(&tensor.name.to_string()));
                assert_eq!(tensor.frozen, frozen.has(number));
                let end = &mut ends[usize::from(tensor.frozen)];
                assert_eq!((tensor.offset, tensor.shape), (*end, all.shape));
                *end += tensor.len();
                assert_eq!(plan.tensor(&tensor.name.to_string()), Some(tensor));
            }
            assert_eq!(ends, [plan.parameters(), plan.frozen()]);
            assert_eq!(plan.parameters() + plan.frozen(), whole.parameters());
            assert_eq!((plan.gradients(), plan.optimizer()), (plan.parameters(), 2 * plan.parameters()));
            assert!(plan.to_string().contains(&format!("frozen {:>19} bytes", 4 * plan.frozen())), "{plan}");
        }
    }
}

#[test]
fn backward_goes_no_further_than_the_first_tensor_that_is_trained() {
    let config = config();
    let plan = |names: &[String], recompute| {
        let frozen = frozen(&config, names);
        Plan::new(&config, &Options { frozen, recompute, ..Options::new(2) }).unwrap()
    };
    let last = |plan: &Plan| Stage::all(plan).last().unwrap();
    let choices = choices(&config);
    let [blocks, _, biases, head, tokens] = &choices[..] else { unreachable!() };
    assert_eq!(last(&plan(blocks, false)), Stage::Backward(Backward::Attention { layer: 2 }));
    assert_eq!(last(&plan(biases, false)), Stage::Backward(Backward::Attention { layer: 0 }));
    assert_eq!(last(&plan(head, false)), Stage::Backward(Backward::Logits));
    assert_eq!(last(&plan(tokens, false)), Stage::Backward(Backward::Embedding));
    let half = names(&config, |name| name < "h.1.ln_2" || name.starts_with('w'));
    assert_eq!(last(&plan(&half, true)), Stage::Backward(Backward::Mlp { layer: 1 }));
    assert_eq!(Stage::count(&plan(&half, true)), Stage::count(&plan(&half, false)) + 1);
    // Activations of the blocks that the backward pass visits, but at least of one.
    let activations = |names: &[String]| plan(names, false).activations();
    let none = activations(&[]);
    let block = (none - plan(&[], true).activations()) / 2;
    assert_eq!(none - activations(blocks), 2 * block);
    assert_eq!(none - activations(&half), block);
    assert_eq!(none - activations(head), 2 * block);
    assert_eq!(plan(blocks, true).recomputed(), 0);
    assert_eq!(2 * plan(&half, true).recomputed(), plan(&[], true).recomputed());
}

/// Against a count by stages and tensors, and against two literal numbers.
#[test]
fn multiply_adds_are_those_of_the_stages_and_of_the_trained_weights() {
    let half = |config: &Config| names(config, |name| name < "h.1.ln_2" || name.starts_with('w'));
    for (config, recompute) in [(config(), false), (config(), true), (untied(), false), (untied(), true)] {
        let (v, t, c, f) = (config.vocab, config.context, config.width, config.hidden);
        let freezing = choices(&config).into_iter().chain([vec![], half(&config)]);
        // Without biases, the third choice freezes every tensor.
        for names in
            freezing.filter(|names| config.bias || names.len() != self::names(&config, |_| true).len())
        {
            let options = Options { frozen: frozen(&config, &names), recompute, ..Options::new(2) };
            let plan = Plan::new(&config, &options).unwrap();
            let stages = Stage::all(&plan).map(|stage| match stage {
                Stage::Forward(Forward::Block { .. }) => 4 * c * c + 2 * c * f + 2 * t * c,
                Stage::Forward(Forward::Logits) | Stage::Backward(Backward::Logits) => v * c,
                Stage::Backward(Backward::Recompute { .. }) => 4 * c * c + c * f + 2 * t * c,
                Stage::Backward(Backward::Mlp { .. }) => 2 * c * f,
                Stage::Backward(Backward::Attention { .. }) => 4 * c * c + 5 * t * c,
                Stage::Forward(Forward::Embedding) | Stage::Loss | Stage::Backward(Backward::Embedding) => 0,
            });
            let in_product = |tensor: &Tensor| match tensor.name.to_string().as_str() {
                "wte.weight" => config.tied,
                "wpe.weight" => false,
                _ => tensor.rank == 2,
            };
            let weights = plan.tensors().filter(|tensor| !tensor.frozen && in_product(tensor));
            let per_row: usize = stages.sum::<usize>() + weights.map(|tensor| tensor.len()).sum::<usize>();
            assert_eq!(plan.multiply_adds(), 2 * t * per_row, "{names:?}");
        }
    }
    // A block of width 4 with 2 positions: 64 + 2 * 64 + 16 forward, and 27 V for each of the output head's; 64 + 40 and
    // 128 backward, and one for each weight, 64 and 128.
    let config = Config::new(5, 2, 2, 1, 4);
    let count = |is: fn(&str) -> bool| {
        let options = Options { frozen: frozen(&config, &names(&config, is)), ..Options::new(1) };
        Plan::new(&config, &options).unwrap().multiply_adds()
    };
    let forward = 2 * (64 + 128 + 16) + 20;
    assert_eq!(count(|_| false), 2 * (forward + 20 + 2 * (64 + 40 + 64 + 128 + 128) + 20));
    assert_eq!(count(|name| !name.starts_with("h.1.mlp")), 2 * (forward + 20 + 128 + 128));
}

/// The gradients of two micro-batches. The first overwrites the buffer's contents.
fn gradients(session: &mut Session, compute: Compute<'_>) -> Vec<f32> {
    let shape = Shape { sequences: 2, length: 9 };
    let tokens: Vec<i32> = text().iter().map(|token| i32::from(*token)).collect();
    session.gradients.fill(f32::NAN);
    for (first, mode) in [(0, Gradients::Overwrite), (2, Gradients::Add)] {
        let (tokens, targets) = (&tokens[50 * first..][..18], &tokens[50 * first + 1..][..18]);
        let Session { plan, parameters, frozen, gradients, workspace, .. } = &mut *session;
        let dropout = Some(DropoutKey { seed: 7, step: 3, first_sequence: first as u64 });
        let pass = Pass { compute, plan, parameters, frozen, tokens, shape, dropout };
        pass.backward(gradients, mode, workspace, targets, 36).unwrap();
    }
    session.gradients.clone()
}

#[test]
fn gradients_have_the_bits_of_those_of_a_plan_that_trains_all() {
    let untied = untied();
    let heads =
        [names(&untied, |name| name != "lm_head.weight"), names(&untied, |name| name == "lm_head.weight")];
    let tied = choices(&config()).into_iter().map(|names| (config(), names));
    for (config, names) in tied.chain(heads.map(|names| (untied, names))) {
        let mut whole = Session::with(&config, &Options::new(2));
        whole.initialize(7);
        let all = gradients(&mut whole, Compute::serial());
        for simd in instruction_sets() {
            for (threads, recompute) in [(1, false), (2, true)] {
                let options =
                    Options { frozen: frozen(&config, &names), threads, recompute, ..Options::new(2) };
                let mut session = Session::with(&config, &options);
                session.initialize(7);
                let parallel = Threads(threads);
                let found = gradients(&mut session, Compute { simd, parallel: &parallel });
                let wanted = part(&session.plan, &all, false);
                assert_same_bits(&found, &wanted, format!("{} {threads} {names:?}", simd.name()));
            }
        }
    }
}

/// Trains all tensors with an equal plan, and restores the frozen ones after each step.
fn oracle(plan: &Plan, recipe: &Recipe, steps: usize) -> (Vec<f32>, Vec<f32>, f32) {
    let mut whole =
        Session::with(plan.config(), &Options { frozen: Frozen::NONE, fused: false, ..*plan.options() });
    whole.initialize(recipe.seed);
    let before = whole.parameters.clone();
    let text = text();
    let mut norm = 0.0;
    for step in 0..steps {
        let mut trainer = whole.trainer(recipe, InstructionSet::PORTABLE, &jostle::Serial);
        trainer.resume_at(step as u64, 0);
        trainer.step(&text[..]).unwrap();
        let squares = part(plan, &whole.gradients, false).into_iter().map(|x| f64::from(x) * f64::from(x));
        norm = squares.sum::<f64>().sqrt() as f32;
        for (_, all) in places(plan).into_iter().filter(|(tensor, _)| tensor.frozen) {
            let range = all.offset..all.offset + all.len();
            whole.parameters[range.clone()].copy_from_slice(&before[range]);
        }
    }
    (whole.parameters, whole.optimizer, norm)
}

#[test]
fn training_the_others_has_the_bits_of_putting_the_frozen_ones_back() {
    let optimizers = [Optimizer::Sgd { momentum: 0.0 }, Optimizer::Sgd { momentum: 0.9 }, Optimizer::ADAMW];
    let tied = choices(&config()).into_iter().map(|names| (config(), names));
    // Without biases, the third choice freezes every tensor.
    let untied = choices(&untied()).into_iter().enumerate().filter(|(number, _)| *number != 2);
    let untied = untied.map(|(_, names)| (self::untied(), names));
    for (number, (config, names)) in tied.chain(untied).enumerate() {
        let recipe = recipe(optimizers[number % 3]);
        let frozen = frozen(&config, &names);
        let optimizer = recipe.optimizer.state();
        let options = Options { frozen, optimizer, ..Options::new(3) };
        let plan = Plan::new(&config, &options).unwrap();
        let (expected, state, norm) = oracle(&plan, &recipe, 8);
        let ways = [
            (1, false, false, false),
            (2, true, false, true),
            (3, false, true, true),
            (2, true, true, false),
        ];
        let fastest = InstructionSet::detect();
        let sets = instruction_sets().into_iter().map(|simd| (simd, ways[0]));
        for (simd, (threads, recompute, fused, poll)) in sets.chain(ways.map(|way| (fastest, way))) {
            let mut session = Session::with(&config, &Options { threads, recompute, fused, ..options });
            session.initialize(recipe.seed);
            assert_same_bits(&session.frozen, &part(&plan, &expected, true), "initial values");
            let parallel = Threads(threads);
            let mut trainer = session.trainer(&recipe, simd, &parallel);
            let (text, mut report) = (text(), None);
            for _ in 0..8 {
                report = Some(if poll {
                    loop {
                        if let core::task::Poll::Ready(report) = trainer.poll(&text[..]).unwrap() {
                            break report;
                        }
                    }
                } else {
                    trainer.step(&text[..]).unwrap()
                });
            }
            let found = report.unwrap().gradient_norm;
            assert!((found - norm).abs() < 1e-5 * norm, "{found} {norm}");
            let what = format!("{} {threads} {recompute} {fused} {names:?}", simd.name());
            assert_same_bits(&session.parameters, &part(&plan, &expected, false), &what);
            let moments = state.chunks(expected.len());
            let kept: Vec<f32> = moments.flat_map(|moment| part(&plan, moment, false)).collect();
            assert_same_bits(&session.optimizer, &kept, &what);
        }
    }
}

/// Logits, evaluation, generation and a checkpoint are the same as without frozen tensors.
#[test]
fn what_is_frozen_does_not_show_in_use() {
    let (config, simd) = (config(), InstructionSet::detect());
    let recipe = recipe(Optimizer::ADAMW);
    let mut whole = Session::new(&config, &recipe, 2, 1);
    whole.initialize(5);
    for names in choices(&config) {
        let mut session =
            Session::with(&config, &Options { frozen: frozen(&config, &names), ..Options::new(2) });
        session.parameters = part(&session.plan, &whole.parameters, false);
        session.frozen = part(&session.plan, &whole.parameters, true);
        let (tokens, shape) = ([1, 2, 3, 4, 5, 6], Shape { sequences: 2, length: 3 });
        assert_eq!(bits(&session.logits(simd, &tokens, shape)), bits(&whole.logits(simd, &tokens, shape)));
        let [one, other] = [&mut session, &mut whole].map(|session| {
            let loss = session.trainer(&recipe, simd, &jostle::Serial).evaluate(&text()[..]).unwrap();
            let (mut memory, mut window) = (vec![0.0; session.plan.generation()], vec![0; config.context]);
            let (parameters, frozen) = (&session.parameters, &session.frozen);
            let mut generator =
                Generator::new(&session.plan, simd, parameters, frozen, &mut memory, &mut window).unwrap();
            (loss, bits(generator.feed(&tokens).unwrap()))
        });
        assert_eq!(one, other);

        let progress = Progress { step: 3, seed: 4 };
        let file = |session: &Session, state: bool| {
            let contents = Contents {
                parameters: &session.parameters,
                frozen: &session.frozen,
                optimizer: state.then_some(&session.optimizer[..]),
                progress,
                metadata: &[],
            };
            let mut bytes = vec![0; checkpoint::size(&session.plan, state, &[]).unwrap()];
            checkpoint::write(&mut bytes, &session.plan, &contents).unwrap();
            bytes
        };
        let bytes = file(&session, false);
        assert_eq!(bytes, file(&whole, false));
        let mut read = vec![f32::NAN; session.plan.parameters()];
        assert_eq!(Checkpoint::new(&bytes).unwrap().read(&session.plan, &mut read, None), Ok(progress));
        assert_eq!(bits(&read), bits(&session.parameters));

        session.optimizer.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
        let bytes = file(&session, true);
        let mut state = vec![f32::NAN; session.plan.optimizer()];
        let saved = Checkpoint::new(&bytes).unwrap();
        assert_eq!(saved.read(&session.plan, &mut read, Some(&mut state)), Ok(progress));
        assert_eq!(bits(&state), bits(&session.optimizer));
        // The file has every tensor's values, but no optimizer state of frozen tensors.
        let mut all = vec![0.0; whole.plan.parameters()];
        assert_eq!(saved.read(&whole.plan, &mut all, None), Ok(progress));
        assert_eq!(bits(&all), bits(&whole.parameters));
        let mut state = vec![0.0; whole.plan.optimizer()];
        assert!(saved.read(&whole.plan, &mut all, Some(&mut state)).is_err());
    }
}

#[test]
fn what_cannot_be_frozen_is_refused() {
    let config = config();
    assert_eq!(Frozen::named(&config, ["wte.weight", "h.3.ln_1.weight"]), Err(Error::Name { index: 1 }));
    assert_eq!(Frozen::named(&config, ["lm_head.weight"]), Err(Error::Name { index: 0 }));
    let deep = Config::new(2, 2, 150, 1, 1);
    let number = Err(Error::TooLarge { what: "number of a frozen tensor" });
    // Twelve tensors a block, after the two embeddings.
    let (block, rest) = ((Frozen::MOST - 2) / 12, (Frozen::MOST - 2) % 12);
    assert_eq!(rest, 10);
    assert_eq!(Frozen::named(&deep, [&*format!("h.{block}.mlp.c_proj.weight")]), number);
    assert!(Frozen::named(&deep, [&*format!("h.{block}.mlp.c_fc.bias")]).is_ok());
    assert_eq!(Frozen::NONE.with(Frozen::MOST), number);
    assert!(!Frozen::NONE.has(usize::MAX));
    let all = frozen(&config, &names(&config, |_| true));
    let result = Plan::new(&config, &Options { frozen: all, ..Options::new(1) });
    assert_eq!(result, Err(Error::Zero { what: "trained parameters" }));

    let names = names(&config, |name| name.starts_with('w'));
    let mut session = Session::with(&config, &Options { frozen: frozen(&config, &names), ..Options::new(1) });
    let (given, wanted) = (session.plan.frozen() - 1, session.plan.frozen());
    session.frozen.pop();
    let error = Error::Length { what: "frozen parameters", given, wanted };
    let Session { plan, parameters, frozen, gradients, optimizer, workspace, batch } = &mut session;
    let mut generation = vec![0.0; plan.generation()];
    let result = Generator::new(plan, InstructionSet::detect(), parameters, frozen, &mut generation, batch);
    assert_eq!(result.err(), Some(error));
    let pass = jostle::Pass {
        compute: jostle::Compute::serial(),
        plan,
        parameters,
        frozen,
        tokens: &[1],
        shape: Shape { sequences: 1, length: 1 },
        dropout: None,
    };
    assert_eq!(pass.forward(workspace), Err(error));
    let memory = jostle::Buffers { parameters, frozen, gradients, optimizer, workspace, batch };
    let recipe = recipe(Optimizer::ADAMW);
    let result = jostle::Trainer::new(plan, &recipe, memory, jostle::Compute::serial());
    assert_eq!(result.err(), Some(error));
    let contents = Contents {
        parameters: &session.parameters,
        frozen: &session.frozen,
        optimizer: None,
        progress: Progress { step: 0, seed: 0 },
        metadata: &[],
    };
    assert_eq!(checkpoint::write(&mut [0; 100_000], &session.plan, &contents), Err(error));
}
