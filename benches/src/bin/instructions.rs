//! Training steps with nothing around them, for `scripts/test/counts.sh` to count: on one thread, with dropout
//! 0.1 and AVX2.
//!
//! `instructions V,T,L,H,C,B steps`

use std::error::Error;

use jostle::{InstructionSet, Serial};
use jostle_benches::session::Session;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [sizes, steps] = &arguments[..] else { return Err("sizes and a number of steps".into()) };
    let sizes = sizes.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let mut session = Session::new(sizes.as_slice().try_into()?, 0.1, 1)?;
    let (mut trainer, text) = session.trainer(InstructionSet::named("avx2")?, &Serial)?;
    for _ in 0..steps.parse()? {
        trainer.step(text)?;
    }
    Ok(())
}
