//! Generates with the KV cache: each new token is computed once, and has the logits of a full pass, bit for bit.
//!
//! The parameters are random here. `jostle::checkpoint::Checkpoint` reads trained ones from a file.
//!
//! ```text
//! cargo run --release -p jostle --example generate
//! ```

use jostle::{ByteTokenizer, Config, Error, Generator, InstructionSet, Options, Plan, Sampling, initialize};

pub(crate) fn main() -> Result<(), Error> {
    let config = Config::new(ByteTokenizer.vocab(), 64, 2, 4, 64);
    let plan = Plan::new(&config, &Options::new(1))?;
    let simd = InstructionSet::detect();
    let mut parameters = vec![0.0; plan.parameters()];
    initialize(simd, &plan, &mut parameters, 1337)?;

    // `memory` holds the cache: a key and a value for each layer and position.
    let mut memory = vec![0.0; plan.generation()];
    let mut window = vec![0; config.context];
    let mut order = vec![0; config.vocab];
    let mut generator = Generator::new(&plan, simd, &parameters, &[], &mut memory, &mut window)?;

    // The prompt enters at once, then token by token what the model draws.
    let mut text = [0; 40];
    let prompt = ByteTokenizer.encode(b"Once upon a time", &mut text)?;
    let sampling = Sampling { top_k: Some(40), top_p: Some(0.95), ..Sampling::new(0.8) };
    generator.feed(&text[..prompt])?;
    for place in prompt..text.len() {
        // A token is a function of the logits, the seed and its number.
        text[place] = generator.draw(&sampling, &mut order, 7, place as u64)?;
        generator.feed(&text[place..=place])?;
    }
    let mut bytes = [0; 40];
    ByteTokenizer.decode(&text, &mut bytes)?;
    println!("{}", String::from_utf8_lossy(&bytes));

    // The next token's logits: from the cache, and from the whole text anew.
    let last = text.len() - 1;
    generator.clear();
    generator.feed(&text[..last])?;
    let cached = generator.feed(&text[last..])?.to_vec();
    generator.clear();
    let whole = generator.feed(&text)?;
    assert!(cached.iter().zip(whole).all(|(a, b)| a.to_bits() == b.to_bits()));
    println!("the logits from the cache have the bits of a full pass");

    // Beyond the context the window slides: the model sees the last 64 tokens.
    for number in 0..100 {
        let token = generator.draw(&Sampling::GREEDY, &mut order, 7, number)?;
        generator.feed(&[token])?;
    }
    assert_eq!(generator.filled(), config.context);
    Ok(())
}
