//! Every wrong argument has an error that names it, and nothing is written. `layout.rs` tests configurations.

mod common;
#[path = "common/session.rs"]
mod session;

use core::task::Poll;

use common::{Threads, bits};
use jostle::{
    Buffers, Compute, Config, Decay, Dropout, Error, Generator, Gradients, InstructionSet, Optimizer,
    OptimizerState, Options, Pass, Plan, Recipe, Sampling, Schedule, Serial, Shape, SpikeGuard, Trainer,
};
use session::Session;

fn config() -> Config {
    Config::new(11, 6, 2, 2, 8)
}

fn recipe() -> Recipe {
    session::recipe(1e-3, 1)
}

fn session() -> Session {
    let mut session = Session::new(&config(), &recipe(), 2, 1);
    session.initialize(1);
    session
}

const GUARD: f32 = 12345.5;

/// A slice of this length with guards on both sides.
fn guarded(length: usize) -> Vec<f32> {
    vec![GUARD; length + 32]
}

fn inner(buffer: &mut [f32]) -> &mut [f32] {
    let end = buffer.len() - 16;
    &mut buffer[16..end]
}

fn guards_stand(buffer: &[f32]) -> bool {
    let end = buffer.len() - 16;
    buffer[..16].iter().chain(&buffer[end..]).all(|x| *x == GUARD)
}

#[test]
fn recipes_out_of_range_are_refused_by_name() {
    let adamw =
        |beta1, beta2, epsilon, weight_decay| Optimizer::AdamW { beta1, beta2, epsilon, weight_decay };
    let with = |optimizer| Recipe { optimizer, ..recipe() };
    let nan = f32::NAN;
    for (recipe, named) in [
        (with(adamw(1.0, 0.9, 1e-8, 0.0)), "beta1"),
        (with(adamw(0.9, -0.5, 1e-8, 0.0)), "beta2"),
        (with(adamw(0.9, nan, 1e-8, 0.0)), "beta2"),
        (with(adamw(0.9, 0.9, 0.0, 0.0)), "epsilon"),
        (with(adamw(0.9, 0.9, 1e-8, -1.0)), "weight_decay"),
        (with(Optimizer::Sgd { momentum: 1.0 }), "momentum"),
        (Recipe { clip: Some(0.0), ..recipe() }, "clip"),
        (Recipe { clip: Some(nan), ..recipe() }, "clip"),
        (Recipe { accumulate: 0, ..recipe() }, "accumulate"),
        (Recipe { schedule: Schedule { peak: nan, ..Schedule::constant(1.0) }, ..recipe() }, "peak"),
        (
            Recipe {
                schedule: Schedule { peak: 1.0, warmup: 9, steps: 5, decay: Decay::Cosine { last: 0.0 } },
                ..recipe()
            },
            "warmup",
        ),
    ] {
        let message = recipe.validate().unwrap_err().to_string();
        assert!(message.contains(named), "{message:?} names {named}");
    }
}

#[test]
fn every_buffer_of_the_trainer_has_exactly_its_length() {
    for (recompute, fused) in [(false, false), (true, false), (false, true)] {
        let options = Options { recompute, fused, ..Options::new(2) };
        let clip = if fused { None } else { Some(1.0) };
        has_exactly_its_lengths(&Plan::new(&config(), &options).unwrap(), &Recipe { clip, ..recipe() });
    }
}

fn has_exactly_its_lengths(plan: &Plan, recipe: &Recipe) {
    let lengths = [plan.parameters(), plan.gradients(), plan.optimizer(), plan.workspace()];
    let names = ["parameters", "gradients", "optimizer state", "workspace"];
    for wrong in 0..5 {
        for by in [-1_isize, 1] {
            let length = |i: usize| lengths[i].wrapping_add_signed(if i == wrong { by } else { 0 });
            let mut buffers: Vec<Vec<f32>> = (0..4).map(|i| vec![GUARD; length(i)]).collect();
            let mut batch = vec![7; plan.batch().wrapping_add_signed(if wrong == 4 { by } else { 0 })];
            let (given, wanted) =
                if wrong == 4 { (batch.len(), plan.batch()) } else { (length(wrong), lengths[wrong]) };
            let what = names.get(wrong).copied().unwrap_or("batch");
            let [parameters, gradients, optimizer, workspace] = &mut buffers[..] else { unreachable!() };
            let memory =
                Buffers { parameters, frozen: &[], gradients, optimizer, workspace, batch: &mut batch };
            let result = Trainer::new(plan, recipe, memory, Compute::serial());
            assert_eq!(result.err(), Some(Error::Length { what, given, wanted }));
            assert!(buffers.iter().flatten().all(|x| *x == GUARD) && batch.iter().all(|x| *x == 7));
        }
    }
}

#[test]
fn the_exact_lengths_suffice_and_no_guard_is_touched() {
    for (threads, recompute, fused) in [
        (1, false, false),
        (2, false, false),
        (1, true, false),
        (2, true, false),
        (1, false, true),
        (2, true, true),
    ] {
        let options = Options { threads, recompute, fused, ..Options::new(2) };
        let recipe = Recipe { clip: if fused { None } else { Some(1.0) }, ..recipe() };
        let config = Config { dropout: Dropout::all(0.3), ..Config::new(65, 40, 2, 3, 33) };
        let plan = Plan::new(&config, &options).unwrap();
        let mut buffers =
            [plan.parameters(), plan.gradients(), plan.optimizer(), plan.workspace()].map(guarded);
        inner(&mut buffers[2]).fill(0.0);
        jostle::initialize(InstructionSet::detect(), &plan, inner(&mut buffers[0]), 1).unwrap();
        let mut batch = vec![7; plan.batch() + 2];
        let parallel = Threads(threads);
        {
            let [parameters, gradients, optimizer, workspace] = &mut buffers;
            let memory = Buffers {
                parameters: inner(parameters),
                frozen: &[],
                gradients: inner(gradients),
                optimizer: inner(optimizer),
                workspace: inner(workspace),
                batch: &mut batch[1..=plan.batch()],
            };
            let compute = Compute { simd: InstructionSet::detect(), parallel: &parallel };
            let mut trainer = Trainer::new(&plan, &recipe, memory, compute).unwrap();
            let text: Vec<u8> = (0..200).map(|i| (i * 7 % 65) as u8).collect();
            for _ in 0..3 {
                trainer.step(text.as_slice()).unwrap();
            }
            trainer.evaluate(text.as_slice()).unwrap();
        }
        assert!(buffers.iter().all(|buffer| guards_stand(buffer)));
        assert_eq!((batch[0], batch[plan.batch() + 1]), (7, 7));
        let mut memory = guarded(plan.generation());
        let mut window = vec![0; config.context];
        let parameters = inner(&mut buffers[0]).to_vec();
        let simd = InstructionSet::detect();
        let mut generator =
            Generator::new(&plan, simd, &parameters, &[], inner(&mut memory), &mut window).unwrap();
        generator.feed(&[1; 57]).unwrap();
        assert!(guards_stand(&memory));
    }
}

#[test]
fn a_pass_refuses_wrong_slices_and_tokens_and_writes_nothing() {
    for threads in [1, 2] {
        refuses_wrong_slices_and_tokens(&Threads(threads));
    }
}

fn refuses_wrong_slices_and_tokens(threads: &Threads) {
    let mut session = Session::new(&config(), &recipe(), 2, threads.0);
    session.initialize(1);
    let Session { plan, parameters, .. } = &mut session;
    let (plan, parameters) = (*plan, parameters.clone());
    let compute = Compute { simd: InstructionSet::detect(), parallel: threads };
    let good = vec![1; 12];
    let shape = |sequences, length| Shape { sequences, length };
    let with = |at: usize, token| {
        let mut tokens = good.clone();
        tokens[at] = token;
        tokens
    };
    let token = |index, token| Error::Token { index, token, vocab: 11 };
    let length = |what, given, wanted| Error::Length { what, given, wanted };
    let cases: [(Vec<i32>, Vec<i32>, Shape, Error); 12] = [
        (with(3, 11), good.clone(), shape(2, 6), token(3, 11)),
        (with(5, -1), good.clone(), shape(2, 6), token(5, -1)),
        (with(0, i32::MIN), good.clone(), shape(2, 6), token(0, i64::from(i32::MIN))),
        (good.clone(), with(7, 11), shape(2, 6), token(7, 11)),
        (good.clone(), with(7, -2), shape(2, 6), token(7, -2)),
        (good[1..].to_vec(), good.clone(), shape(2, 6), length("tokens", 11, 12)),
        (good.clone(), good[1..].to_vec(), shape(2, 6), length("targets", 11, 12)),
        (good.clone(), good.clone(), shape(1, 12), Error::Context { length: 12, context: 6 }),
        (good.clone(), good.clone(), shape(3, 4), Error::Plan { what: "that many sequences in one pass" }),
        (vec![], vec![], shape(0, 6), Error::Zero { what: "sequences" }),
        (vec![], vec![], shape(2, 0), Error::Zero { what: "length" }),
        (vec![], vec![], shape(usize::MAX, 0), Error::Zero { what: "length" }),
    ];
    for (tokens, targets, shape, error) in cases {
        let (mut gradients, mut workspace) = (vec![GUARD; plan.gradients()], vec![GUARD; plan.workspace()]);
        let pass = Pass {
            compute,
            plan: &plan,
            parameters: &parameters,
            frozen: &[],
            tokens: &tokens,
            shape,
            dropout: None,
        };
        let result = pass.backward(&mut gradients, Gradients::Add, &mut workspace, &targets, 12);
        assert_eq!(result, Err(error));
        assert_eq!(pass.loss(&mut workspace, &targets), Err(error));
        assert!(gradients.iter().chain(&workspace).all(|x| *x == GUARD), "{error}");
    }
    for (parameters, gradients, workspace) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
        let short = parameters;
        let parameters = vec![0.1; plan.parameters() - parameters];
        let mut gradients = vec![GUARD; plan.gradients() - gradients];
        let mut workspace = vec![GUARD; plan.workspace() - workspace];
        let (tokens, shape) = (&good, shape(2, 6));
        let pass =
            Pass { compute, plan: &plan, parameters: &parameters, frozen: &[], tokens, shape, dropout: None };
        let result = pass.backward(&mut gradients, Gradients::Add, &mut workspace, &good, 12);
        assert!(matches!(result, Err(Error::Length { given, wanted, .. }) if given + 1 == wanted), "{short}");
        assert!(gradients.iter().chain(&workspace).all(|x| *x == GUARD));
    }
}

#[test]
fn a_loss_or_norm_that_is_not_finite_changes_nothing() {
    let text = [1_u8, 2, 3, 4, 5, 6, 7, 8, 9];
    for (place, number) in [(0, 0), (config().vocab * 8 + 6 * 8, 3)] {
        let mut session = session();
        session.parameters[place + 8..place + 16].fill(f32::NAN);
        let (parameters, optimizer) = (bits(&session.parameters), bits(&session.optimizer));
        let recipe = recipe();
        let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
        trainer.skip();
        let error = trainer.step(text.as_slice()).unwrap_err();
        let Error::Diverged { step: 1, what: "loss", value, tensor } = error else { panic!("{error}") };
        assert!(value.is_nan() && tensor == Some(number), "{error}");
        assert_eq!(trainer.steps(), 1);
        assert!(matches!(trainer.evaluate(text.as_slice()), Err(Error::NotFinite { what: "loss", .. })));
        assert!(bits(&session.parameters) == parameters && bits(&session.optimizer) == optimizer);
    }
    // A finite loss whose gradient overflows.
    let mut session = session();
    let recipe = recipe();
    let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
    let shape = Shape { sequences: 1, length: 6 };
    let loss = trainer.accumulate(&[1; 6], &[2; 6], shape, 6).unwrap();
    trainer.buffers().gradients[3] = f32::INFINITY;
    let before = bits(trainer.buffers().parameters);
    let error = trainer.update(loss).unwrap_err();
    let (what, value) = ("gradient norm", f32::INFINITY);
    assert_eq!(error, Error::Diverged { step: 0, what, value, tensor: Some(0) });
    assert_eq!(trainer.steps(), 0);
    assert!(bits(trainer.buffers().parameters) == before);
}

/// A skipped step leaves everything as it is, and the next one is the next step of the run.
#[test]
fn a_step_can_be_skipped() {
    let text: Vec<u8> = (0..60_u16).map(|i| (i * i % 11) as u8).collect();
    let recipe = recipe();
    let mut session = session();
    let before = bits(&session.parameters);
    let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
    let shape = Shape { sequences: 1, length: 6 };
    trainer.accumulate(&[1; 6], &[2; 6], shape, 6).unwrap();
    trainer.skip();
    assert_eq!((trainer.steps(), trainer.accumulated()), (1, 0));
    assert!(bits(trainer.buffers().parameters) == before);
    let report = trainer.step(&text[..]).unwrap();
    assert_eq!(report.step, 1);
}

/// A window that is unlike all others has a loss far from theirs. The guard refuses it, in whole steps and in pieces.
#[test]
fn a_guard_refuses_spikes() {
    let calm: Vec<u8> = (0..60_u16).map(|i| (i % 3) as u8).collect();
    let wild = [9_u8; 60];
    let recipe = session::recipe(1e-2, 1);
    let mut session = session();
    let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
    let invalid = trainer.set_guard(Some(SpikeGuard::new(f32::NAN)));
    assert!(matches!(invalid, Err(Error::Range { what: "limit", .. })), "{invalid:?}");
    trainer.set_guard(Some(SpikeGuard::new(6.0))).unwrap();
    // The loss falls for a while, which the variance contains.
    for _ in 0..400 {
        trainer.step(&calm[..]).unwrap();
    }
    let (before, guard) = (bits(trainer.buffers().parameters), trainer.guard());
    let error = trainer.step(&wild[..]).unwrap_err();
    assert!(matches!(error, Error::Spike { step: 400, z, .. } if z > 6.0), "{error}");
    let error = loop {
        match trainer.poll(&wild[..]) {
            Ok(found) => assert_eq!(found, Poll::Pending),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Spike { step: 400, .. }), "{error}");
    assert!(bits(trainer.buffers().parameters) == before && trainer.guard() == guard);
    trainer.skip();
    assert_eq!(trainer.step(&calm[..]).unwrap().step, 401);
    trainer.set_guard(None).unwrap();
    trainer.step(&wild[..]).unwrap();
}

/// With -ffast-math, a C compiler links code that flushes denormal numbers to zero in every thread of the program.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_floating_point_mode_that_changes_bits_is_refused() {
    use std::arch::asm;
    let set_mode = |mode: u32| {
        // SAFETY: the mode has no effect on memory, and the test restores it.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &mode) };
    };
    let usual = 0x1F80;
    let mut refused = vec![];
    // Flushed results, flushed arguments, and rounding down, up and towards zero.
    for mode in [1 << 15, 1 << 6, 1 << 13, 2 << 13, 3 << 13, 0] {
        let (mut session, recipe) = (session(), recipe());
        set_mode(usual | mode);
        let error = session.try_trainer(&recipe, Compute::serial()).err();
        set_mode(usual);
        refused.push(error.map(|error| error.to_string()));
    }
    let [flushed, _, rounded, .., fine] = &refused[..] else { panic!() };
    assert!(
        refused[..2].iter().all(|error| error == flushed)
            && refused[2..5].iter().all(|error| error == rounded)
    );
    assert!(flushed.as_ref().unwrap().contains("flushed") && rounded.as_ref().unwrap().contains("rounding"));
    assert_eq!(*fine, None);
}

#[test]
fn what_needs_all_gradients_at_once_is_refused_where_the_update_is_fused() {
    let options = Options { fused: true, ..Options::new(2) };
    let refused =
        |recipe: Recipe| Session::with(&config(), &options).try_trainer(&recipe, Compute::serial()).err();
    assert_eq!(refused(recipe()), Some(Error::Fused { what: "clip" }));
    let recipe = Recipe { clip: None, ..recipe() };
    assert_eq!(refused(Recipe { accumulate: 2, ..recipe }), Some(Error::Fused { what: "accumulate" }));
    assert_eq!(refused(recipe), None);
    let mut session = Session::with(&config(), &options);
    session.initialize(1);
    let Session { plan, parameters, gradients, workspace, .. } = &mut session;
    let shape = Shape { sequences: 1, length: 6 };
    let compute = Compute::serial();
    let pass = Pass { compute, plan, parameters, frozen: &[], tokens: &[1; 6], shape, dropout: None };
    let result = pass.backward(gradients, Gradients::Add, workspace, &[2; 6], 6);
    assert_eq!(result, Err(Error::Fused { what: "backward" }));
    assert!(gradients.iter().chain(workspace.iter()).all(|x| x.is_nan()));
}

/// The loss is checked before anything changes. A gradient is checked only before its own tensor changes.
#[test]
fn a_fused_step_that_is_not_finite_says_what_has_changed() {
    let (text, options) = ([1_u8, 2, 3, 4, 5, 6, 7, 8, 9], Options { fused: true, ..Options::new(2) });
    let recipe = Recipe { clip: None, ..recipe() };
    let failed = |spoil: &dyn Fn(&Plan, &mut [f32]), poll: bool| {
        let mut session = Session::with(&config(), &options);
        session.initialize(1);
        spoil(&session.plan, &mut session.parameters);
        let before = bits(&session.parameters);
        let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
        let error = loop {
            let result =
                if poll { trainer.poll(&text[..]) } else { trainer.step(&text[..]).map(Poll::Ready) };
            match result {
                Ok(found) => assert!(found.is_pending(), "{found:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(
            (trainer.steps(), trainer.pieces()),
            (0, jostle::Pieces { squares: trainer.pieces().squares, ..Default::default() })
        );
        let changed =
            before.into_iter().zip(bits(&session.parameters)).map(|(before, after)| before != after);
        (error, changed.collect::<Vec<_>>(), session.plan)
    };
    for poll in [false, true] {
        let (error, changed, _) = failed(&|_, parameters| parameters[8..16].fill(f32::NAN), poll);
        assert!(matches!(error, Error::Diverged { what: "loss", tensor: Some(0), .. }), "{error}");
        assert!(changed.iter().all(|changed| !changed));
        // Activations so large that their products with gradients overflow, in the first block's MLP.
        let spoil = |plan: &Plan, parameters: &mut [f32]| {
            let mut fill = |name, value| {
                let tensor = plan.tensor(name).unwrap();
                parameters[tensor.offset..tensor.offset + tensor.len()].fill(value);
            };
            fill("h.0.mlp.c_fc.bias", 3e38);
            fill("h.0.mlp.c_proj.weight", 0.0);
        };
        let (error, changed, plan) = failed(&spoil, poll);
        let place = plan.tensors().position(|tensor| tensor.name.is("h.0.mlp.c_proj.weight")).unwrap();
        assert_eq!(error, Error::PartlyUpdated { tensor: place });
        for tensor in plan.tensors() {
            let name = tensor.name.to_string();
            // In an MLP, the projection's weight is updated first.
            let later = name.starts_with("h.1.") || name.starts_with("ln_f");
            let here = &changed[tensor.offset..tensor.offset + tensor.len()];
            assert_eq!(here.contains(&true), later, "{name}");
        }
    }
}

#[test]
fn texts_and_tokens_that_do_not_fit_are_refused() {
    let mut session = session();
    let recipe = recipe();
    let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
    for short in [0, 1, 6] {
        let error = trainer.step(&[1_u8; 7][..short]).unwrap_err();
        assert_eq!(error, Error::Data { given: short, wanted: 7 });
    }
    trainer.step(&[1_u8; 7][..]).unwrap();
    let error = trainer.step(&[200_u8; 20][..]).unwrap_err();
    assert!(matches!(error, Error::Token { token: 200, vocab: 11, .. }), "{error}");
    let error = trainer.evaluate(&[3_i32, -1, 4][..]).unwrap_err();
    assert!(matches!(error, Error::Token { token: -1, .. }), "{error}");
    assert_eq!(trainer.evaluate(&[3_u8][..]), Err(Error::Data { given: 1, wanted: 2 }));
    // The trainer still works.
    trainer.step(&[1_u8; 7][..]).unwrap();
    assert_eq!(trainer.steps(), 2);
}

#[test]
fn an_optimizer_needs_the_state_that_the_plan_reserved() {
    let sgd = Recipe { optimizer: Optimizer::Sgd { momentum: 0.0 }, ..recipe() };
    let mut session = session();
    let buffers = Buffers {
        parameters: &mut session.parameters,
        frozen: &[],
        gradients: &mut session.gradients,
        optimizer: &mut session.optimizer,
        workspace: &mut session.workspace,
        batch: &mut session.batch,
    };
    let result = Trainer::new(&session.plan, &sgd, buffers, Compute::serial());
    assert_eq!(result.err(), Some(Error::Plan { what: "this optimizer's state" }));
    let options = Options { optimizer: OptimizerState::None, ..Options::new(2) };
    assert_eq!(Plan::new(&config(), &options).unwrap().optimizer(), 0);
}

#[test]
fn a_generator_refuses_wrong_slices_and_tokens_and_keeps_its_text() {
    let session = session();
    let plan = session.plan;
    let simd = InstructionSet::detect();
    for (parameters, memory, window) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
        let parameters = vec![0.1; plan.parameters() - parameters];
        let mut memory = vec![GUARD; plan.generation() - memory];
        let mut window = vec![0; 6 - window];
        let result = Generator::new(&plan, simd, &parameters, &[], &mut memory, &mut window);
        assert!(matches!(result.err(), Some(Error::Length { given, wanted, .. }) if given + 1 == wanted));
        assert!(memory.iter().all(|x| *x == GUARD));
    }
    let (mut memory, mut window) = (vec![f32::NAN; plan.generation()], vec![0; 6]);
    let mut generator =
        Generator::new(&plan, simd, &session.parameters, &[], &mut memory, &mut window).unwrap();
    generator.feed(&[1, 2]).unwrap();
    assert_eq!(generator.feed(&[3, 11]).err(), Some(Error::Token { index: 1, token: 11, vocab: 11 }));
    assert_eq!(generator.feed(&[]).err(), Some(Error::Zero { what: "number of tokens" }));
    let after = bits(generator.feed(&[4]).unwrap());
    generator.clear();
    assert_eq!(bits(generator.feed(&[1, 2, 4]).unwrap()), after);
    let mut order = vec![0; 11];
    let greedy = generator.draw(&Sampling::GREEDY, &mut order, 1, 0).unwrap();
    assert!((0..11).contains(&greedy));
    assert!(generator.draw(&Sampling::new(-1.0), &mut order, 1, 0).is_err());
    assert!(generator.draw(&Sampling::GREEDY, &mut order[1..], 1, 0).is_err());
}
