//! The founding ideas in a small example: words are tokens, and the model learns that "snows" follows "I like to ski when
//! it".

#[path = "common/reference.rs"]
mod reference;
#[path = "common/session.rs"]
mod session;

use jostle::{
    Activation, Compute, Config, Frozen, Gradients, InstructionSet, Options, Pass, Plan, Recipe, Serial,
    Shape,
};
use session::{Session, part, places};

const WORDS: [&str; 7] = ["I", "like", "to", "ski", "when", "it", "snows"];
const SENTENCE: &str = "I like to ski when it snows";

fn config() -> Config {
    Config::new(WORDS.len(), 6, 2, 2, 10)
}

fn recipe() -> Recipe {
    session::recipe(1e-2, 1337)
}

fn sentence() -> Vec<i32> {
    let number = |word| WORDS.iter().position(|known| *known == word).unwrap() as i32;
    SENTENCE.split(' ').map(number).collect()
}

/// The most probable word after the first six.
fn prediction(session: &mut Session) -> (&'static str, f32) {
    let shape = Shape { sequences: 1, length: 6 };
    let mut logits = session.logits(InstructionSet::detect(), &sentence()[..6], shape);
    let last = &mut logits[5 * WORDS.len()..];
    jostle::ops::softmax::forward(InstructionSet::detect(), last, WORDS.len()).unwrap();
    let (word, probability) = last.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    (WORDS[word], *probability)
}

/// Nothing is frozen; or the embeddings and the first block; or both weights of the second MLP.
fn choices(config: &Config) -> [Frozen; 3] {
    let plan = Plan::new(config, &Options::new(1)).unwrap();
    let names: Vec<String> = plan.tensors().map(|tensor| tensor.name.to_string()).collect();
    [&[][..], &["wte.", "wpe.", "h.0."], &["h.1.mlp.c_fc.weight", "h.1.mlp.c_proj.weight"]].map(|frozen| {
        let is_frozen = |name: &&str| frozen.iter().any(|begin| name.starts_with(begin));
        Frozen::named(config, names.iter().map(String::as_str).filter(is_frozen)).unwrap()
    })
}

#[test]
fn after_training_the_model_says_snows_and_before_it_does_not() {
    let [none, first, products] = choices(&config());
    learns(&config(), none);
    learns(&Config { tied: false, ..config() }, first);
    learns(&config(), products);
}

fn learns(config: &Config, frozen: Frozen) {
    let mut session = Session::with(config, &Options { frozen, ..Options::new(1) });
    session.initialize(1337);
    assert_ne!(prediction(&mut session).0, "snows");
    let kept = session.frozen.clone();
    let words = sentence();
    let (tokens, targets) = (&words[..6], &words[1..]);
    let first = session.loss(InstructionSet::detect(), tokens, targets).mean();
    let recipe = recipe();
    let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
    for _ in 0..100 {
        let shape = Shape { sequences: 1, length: 6 };
        let loss = trainer.accumulate(tokens, targets, shape, 6).unwrap();
        trainer.update(loss).unwrap();
    }
    let (word, probability) = prediction(&mut session);
    assert_eq!(word, "snows");
    assert!(probability > 0.9, "{probability}");
    let last = session.loss(InstructionSet::detect(), tokens, targets).mean();
    assert!(last < 0.1 * first, "the loss went from {first} to {last}");
    assert_eq!(session.frozen, kept);
}

#[test]
fn parameters_begin_as_different_random_values_by_gpt2s_scheme() {
    let config = Config::new(500, 64, 3, 4, 64);
    let mut session = Session::new(&config, &recipe(), 1, 1);
    session.initialize(1);
    for tensor in session.plan.tensors() {
        let name = tensor.name.to_string();
        let values = &session.parameters[tensor.offset..tensor.offset + tensor.len()];
        if tensor.rank == 2 {
            let n = values.len() as f64;
            let deviation = if name.ends_with("c_proj.weight") { 0.02 / 6.0_f64.sqrt() } else { 0.02 };
            let moment =
                |power: i32| values.iter().map(|x| (f64::from(*x) / deviation).powi(power)).sum::<f64>() / n;
            // Five standard errors of each moment of a normal distribution.
            let within =
                |found: f64, wanted: f64, variance: f64| (found - wanted).abs() < 5.0 * (variance / n).sqrt();
            assert!(within(moment(1), 0.0, 1.0), "{name}: mean {}", moment(1));
            assert!(within(moment(2), 1.0, 2.0), "{name}: variance {}", moment(2));
            assert!(within(moment(4), 3.0, 96.0), "{name}: fourth moment {}", moment(4));
            let mut sorted: Vec<u32> = values.iter().map(|x| x.to_bits()).collect();
            sorted.sort_unstable();
            sorted.dedup();
            assert!(sorted.len() as f64 > 0.98 * n, "{name}: many equal values");
        } else {
            let wanted = if name.contains("ln_") && name.ends_with("weight") { 1.0 } else { 0.0 };
            assert!(values.iter().all(|x| *x == wanted), "{name}");
        }
    }
    let before = session.parameters.clone();
    session.initialize(2);
    assert_ne!(before[..100], session.parameters[..100]);
}

/// Parameters without special values: biases differ from 0, norms from 1.
fn varied(plan: &Plan) -> Vec<f32> {
    let mut rng = jostle::rng::generator(5, jostle::rng::Stream::Initialization, 0, 0);
    let mut x = vec![0.0; plan.parameters()];
    x.fill_with(|| 0.6 * (jostle::rng::uniform(&mut rng) - 0.5));
    for tensor in plan.tensors().filter(|tensor| tensor.role() == jostle::Role::NormWeight) {
        x[tensor.offset..tensor.offset + tensor.len()].iter_mut().for_each(|x| *x += 1.0);
    }
    x
}

#[test]
fn every_gradient_agrees_with_a_finite_difference() {
    let words = sentence();
    let (tokens, mut targets) = (words[..6].to_vec(), words[1..].to_vec());
    targets[2] = -1;
    let configs = [
        config(),
        Config { tied: false, activation: Activation::GeluTanh, hidden: 17, ..config() },
        Config { bias: false, ..config() },
    ];
    for (config, frozen) in configs.iter().flat_map(|config| choices(config).map(|frozen| (config, frozen))) {
        let mut session = Session::with(config, &Options { frozen, ..Options::new(1) });
        let whole = session::whole(&session.plan);
        let all = varied(&whole);
        session.parameters = part(&session.plan, &all, false);
        session.frozen = part(&session.plan, &all, true);
        let Session { plan, parameters, frozen, gradients, workspace, .. } = &mut session;
        let shape = Shape { sequences: 1, length: 6 };
        let (compute, tokens) = (Compute::serial(), &tokens);
        let pass = Pass { compute, plan, parameters, frozen, tokens, shape, dropout: None };
        let loss = pass.backward(gradients, Gradients::Overwrite, workspace, &targets, 5).unwrap();
        assert_eq!(loss.counted, 5);

        let mut x: Vec<f64> = all.iter().map(|x| f64::from(*x)).collect();
        let reference = |x: &[f64]| reference::loss(config, &whole, x, tokens, &targets);
        let error = (f64::from(loss.mean()) - reference(&x)).abs();
        assert!(error < 1e-6, "loss off by {error}");
        for (tensor, place) in places(plan).into_iter().filter(|(tensor, _)| !tensor.frozen) {
            let gradients = &gradients[tensor.offset..][..tensor.len()];
            let mut scale = 0.0_f64;
            let mut worst = (0.0_f64, 0);
            for (i, gradient) in (place.offset..).zip(gradients) {
                const STEP: f64 = 1e-5;
                let value = x[i];
                x[i] = value + STEP;
                let above = reference(&x);
                x[i] = value - STEP;
                let below = reference(&x);
                x[i] = value;
                let difference = (above - below) / (2.0 * STEP);
                scale = scale.max(difference.abs());
                let error = (difference - f64::from(*gradient)).abs();
                if !(error <= worst.0) {
                    worst = (error, i);
                }
            }
            assert!(scale > 1e-6, "{}: the gradient is zero throughout", tensor.name);
            // Single precision has 6e-8, and loses a digit in a few dozen operations.
            assert!(worst.0 < 2e-6 * scale.max(0.05), "{}: off by {worst:?} of {scale}", tensor.name);
        }
    }
}
