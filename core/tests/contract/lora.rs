//! Adapters over a frozen base: its memory, its bits, and the gradients of adapters.

use jostle::{DropoutKey, Gradients, Lora, LowRank, Pass};

use super::common::{assert_same_bits, compute};
use super::session::part;
use super::switches::{lora, lora_gpt2};
use super::*;

const STEPS: usize = 10;

/// Models with adapters, and whether dropout acts on their inputs.
fn models() -> Vec<(&'static str, Config)> {
    let llama = Config { dropout: Dropout::all(0.2), ..Config::llama(27, 35, 2, 6, 2, 36, 50) };
    let gpt2 = Config { hidden: 50, dropout: Dropout::all(0.2), ..Config::new(27, 35, 2, 3, 24) };
    let few = Lora { q: LowRank::new(3, 6.0), v: LowRank::new(3, 6.0), ..Lora::NONE };
    vec![
        ("llama", Config { lora: lora(), ..llama }),
        ("llama without dropout", Config { lora: Lora { dropout: 0.0, ..lora() }, ..llama }),
        ("queries and values", Config { lora: few, tied: false, ..llama }),
        ("GPT-2", Config { lora: lora_gpt2(), ..gpt2 }),
        ("GPT-2 without dropout", Config { lora: Lora { dropout: 0.0, ..lora_gpt2() }, ..gpt2 }),
    ]
}

fn frozen(config: &Config) -> Frozen {
    Frozen::base(config, []).unwrap()
}

/// Parameters after some steps that train the adapters alone.
fn trained(config: &Config, recipe: &Recipe, options: Options, simd: InstructionSet, poll: bool) -> Vec<f32> {
    let options = Options { frozen: frozen(config), ..options };
    session_after(STEPS, config, recipe, options, simd, poll).parameters
}

#[test]
fn training_adapters_has_equal_bits_in_every_way() {
    let fastest = InstructionSet::detect();
    for (name, config) in models() {
        let recipe = Recipe { clip: None, ..recipe() };
        let expected = trained(&config, &recipe, Options::new(6), InstructionSet::PORTABLE, false);
        assert!(expected.iter().all(|x| x.is_finite()), "{name}");
        let sets = instruction_sets().into_iter().map(|simd| (simd, 6, Options::new(6), false));
        let usual = Options::new(6);
        let ways = [
            (6, Options { threads: 2, ..usual }, true),
            (6, Options { threads: 3, recompute: true, ..usual }, false),
            (6, Options { fused: true, ..usual }, false),
            (6, Options { head_rows: 9, threads: 2, ..usual }, false),
            (6, Options { fused: true, recompute: true, threads: 3, ..usual }, true),
            (2, Options { recompute: true, ..usual }, true),
            (1, Options { threads: 2, ..usual }, false),
        ];
        for (simd, batch, options, poll) in
            sets.chain(ways.map(|(b, options, poll)| (fastest, b, options, poll)))
        {
            let recipe = Recipe { accumulate: 6 / batch, ..recipe };
            let found = trained(&config, &recipe, Options { batch, ..options }, simd, poll);
            assert_same_bits(
                &found,
                &expected,
                format_args!("{name}, {}, {batch}, {options:?}", simd.name()),
            );
        }
    }
}

/// Each operation is large enough to be shared, and some workers' rows begin within a sequence.
#[test]
fn workers_that_share_an_adapter_have_the_bits_of_one() {
    let recipe = Recipe { optimizer: PLAIN, clip: None, ..recipe() };
    let simd = InstructionSet::detect();
    for dropout in [0.0, 0.3] {
        let lora = Lora { dropout, ..lora() };
        let config = Config { lora, dropout: Dropout::all(0.2), ..Config::llama(27, 61, 2, 8, 2, 80, 300) };
        let expected = trained(&config, &recipe, Options::new(1), simd, false);
        for threads in [2, 5] {
            for (fused, recompute) in [(false, false), (true, true)] {
                let options = Options { threads, fused, recompute, ..Options::new(1) };
                let found = trained(&config, &recipe, options, simd, false);
                assert_same_bits(&found, &expected, format_args!("{options:?} {dropout}"));
            }
        }
    }
}

#[test]
fn a_frozen_base_changes_no_bit_of_the_adapters_gradients() {
    let tokens: Vec<i32> = text(27).iter().take(71).map(|token| i32::from(*token)).collect();
    for (name, config) in models() {
        let gradients = |options: Options| {
            let mut session = Session::with(&config, &options);
            session.initialize(5);
            // Gradients of A are zero while B is.
            for x in &mut session.parameters {
                *x += 0.01;
            }
            for x in &mut session.frozen {
                *x += 0.01;
            }
            let Session { plan, parameters, frozen, gradients, workspace, .. } = &mut session;
            let shape = Shape { sequences: 2, length: 35 };
            let dropout = Some(DropoutKey { seed: 3, step: 1, first_sequence: 0 });
            let compute = jostle::Compute::serial();
            let pass = Pass { compute, plan, parameters, frozen, tokens: &tokens[..70], shape, dropout };
            pass.backward(gradients, Gradients::Overwrite, workspace, &tokens[1..], 70).unwrap();
            session.gradients
        };
        let all = gradients(Options::new(2));
        let options = Options { frozen: frozen(&config), ..Options::new(2) };
        let found = gradients(options);
        let plan = Plan::new(&config, &options).unwrap();
        assert_same_bits(&found, &part(&plan, &all, false), name);
        for tensor in plan.tensors().filter(|tensor| !tensor.frozen) {
            let gradient = &found[tensor.offset..][..tensor.len()];
            assert!(gradient.iter().any(|x| *x != 0.0), "{name}: no gradient of {}", tensor.name);
        }
    }
}

/// With one set of masks the loss is a smooth function, also where dropout acts on the inputs of adapters.
#[test]
fn gradients_are_the_slopes_of_the_loss_with_dropout() {
    let tokens: Vec<i32> = text(27).iter().take(71).map(|token| i32::from(*token)).collect();
    for (name, config) in models() {
        let config = Config { dropout: Dropout::NONE, ..config };
        let options = Options { frozen: frozen(&config), ..Options::new(2) };
        let mut session = Session::with(&config, &options);
        session.initialize(8);
        let mut random = Random::new(5);
        session.frozen.iter_mut().chain(&mut session.parameters).for_each(|x| *x += 0.3 * random.number());
        let Session { plan, parameters, frozen, gradients, workspace, .. } = &mut session;
        let shape = Shape { sequences: 2, length: 35 };
        let mut pass = |parameters: &[f32], gradients: Option<&mut [f32]>| {
            let dropout = Some(DropoutKey { seed: 3, step: 1, first_sequence: 0 });
            let compute = compute(InstructionSet::detect(), &Threads(1));
            let pass = Pass { compute, plan, parameters, frozen, tokens: &tokens[..70], shape, dropout };
            let loss = match gradients {
                Some(gradients) => {
                    pass.backward(gradients, Gradients::Overwrite, workspace, &tokens[1..], 70)
                }
                None => pass.loss(workspace, &tokens[1..]),
            };
            loss.unwrap().sum / 70.0
        };
        pass(parameters, Some(gradients));
        for tensor in plan.tensors().filter(|tensor| !tensor.frozen) {
            // Along the signs of the gradient, so that the slope is large.
            let range = tensor.offset..tensor.offset + tensor.len();
            let slope: f64 = gradients[range.clone()].iter().map(|g| f64::from(g.abs())).sum();
            let step = 1e-3 / (tensor.len() as f32).sqrt();
            let mut moved = |direction: f32| {
                let mut x = parameters.clone();
                for (x, g) in x[range.clone()].iter_mut().zip(&gradients[range.clone()]) {
                    *x += direction * step * g.signum();
                }
                pass(&x, None)
            };
            let found = (moved(1.0) - moved(-1.0)) / f64::from(2.0 * step);
            assert!((found - slope).abs() < 0.01 * slope, "{name}, {}: {found} {slope}", tensor.name);
        }
    }
}

#[test]
fn a_fresh_adapter_has_the_bits_of_the_base() {
    let tokens: Vec<i32> = text(27).iter().take(70).map(|token| i32::from(*token)).collect();
    let shape = Shape { sequences: 2, length: 35 };
    for (name, config) in models() {
        let mut session = Session::with(&config, &Options { frozen: frozen(&config), ..Options::new(2) });
        session.initialize(4);
        let mut base = Session::with(&Config { lora: Lora::NONE, ..config }, &Options::new(2));
        base.parameters.clone_from(&session.frozen);
        for simd in instruction_sets() {
            let (found, wanted) = (session.logits(simd, &tokens, shape), base.logits(simd, &tokens, shape));
            assert_same_bits(&found, &wanted, format_args!("{name}, {}", simd.name()));
        }
        for (tensor, x) in session
            .plan
            .tensors()
            .filter(|tensor| !tensor.frozen)
            .map(|tensor| (tensor, &session.parameters[tensor.offset..][..tensor.len()]))
        {
            let bound = 1.0 / (tensor.shape[1] as f32).sqrt();
            let is_b = tensor.name.to_string().ends_with("lora_B.weight");
            let mean = x.iter().map(|x| x.abs()).sum::<f32>() / x.len() as f32;
            assert!(x.iter().all(|x| x.abs() <= bound), "{name}, {}", tensor.name);
            assert!(if is_b { mean == 0.0 } else { (mean / bound - 0.5).abs() < 0.2 }, "{}", tensor.name);
        }
    }
}

#[test]
fn adapters_generate_from_the_cache_with_the_bits_of_the_full_pass() {
    let tokens: Vec<i32> = text(27).iter().skip(100).take(40).map(|token| i32::from(*token)).collect();
    for (name, config) in models() {
        let options = Options { frozen: frozen(&config), fused: true, ..Options::new(2) };
        let recipe = Recipe { clip: None, ..recipe() };
        let simd = InstructionSet::detect();
        let mut session = session_after(STEPS, &config, &recipe, options, simd, false);
        let (mut memory, mut window) = (vec![f32::NAN; session.plan.generation()], vec![0; 35]);
        let (plan, parameters, frozen) = (session.plan, session.parameters.clone(), session.frozen.clone());
        let mut generator =
            Generator::new(&plan, simd, &parameters, &frozen, &mut memory, &mut window).unwrap();
        for (first, count) in [(0, 1), (1, 20), (21, 1), (22, 18)] {
            let found = bits(generator.feed(&tokens[first..first + count]).unwrap());
            let seen = &tokens[(first + count).saturating_sub(35)..first + count];
            assert!(found == full_logits(&mut session, simd, seen), "{name} after {}", first + count);
        }
    }
}

/// The base has no gradients and no state. Each adapter keeps 2r numbers a row and block.
#[test]
fn a_frozen_base_takes_no_memory_of_training() {
    for (name, config) in models() {
        let without = Config { lora: Lora::NONE, ..config };
        let base = Plan::new(&without, &Options::new(3)).unwrap();
        for recompute in [false, true] {
            let plan = |config, frozen| {
                Plan::new(config, &Options { frozen, recompute, ..Options::new(3) }).unwrap()
            };
            let adapted = plan(&config, frozen(&config));
            assert_eq!(adapted.frozen(), base.parameters(), "{name}");
            assert_eq!(adapted.gradients(), adapted.parameters());
            assert_eq!(adapted.optimizer(), 2 * adapted.parameters());
            let Lora { qkv, q, k, v, o, gate, up, down, .. } = config.lora;
            let ranks: usize = [qkv, q, k, v, o, gate, up, down].iter().map(|module| module.rank).sum();
            // Embeddings are frozen, but the first block is trained.
            let kept = if recompute { 1 } else { config.layers };
            let unfrozen = plan(&without, Frozen::NONE);
            let rows = 3 * config.context;
            assert_eq!(adapted.activations() - unfrozen.activations(), 2 * rows * ranks * kept);
        }
    }
}

#[test]
fn a_rank_above_a_side_or_without_its_matrix_is_refused() {
    let llama = Config::llama(27, 8, 1, 4, 2, 16, 24);
    let gpt2 = Config::new(27, 8, 1, 4, 16);
    let rank = |rank| LowRank::new(rank, 8.0);
    let none = Lora::NONE;
    for (config, what, lora) in [
        (llama, "lora_q_rank", Lora { q: rank(17), ..none }),
        (llama, "lora_k_rank", Lora { k: rank(9), ..none }),
        (llama, "lora_down_rank", Lora { down: rank(17), ..none }),
        (llama, "lora_qkv_rank", Lora { qkv: rank(1), ..none }),
        (gpt2, "lora_v_rank", Lora { v: rank(1), ..none }),
        (gpt2, "lora_gate_rank", Lora { gate: rank(1), ..none }),
        (gpt2, "lora_up_alpha", Lora { up: LowRank::new(2, f32::NAN), ..none }),
        (gpt2, "lora_o_alpha", Lora { o: LowRank::new(2, f32::INFINITY), ..none }),
        (gpt2, "lora_dropout", Lora { dropout: 1.0, ..none }),
    ] {
        match (Config { lora, ..config }).validate() {
            Err(Error::Range { what: named, .. }) => assert_eq!(named, what),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(Config { lora: Lora { q: rank(16), k: rank(8), ..none }, ..llama }.validate(), Ok(()));
    assert_eq!(Config { lora: Lora { qkv: rank(16), ..none }, ..gpt2 }.validate(), Ok(()));
}

/// What stays trained is named; what a base lacks is not found.
#[test]
fn tensors_of_the_base_can_stay_trained() {
    let config = Config { lora: lora(), ..Config::llama(27, 8, 2, 6, 2, 36, 50) };
    let names = ["model.norm.weight", "model.layers.1.input_layernorm.weight"];
    let frozen = Frozen::base(&config, names).unwrap();
    let plan = Plan::new(&config, &Options { frozen, ..Options::new(1) }).unwrap();
    for tensor in plan.tensors() {
        let name = tensor.name.to_string();
        assert_eq!(!tensor.frozen, tensor.is_adapter() || names.contains(&name.as_str()), "{name}");
        assert_eq!(tensor.is_adapter(), name.contains(".lora_"));
    }
    assert_eq!(Frozen::base(&config, ["lm_head.weight"]), Err(Error::Name { index: 0 }));
}
