//! Mismatched sizes inside the engine reach the caller as an error, in release builds too. This is a test binary of its own,
//! because calls in other threads may be blamed for a fault.

#[path = "common/mod.rs"]
mod common;

use jostle::{
    Buffers, Compute, Config, Dropout, Error, Generator, Gradients, InstructionSet, Optimizer, Options, Pass,
    Plan, Recipe, Schedule, Serial, Shape, Trainer,
};

/// A plan with another configuration than it was made for, which safe code cannot have. Its buffers have the planned
/// lengths, but the tensors of the altered configuration do not fit into them.
fn altered(fused: bool) -> Plan {
    let config = Config { dropout: Dropout::all(0.1), ..Config::new(11, 8, 2, 2, 8) };
    let mut plan = Plan::new(&config, &Options { fused, ..Options::new(2) }).unwrap();
    let offset = core::ptr::from_ref(plan.config()).addr() - (&raw const plan).addr();
    // SAFETY: a plan contains its configuration at that offset.
    unsafe { (*(&raw mut plan).byte_add(offset).cast::<Config>()).hidden *= 2 };
    plan
}

fn is_internal(error: Error) -> bool {
    matches!(error, Error::Internal { operation } if !operation.is_empty() && error.to_string().contains(operation))
}

#[test]
fn mismatched_sizes_are_an_error_of_every_call() {
    let mut sets: Vec<_> = common::instruction_sets();
    sets.push(InstructionSet::PORTABLE);
    for simd in sets {
        let (plan, compute) = (altered(false), Compute { simd, parallel: &Serial });
        let parameters = vec![0.1; plan.parameters()];
        let (mut gradients, mut workspace) = (vec![0.0; plan.gradients()], vec![0.0; plan.workspace()]);
        let (tokens, shape) = ([1; 16], Shape { sequences: 2, length: 8 });
        let pass = Pass {
            compute,
            plan: &plan,
            parameters: &parameters,
            frozen: &[],
            tokens: &tokens,
            shape,
            dropout: None,
        };
        assert!(is_internal(pass.forward(&mut workspace).unwrap_err()), "{}", simd.name());
        assert!(is_internal(pass.loss(&mut workspace, &tokens).unwrap_err()));
        let backward = pass.backward(&mut gradients, Gradients::Overwrite, &mut workspace, &tokens, 16);
        assert!(is_internal(backward.unwrap_err()));

        let (mut memory, mut window) = (vec![0.0; plan.generation()], vec![0; plan.config().context]);
        let mut generator = Generator::new(&plan, simd, &parameters, &[], &mut memory, &mut window).unwrap();
        assert!(is_internal(generator.feed(&[1, 2]).unwrap_err()));
    }
}

#[test]
fn mismatched_sizes_end_a_step() {
    for fused in [false, true] {
        let plan = altered(fused);
        let recipe = Recipe {
            optimizer: Optimizer::ADAMW,
            schedule: Schedule::constant(1e-3),
            clip: None,
            accumulate: 1,
            seed: 1,
        };
        let mut parameters = vec![0.1; plan.parameters()];
        let (mut gradients, mut optimizer) = (vec![0.0; plan.gradients()], vec![0.0; plan.optimizer()]);
        let (mut workspace, mut batch) = (vec![0.0; plan.workspace()], vec![0; plan.batch()]);
        let buffers = Buffers {
            parameters: &mut parameters,
            frozen: &[],
            gradients: &mut gradients,
            optimizer: &mut optimizer,
            workspace: &mut workspace,
            batch: &mut batch,
        };
        let mut trainer = Trainer::new(&plan, &recipe, buffers, Compute::serial()).unwrap();
        assert!(is_internal(trainer.step(&[3_u8; 100][..]).unwrap_err()), "fused: {fused}");
        let pieces = trainer.pieces_per_step();
        let error = (0..pieces).find_map(|_| trainer.poll(&[3_u8; 100][..]).err());
        assert!(is_internal(error.unwrap()), "fused: {fused}");
    }
}
