//! The numerical contract for every switch of the Llama family.

use jostle::{Buffers, Compute, Frozen, Gradients, Pass};

use super::common::assert_same_bits;
use super::switches::models;
use super::*;

const STEPS: usize = 12;

/// Parameters and optimizer state after some steps, by whole steps or in pieces.
fn trained(
    config: &Config,
    recipe: &Recipe,
    options: Options,
    simd: InstructionSet,
    poll: bool,
) -> [Vec<f32>; 2] {
    let session = session_after(STEPS, config, recipe, options, simd, poll);
    [session.parameters, session.optimizer]
}

#[track_caller]
fn assert_same(found: &[Vec<f32>; 2], wanted: &[Vec<f32>; 2], what: &str) {
    assert_same_bits(&found[0], &wanted[0], format_args!("{what}, parameters"));
    assert_same_bits(&found[1], &wanted[1], format_args!("{what}, optimizer"));
}

#[test]
fn bits_are_equal_on_every_instruction_set_and_number_of_threads() {
    for (name, config) in models() {
        let expected = trained(&config, &recipe(), Options::new(4), InstructionSet::PORTABLE, false);
        assert!(expected[0].iter().all(|x| x.is_finite()), "{name}");
        for simd in instruction_sets() {
            for threads in [1, 2, 3] {
                let found = trained(&config, &recipe(), Options { threads, ..Options::new(4) }, simd, false);
                assert_same(&found, &expected, &format!("{name}, {}, {threads} threads", simd.name()));
            }
        }
    }
}

#[test]
fn micro_batches_pieces_and_recomputation_change_no_bit() {
    let simd = InstructionSet::detect();
    for (name, config) in models() {
        let expected = trained(&config, &recipe(), Options::new(6), simd, false);
        for (batch, accumulate, threads, recompute, poll) in
            [(3, 2, 1, false, false), (1, 6, 2, true, false), (2, 3, 1, true, true), (6, 1, 1, false, true)]
        {
            let recipe = Recipe { accumulate, ..recipe() };
            let options = Options { threads, recompute, ..Options::new(batch) };
            let found = trained(&config, &recipe, options, simd, poll);
            assert_same(&found, &expected, &format!("{name}, {options:?}"));
        }
    }
}

#[test]
fn a_fused_update_changes_no_bit() {
    for (name, config) in models() {
        for (optimizer, batch) in [(Optimizer::ADAMW, 1), (PLAIN, 3)] {
            let recipe = Recipe { optimizer, clip: None, ..recipe() };
            let simd = InstructionSet::detect();
            let expected = trained(&config, &recipe, Options::new(batch), simd, false);
            let sets = instruction_sets().into_iter().map(|simd| (simd, 1, false, false));
            for (simd, threads, recompute, poll) in
                sets.chain([(simd, 2, false, false), (simd, 3, true, true)])
            {
                let options = Options { threads, recompute, fused: true, ..Options::new(batch) };
                let found = trained(&config, &recipe, options, simd, poll);
                assert_same(&found, &expected, &format!("{name}, {options:?}, {}", simd.name()));
            }
        }
    }
}

/// Whole matrices of a product that is computed at once, and single ones of it.
#[test]
fn frozen_tensors_change_no_bit_of_the_other_gradients() {
    let tokens: Vec<i32> = text(27).iter().take(71).map(|token| i32::from(*token)).collect();
    let (tokens, targets, shape) = (&tokens[..70], &tokens[1..], Shape { sequences: 2, length: 35 });
    for (name, config) in models() {
        let gradients = |options: Options, simd| {
            let mut session = Session::with(&config, &options);
            session.initialize(5);
            let Session { plan, parameters, frozen, gradients, workspace, .. } = &mut session;
            let parallel = Threads(options.threads);
            let compute = Compute { simd, parallel: &parallel };
            let pass = Pass { compute, plan, parameters, frozen, tokens, shape, dropout: None };
            pass.backward(gradients, Gradients::Overwrite, workspace, targets, 70).unwrap();
            session.gradients
        };
        let simd = InstructionSet::detect();
        let all = gradients(Options::new(2), simd);
        let ends: [&[&str]; 5] = [
            &["q_proj.weight", "q_proj.bias"],
            &["k_proj.weight", "gate_proj.weight"],
            &["v_proj.weight", "v_proj.bias", "up_proj.weight", "q_norm.weight"],
            &["proj.weight", "norm.weight"],
            &[
                "0.self_attn.q_proj.weight",
                "0.self_attn.o_proj.weight",
                "1.mlp.down_proj.weight",
                "tokens.weight",
            ],
        ];
        for ends in ends {
            let whole = Plan::new(&config, &Options::new(2)).unwrap();
            let names: Vec<String> = whole.tensors().map(|tensor| tensor.name.to_string()).collect();
            let names =
                names.iter().map(String::as_str).filter(|name| ends.iter().any(|end| name.ends_with(end)));
            let frozen = Frozen::named(&config, names).unwrap();
            for threads in [1, 3] {
                let options = Options { frozen, threads, ..Options::new(2) };
                let wanted = session::part(&Plan::new(&config, &options).unwrap(), &all, false);
                assert_same_bits(
                    &gradients(options, simd),
                    &wanted,
                    format_args!("{name}, {ends:?}, {threads}"),
                );
            }
        }
    }
}

#[test]
fn a_resumed_run_has_the_bits_of_one_never_stopped() {
    for (name, config) in models() {
        let (recipe, simd, text) = (recipe(), InstructionSet::detect(), text(27));
        let expected = trained(&config, &recipe, Options::new(2), simd, false);
        let mut first = Session::new(&config, &recipe, 2, 1);
        first.train(&recipe, simd, &Serial, &text, 0, 5);
        let bytes = saved(&first, 5, recipe.seed);
        let saved = checkpoint::Checkpoint::new(&bytes).unwrap();
        assert_eq!(saved.config().unwrap().derived(), config.derived(), "{name}");
        let mut second = Session::new(&config, &recipe, 2, 1);
        let Session { plan, parameters, optimizer, .. } = &mut second;
        saved.read(plan, parameters, Some(optimizer)).unwrap();
        second.train(&recipe, simd, &Serial, &text, 5, STEPS - 5);
        assert_same(&[second.parameters, second.optimizer], &expected, name);

        // Another switch is another model, even where all shapes are the same.
        for other in [
            Config { rope: Rope { theta: 3e4, ..config.rope }, ..config },
            Config { rope: Rope { factor: 2.0, ..config.rope }, ..config },
            Config { kv_heads: config.heads, head_width: config.head_width() + 2, ..config },
        ] {
            // Another width of heads makes a GPT-2 a Llama, which lacks its adapters.
            let Ok(plan) = Plan::new(&other, &Options::new(1)) else { continue };
            assert!(saved.check(&plan, false).is_err(), "{name}");
        }
    }
}

#[test]
fn cached_generation_has_the_bits_of_the_full_pass() {
    let tokens: Vec<i32> = text(27).iter().skip(100).take(50).map(|token| i32::from(*token)).collect();
    for (name, config) in models() {
        let mut session = Session::new(&config, &recipe(), 4, 1);
        session.train(&recipe(), InstructionSet::detect(), &Serial, &text(27), 0, 5);
        for simd in instruction_sets() {
            for lumps in [[1; 40].as_slice(), &[7, 20, 1, 1, 9], &[34, 4, 1]] {
                let (mut memory, mut window) = (vec![f32::NAN; session.plan.generation()], vec![0; 35]);
                let (plan, parameters) = (session.plan, session.parameters.clone());
                let mut generator =
                    Generator::new(&plan, simd, &parameters, &[], &mut memory, &mut window).unwrap();
                let mut fed = 0;
                for lump in lumps {
                    let found = bits(generator.feed(&tokens[fed..fed + lump]).unwrap());
                    fed += lump;
                    let seen = &tokens[fed.saturating_sub(35)..fed];
                    let expected = full_logits(&mut session, simd, seen);
                    assert!(found == expected, "{name}, {} after {fed} tokens in {lumps:?}", simd.name());
                }
            }
        }
    }
}

#[test]
fn every_switch_changes_the_loss() {
    let tokens: Vec<i32> = text(27).iter().take(36).map(|token| i32::from(*token)).collect();
    let loss = |config: &Config| {
        let mut session = Session::new(config, &recipe(), 1, 1);
        session.initialize(9);
        // Norms and biases begin at values that change nothing.
        for (i, x) in session.parameters.iter_mut().enumerate() {
            *x = 20.0 * *x + 0.1 + 1e-3 * (i % 17) as f32;
        }
        session.loss(InstructionSet::detect(), &tokens[..35], &tokens[1..]).mean()
    };
    let base = Config { layers: 1, ..models()[0].1 };
    let usual = loss(&base);
    let rope = base.rope;
    let scaled = Rope { factor: 4.0, original_context: 200, ..rope };
    let others = [
        Config { norm: Norm::Layer, ..base },
        Config { norm_epsilon: 0.1, ..base },
        Config { positions: Positions::Learned, ..base },
        Config { rope: Rope { theta: 100.0, ..rope }, ..base },
        Config { rope: scaled, ..base },
        Config { rope: Rope { low_freq_factor: 0.5, ..scaled }, ..base },
        Config { rope: Rope { high_freq_factor: 30.0, ..scaled }, ..base },
        Config { rope: Rope { original_context: 150, ..scaled }, ..base },
        Config { kv_heads: 3, ..base },
        Config { head_width: 8, ..base },
        Config { qkv_bias: true, ..base },
        Config { bias: true, ..base },
        Config { qk_norm: true, ..base },
        Config { activation: Activation::Gelu, ..base },
        Config { tied: false, ..base },
        Config { initial_std: 0.05, ..base },
    ];
    let mut losses: Vec<f32> = others.iter().map(loss).collect();
    losses.push(usual);
    for (i, loss) in losses.iter().enumerate() {
        assert!(loss.is_finite());
        assert!(losses[..i].iter().all(|other| other != loss), "number {i} has the loss of another");
    }
}

#[test]
fn scratch_is_enough_for_any_llama() {
    let mut random = Random::new(22);
    for case in 0..100 {
        let kv_heads = random.size(1, 3);
        let (vocab, context) = (random.size(2, 200), random.size(1, 100));
        let config = Config {
            head_width: 2 * random.size(1, 20),
            tied: case % 2 == 0,
            bias: case % 3 == 0,
            qk_norm: case % 5 == 0,
            dropout: Dropout::all(0.1),
            ..Config::llama(
                vocab,
                context,
                1,
                kv_heads * random.size(1, 3),
                kv_heads,
                random.size(1, 60),
                random.size(1, 100),
            )
        };
        let fused = case % 4 == 1;
        let recipe = Recipe { clip: None, ..recipe() };
        let options = Options { threads: random.size(1, 3), fused, ..Options::new(random.size(1, 8)) };
        let text: Vec<i32> = (0..400).map(|_| random.size(0, vocab - 1) as i32).collect();
        let mut session = Session::with(&config, &options);
        session.initialize(case);
        let parallel = Threads(options.threads);
        let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &parallel);
        trainer.step(&text[..]).unwrap();
        let Buffers { parameters, .. } = trainer.buffers();
        assert!(parameters.iter().all(|x| x.is_finite()), "{config:?}");
        let (mut memory, mut window) = (vec![f32::NAN; session.plan.generation()], vec![0; context]);
        let simd = InstructionSet::detect();
        let mut generator =
            Generator::new(&session.plan, simd, &session.parameters, &[], &mut memory, &mut window).unwrap();
        assert!(generator.feed(&text[..context]).unwrap().iter().all(|x| x.is_finite()), "{config:?}");
    }
}
