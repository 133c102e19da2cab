//! Mismatched sizes inside the engine: bare metal reports no fault, but nothing is written out of bounds.

use jostle::{
    Buffers, Compute, Config, Error, InstructionSet, Optimizer, Options, Plan, Recipe, Schedule, Trainer,
    initialize,
};

/// The guard on both sides of each buffer.
const GUARD: usize = 16;
const MARK: f32 = -7.5;

/// Trains for a step by a plan with another configuration than it was made for, which safe code cannot have: tensors do not
/// fit into their buffers. Whether the step ends, and the elements around the buffers are as they were.
pub fn stays_in_bounds() -> Result<bool, Error> {
    const PLAN: Plan = match Plan::new(&Config::new(27, 8, 1, 2, 8), &Options::new(2)) {
        Ok(plan) => plan,
        Err(_) => panic!("not a model"),
    };
    let mut plan = PLAN;
    let offset = core::ptr::from_ref(plan.config()).addr() - (&raw const plan).addr();
    // SAFETY: a plan contains its configuration at that offset.
    unsafe { (*(&raw mut plan).byte_add(offset).cast::<Config>()).hidden *= 2 };
    let mut parameters = [MARK; PLAN.parameters() + 2 * GUARD];
    let mut gradients = [MARK; PLAN.gradients() + 2 * GUARD];
    let mut optimizer = [MARK; PLAN.optimizer() + 2 * GUARD];
    let mut workspace = [MARK; PLAN.workspace() + 2 * GUARD];
    let mut batch = [0; PLAN.batch()];
    fn inside(buffer: &mut [f32]) -> &mut [f32] {
        let end = buffer.len() - GUARD;
        &mut buffer[GUARD..end]
    }
    initialize(InstructionSet::PORTABLE, &PLAN, inside(&mut parameters), 1)?;
    inside(&mut optimizer).fill(0.0);
    let recipe = Recipe {
        optimizer: Optimizer::ADAMW,
        schedule: Schedule::constant(1e-3),
        clip: None,
        accumulate: 1,
        seed: 1,
    };
    let buffers = Buffers {
        parameters: inside(&mut parameters),
        frozen: &[],
        gradients: inside(&mut gradients),
        optimizer: inside(&mut optimizer),
        workspace: inside(&mut workspace),
        batch: &mut batch,
    };
    let text = b"abcdefghijklmnopqrstuvwxyz and again".map(|byte| byte % 27);
    let ended = match Trainer::new(&plan, &recipe, buffers, Compute::serial())?.step(&text[..]) {
        Ok(_) | Err(Error::NotFinite { .. }) => true,
        Err(error) => return Err(error),
    };
    let is_untouched = |buffer: &[f32]| {
        let [start, end] = [&buffer[..GUARD], &buffer[buffer.len() - GUARD..]];
        start.iter().chain(end).all(|x| *x == MARK)
    };
    Ok(ended && [&parameters[..], &gradients, &optimizer, &workspace].into_iter().all(is_untouched))
}
