//! The numerical contract of a chunked head.

use jostle::{Compute, Gradients, Pass};

use super::*;

/// A GPT-2, a vocabulary of several blocks, and models of the Llama family; heads that are tied and heads of their own.
fn models() -> Vec<Config> {
    let large = Config { vocab: 500, layers: 1, ..config() };
    let mut models = vec![config(), untied(), large, Config { tied: false, ..large }];
    models.extend(switches::models().into_iter().map(|(_, config)| config).step_by(2));
    models
}

#[test]
fn a_head_by_rows_has_the_bits_of_one_at_once() {
    for config in models() {
        for (optimizer, batch) in [(Optimizer::ADAMW, 1), (PLAIN, 3)] {
            let recipe = Recipe { optimizer, clip: None, ..recipe() };
            let simd = InstructionSet::detect();
            let steps = |options, simd, poll| {
                let session = session_after(8, &config, &recipe, options, simd, poll);
                (bits(&session.parameters), bits(&session.optimizer))
            };
            let expected = steps(Options::new(batch), simd, false);
            let sets = instruction_sets().into_iter().map(|simd| (simd, 16, 1, false, false));
            for (simd, head_rows, threads, recompute, fused) in sets.chain([
                (simd, 1, 1, false, true),
                (simd, 7, 2, true, false),
                (simd, 64, 3, false, true),
                (simd, 1000, 2, true, true),
            ]) {
                let options = Options { head_rows, threads, recompute, fused, ..Options::new(batch) };
                let found = steps(options, simd, fused && threads > 1);
                assert!(found == expected, "{} {options:?} {config:?}", simd.name());
            }
        }
    }
}

/// Micro-batches, ignored targets, frozen embeddings; and the loss without a backward pass.
#[test]
fn losses_and_gradients_of_a_head_by_rows_are_those_of_one_at_once() {
    let tokens: Vec<i32> = text(27).iter().take(71).map(|token| i32::from(*token)).collect();
    let mut targets = tokens[1..].to_vec();
    targets[3..20].fill(-1);
    let (tokens, targets, shape) = (&tokens[..70], &targets[..], Shape { sequences: 2, length: 35 });
    for config in models() {
        let whole = Plan::new(&config, &Options::new(2)).unwrap();
        let embeddings = whole.tensors().take(2).filter(|tensor| tensor.rank == 2);
        let names: Vec<String> = embeddings.map(|tensor| tensor.name.to_string()).collect();
        for frozen in [&[][..], &names[..]] {
            let frozen = Frozen::named(&config, frozen.iter().map(String::as_str)).unwrap();
            let run = |head_rows, threads, length| {
                let options = Options { head_rows, threads, frozen, ..Options::new(2) };
                let mut session = Session::with(&config, &options);
                session.initialize(5);
                let Session { plan, parameters, frozen, gradients, workspace, .. } = &mut session;
                let (simd, parallel) = (InstructionSet::detect(), Threads(threads));
                let (compute, shape) = (Compute { simd, parallel: &parallel }, Shape { length, ..shape });
                let (tokens, targets) = (&tokens[..shape.rows()], &targets[..shape.rows()]);
                let pass = Pass { compute, plan, parameters, frozen, tokens, shape, dropout: None };
                let mut losses = vec![pass.loss(workspace, targets).unwrap()];
                for mode in [Gradients::Overwrite, Gradients::Add] {
                    losses.push(pass.backward(gradients, mode, workspace, targets, 30).unwrap());
                }
                (losses, bits(gradients))
            };
            for length in [35, 11] {
                let expected = run(0, 1, length);
                for (head_rows, threads) in [(1, 1), (16, 2), (40, 3), (1000, 1)] {
                    assert!(run(head_rows, threads, length) == expected, "{head_rows} {config:?}");
                }
            }
        }
    }
}

#[test]
fn a_head_by_rows_takes_less_memory_and_has_no_logits() {
    let config = Config::llama(5000, 32, 2, 4, 2, 32, 64);
    let plan = |head_rows| Plan::new(&config, &Options { head_rows, ..Options::new(2) }).unwrap();
    let (all, some) = (plan(0), plan(16));
    // 48 of 64 rows of logits, but for four numbers a row, and a block of them that backward makes again.
    assert!(all.workspace() - some.workspace() > 46 * 5000);
    assert_eq!(some.recomputed(), 64 * 32 * 5000);
    let refused = Error::Plan { what: "the logits of all rows" };
    let shape = Shape { sequences: 1, length: 4 };
    let mut session = Session::with(&config, some.options());
    let Session { plan, parameters, frozen, workspace, .. } = &mut session;
    let pass =
        Pass { compute: Compute::serial(), plan, parameters, frozen, tokens: &[0; 4], shape, dropout: None };
    assert_eq!(pass.forward(workspace), Err(refused));
    assert_eq!(plan.logits(workspace, shape).err(), Some(refused));
}
