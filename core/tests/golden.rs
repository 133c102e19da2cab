//! The engine against PyTorch: logits, loss, every gradient, and twenty steps of training, for models of odd
//! shapes. `golden/make.py` writes and describes the files in `golden/`.
//!
//! | quantity | error | tolerance | largest error of PyTorch's own f32 |
//! |---|---|---|---|
//! | logits | of all, in norm | [`LOGITS`] | 4e-7 |
//! | gradients | of each tensor, in norm | [`GRADIENTS`] | 2e-6, where a norm's sums cancel |
//! | losses | of the worst step | [`LOSSES`] | 2e-7 |
//! | norms | of the worst step | [`NORMS`] | 5e-6, in the Llama family |
//!
//! All errors are relative, and against f64. Each tolerance is a few times PyTorch's error, because the engine sums in
//! another order. AdamW lets rounding errors grow with the steps, but only slightly. It may turn a small gradient's noise
//! into a whole step, but then the loss hardly depends on that parameter. [`every_setting_matters`] tests that wrong
//! settings exceed the tolerances.

use std::fmt::Display;
use std::str::FromStr;

use jostle::fields::{Field, Value};
use jostle::{Activation, Compute, Config, Frozen, Options, Plan, Shape};
use jostle::{Gradients, Pass};
use jostle::{Optimizer, clip_factor, gradient_norm};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

const LOGITS: f64 = 2e-6;
const GRADIENTS: f64 = 5e-6;
const LOSSES: f64 = 1e-6;
const NORMS: f64 = 2e-5;

/// Updates in a golden file.
const STEPS: usize = 20;

/// One test for each golden file.
macro_rules! cases {
    ($($name:ident)*) => {
        const CASES: &[(&str, &[u8])] =
            &[$((stringify!($name), include_bytes!(concat!("golden/", stringify!($name), ".safetensors")))),*];

        $(#[test]
        fn $name() {
            check(stringify!($name), false);
            check(stringify!($name), true);
        })*
    };
}

cases! {
    gpt2 hidden large_vocab
    llama_biases llama_gqa llama_layer_swiglu llama_learned llama_mha llama_narrow_heads llama_one_kv_head llama_qk_norm
    llama_qkv_bias llama_rotary_gelu llama_scaling llama_three_tiles llama_two_tiles llama_untied llama_wide_heads
    lora_gpt2 lora_gqa lora_qwen2
    no_bias_untied one_token three_heads three_layers three_tiles two_tiles
}

// The engine's interface.

/// The engine, with buffers for one model.
struct Engine {
    plan: Plan,
    shape: Shape,
    /// The parameters that adapters do not train.
    frozen: Vec<f32>,
    workspace: Vec<f32>,
}

impl Engine {
    fn new(golden: &Golden, settings: &Settings, recompute: bool) -> Engine {
        let shape = Shape { sequences: settings.batch, length: settings.length };
        let config = &settings.config;
        let frozen = if config.lora.is_none() { Frozen::NONE } else { Frozen::base(config, []).unwrap() };
        let options = Options { recompute, frozen, ..Options::new(settings.batch) };
        let plan = Plan::new(config, &options).unwrap();
        let frozen = golden.values(&plan, "", true);
        // NaN, which shows a read before the first write.
        Engine { plan, shape, frozen, workspace: vec![f32::NAN; plan.workspace()] }
    }

    fn pass<'a>(&'a self, parameters: &'a [f32], tokens: &'a [i32]) -> Pass<'a> {
        let Engine { plan, shape, frozen, .. } = self;
        Pass { compute: Compute::serial(), plan, parameters, frozen, tokens, shape: *shape, dropout: None }
    }

    fn logits(&mut self, parameters: &[f32], tokens: &[i32]) -> Vec<f32> {
        let mut workspace = std::mem::take(&mut self.workspace);
        self.pass(parameters, tokens).forward(&mut workspace).unwrap();
        self.workspace = workspace;
        self.plan.logits(&mut self.workspace, self.shape).unwrap().to_vec()
    }

    /// The loss as evaluation computes it.
    fn loss(&mut self, parameters: &[f32], tokens: &[i32], targets: &[i32]) -> f32 {
        let mut workspace = std::mem::take(&mut self.workspace);
        let loss = self.pass(parameters, tokens).loss(&mut workspace, targets).unwrap();
        self.workspace = workspace;
        loss.mean()
    }

    /// The loss as training computes it, and the gradients.
    fn gradients(&mut self, parameters: &[f32], tokens: &[i32], targets: &[i32]) -> (f32, Vec<f32>) {
        let counted = targets.iter().filter(|target| **target != -1).count();
        let mut gradients = vec![f32::NAN; self.plan.gradients()];
        let mut workspace = std::mem::take(&mut self.workspace);
        let pass = self.pass(parameters, tokens);
        let loss =
            pass.backward(&mut gradients, Gradients::Overwrite, &mut workspace, targets, counted).unwrap();
        self.workspace = workspace;
        assert_eq!(loss.counted, counted);
        (loss.mean(), gradients)
    }

    /// Losses and norms of twenty steps.
    fn train(&mut self, settings: &Settings, golden: &Golden) -> (Vec<f32>, Vec<f32>) {
        let &Settings { beta1, beta2, epsilon, weight_decay, learning_rate, clip, .. } = settings;
        let optimizer = Optimizer::AdamW { beta1, beta2, epsilon, weight_decay };
        let compute = Compute::serial();
        let mut x = golden.values(&self.plan, "", false);
        let mut state = vec![0.0; self.plan.optimizer()];
        let (tokens, targets) = (golden.i32s("train_tokens"), golden.i32s("train_targets"));
        let rows = self.shape.rows();
        let batches = tokens.chunks_exact(rows).zip(targets.chunks_exact(rows));
        let steps = (0..).zip(batches).map(|(step, (tokens, targets))| {
            let (loss, gradients) = self.gradients(&x, tokens, targets);
            let norm = gradient_norm(compute, &gradients);
            let factor = clip_factor(norm, clip);
            optimizer
                .update(compute, &self.plan, &mut x, &gradients, &mut state, step, learning_rate, factor)
                .unwrap();
            (loss, norm)
        });
        steps.unzip()
    }
}

/// One golden file.
struct Golden {
    tensors: SafeTensors<'static>,
    metadata: Metadata,
}

/// The model of a golden file, and how it was trained.
#[derive(Clone, Copy)]
struct Settings {
    config: Config,
    batch: usize,
    length: usize,
    learning_rate: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    clip: f32,
}

impl Golden {
    fn read(name: &str) -> Golden {
        let (_, bytes) = CASES.iter().find(|case| case.0 == name).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
        Golden { tensors: SafeTensors::deserialize(bytes).unwrap(), metadata }
    }

    fn field(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref().and_then(|metadata| metadata.get(key)).map(String::as_str)
    }

    fn text(&self, key: &str) -> &str {
        self.field(key).unwrap_or_else(|| panic!("no {key}"))
    }

    fn value<T: FromStr>(&self, key: &str) -> T {
        self.text(key).parse().unwrap_or_else(|_| panic!("{key} is {}", self.text(key)))
    }

    fn settings(&self) -> Settings {
        let mut config = Config::new(1, 1, 1, 1, 1);
        for field in Field::ALL {
            let Some(text) = self.field(field.name()) else { continue };
            let wrong = |()| panic!("{} is {text}", field.name());
            match config.value(*field) {
                Value::Size(x) | Value::DerivedSize(x) => *x = self.value(field.name()),
                Value::Rate(x) | Value::Fraction(x) | Value::Positive(x) => *x = self.value(field.name()),
                Value::Flag(x) => *x = self.value(field.name()),
                Value::Choice(choice) => {
                    let number = choice.names().iter().position(|name| *name == text).ok_or(());
                    choice.choose(number.unwrap_or_else(wrong)).unwrap();
                }
            }
        }
        Settings {
            config,
            batch: self.value("batch"),
            length: self.value("length"),
            learning_rate: self.value("learning_rate"),
            beta1: self.value("beta1"),
            beta2: self.value("beta2"),
            epsilon: self.value("epsilon"),
            weight_decay: self.value("weight_decay"),
            clip: self.value("clip"),
        }
    }

    fn words(&self, name: &str, dtype: Dtype) -> (Vec<usize>, impl Iterator<Item = [u8; 4]>) {
        let tensor = self.tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        (tensor.shape().to_vec(), tensor.data().as_chunks::<4>().0.iter().copied())
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        self.words(name, Dtype::F32).1.map(f32::from_le_bytes).collect()
    }

    fn i32s(&self, name: &str) -> Vec<i32> {
        self.words(name, Dtype::I32).1.map(i32::from_le_bytes).collect()
    }

    /// The trained or the frozen parameters (or, with prefix `grad.`, gradients) in the engine's order.
    fn values(&self, plan: &Plan, prefix: &str, frozen: bool) -> Vec<f32> {
        let mut all = vec![f32::NAN; if frozen { plan.frozen() } else { plan.parameters() }];
        for tensor in plan.tensors().filter(|tensor| tensor.frozen == frozen) {
            let name = format!("{prefix}{}", tensor.name);
            assert_eq!(self.words(&name, Dtype::F32).0, tensor.shape[..tensor.rank], "{name}");
            all[tensor.offset..tensor.offset + tensor.len()].copy_from_slice(&self.f32s(&name));
        }
        all
    }
}

/// The norm of the difference relative to the norm of the reference.
fn relative_error(given: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(given.len(), wanted.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut given.iter().zip(wanted).map(|(x, y)| f64::from(*x) - f64::from(*y)));
    let size = norm(&mut wanted.iter().map(|y| f64::from(*y)));
    assert!(size > 0.0, "the reference is zero: nothing can be wrong about it");
    difference / size
}

/// The largest relative error of any element; NaN if any element is NaN.
fn worst_element(given: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(given.len(), wanted.len());
    let errors = given.iter().zip(wanted).map(|(x, y)| relative_error(&[*x], &[*y]));
    errors.fold(0.0, |worst, error| if worst.is_nan() || error <= worst { worst } else { error })
}

/// An error, and the name of its quantity.
struct Measured {
    error: f64,
    tolerance: f64,
    what: String,
}

impl Measured {
    fn new(what: impl Display, error: f64, tolerance: f64) -> Measured {
        Measured { error, tolerance, what: what.to_string() }
    }

    /// The error in units of its tolerance. Above 1, or NaN, is a failure.
    fn used(&self) -> f64 {
        self.error / self.tolerance
    }
}

/// `recompute` is an option of the plan.
fn check(name: &str, recompute: bool) {
    let golden = Golden::read(name);
    let settings = golden.settings();
    let mut engine = Engine::new(&golden, &settings, recompute);
    let parameters = golden.values(&engine.plan, "", false);
    let (tokens, targets) = (golden.i32s("tokens"), golden.i32s("targets"));
    let mut measured = Vec::new();

    let logits = engine.logits(&parameters, &tokens);
    measured.push(Measured::new("logits", relative_error(&logits, &golden.f32s("logits")), LOGITS));

    let evaluated = engine.loss(&parameters, &tokens, &targets);
    let (loss, gradients) = engine.gradients(&parameters, &tokens, &targets);
    for (what, loss) in [("evaluated loss", evaluated), ("loss", loss)] {
        measured.push(Measured::new(what, relative_error(&[loss], &golden.f32s("loss")), LOSSES));
    }
    let wanted = golden.values(&engine.plan, "grad.", false);
    for tensor in engine.plan.tensors().filter(|tensor| !tensor.frozen) {
        let range = tensor.offset..tensor.offset + tensor.len();
        let error = relative_error(&gradients[range.clone()], &wanted[range]);
        measured.push(Measured::new(format_args!("grad.{}", tensor.name), error, GRADIENTS));
    }

    let (losses, norms) = engine.train(&settings, &golden);
    measured.push(Measured::new("losses", worst_element(&losses, &golden.f32s("losses")), LOSSES));
    measured.push(Measured::new("norms", worst_element(&norms, &golden.f32s("norms")), NORMS));

    let error_of = |what: &str| measured.iter().find(|m| m.what == what).unwrap().error;
    let gradients = measured.iter().filter(|m| m.what.starts_with("grad."));
    let worst = gradients.max_by(|a, b| a.error.total_cmp(&b.error)).unwrap();
    println!(
        "{name}: logits {:.1e}, losses {:.1e}, norms {:.1e}, worst gradient {:.1e} ({})",
        error_of("logits"),
        error_of("losses"),
        error_of("norms"),
        worst.error,
        worst.what,
    );
    let too_far = measured.iter().filter(|m| m.used().is_nan() || m.used() > 1.0);
    let too_far: Vec<_> =
        too_far.map(|m| format!("{}: {:.1e} > {:.0e}", m.what, m.error, m.tolerance)).collect();
    assert!(too_far.is_empty(), "{name}, relative errors: {too_far:#?}");
}

/// Every golden file is tested, holds exactly the model's tensors, and clips some steps and not others.
#[test]
fn files_are_complete() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_golden = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "safetensors");
    let mut names: Vec<_> = files
        .filter(is_golden)
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, CASES.iter().map(|case| case.0).collect::<Vec<_>>());

    for name in names {
        let golden = Golden::read(&name);
        let settings = golden.settings();
        let plan = Engine::new(&golden, &settings, false).plan;
        let others =
            ["tokens", "targets", "logits", "loss", "train_tokens", "train_targets", "losses", "norms"];
        let mut wanted: Vec<_> = others.map(String::from).to_vec();
        wanted.extend(plan.tensors().map(|t| t.name.to_string()));
        wanted.extend(plan.tensors().filter(|t| !t.frozen).map(|t| format!("grad.{}", t.name)));
        wanted.sort();
        let mut given = golden.tensors.names();
        given.sort_unstable();
        assert_eq!(given, wanted, "{name}");

        let norms = golden.f32s("norms");
        assert_eq!(norms.len(), STEPS, "{name}");
        let clipped = norms.iter().filter(|norm| **norm > settings.clip).count();
        assert!((1..STEPS).contains(&clipped), "{name}: {clipped} steps are clipped");
    }
}

/// Changing any one setting exceeds the tolerance, so the tests above would notice it.
#[test]
fn every_setting_matters() {
    type Change = fn(&mut Settings);
    let changes: [(&str, Change); 11] = [
        ("activation", |s| {
            s.config.activation = match s.config.activation {
                Activation::Gelu => Activation::GeluTanh,
                _ => Activation::Gelu,
            }
        }),
        ("lora_q_alpha", |s| s.config.lora.q.alpha *= 1.01),
        ("lora_rslora", |s| s.config.lora.rslora = !s.config.lora.rslora),
        ("norm_epsilon", |s| s.config.norm_epsilon *= 2.0),
        ("learning_rate", |s| s.learning_rate *= 1.001),
        ("beta1", |s| s.beta1 -= 0.001),
        ("beta2", |s| s.beta2 -= 0.002),
        ("epsilon", |s| s.epsilon *= 1.1),
        ("weight_decay", |s| s.weight_decay *= 0.9),
        ("clip", |s| s.clip *= 1.01),
        ("no clip", |s| s.clip = f32::INFINITY),
    ];
    for (setting, change) in changes {
        let seen = CASES.iter().any(|(name, _)| {
            let golden = Golden::read(name);
            let mut settings = golden.settings();
            change(&mut settings);
            let (losses, _) = Engine::new(&golden, &settings, false).train(&settings, &golden);
            worst_element(&losses, &golden.f32s("losses")) > LOSSES
        });
        assert!(seen, "no golden file tells a wrong {setting}");
    }
}

/// The checks themselves notice a difference, and NaN.
#[test]
fn errors_are_seen() {
    assert_eq!(relative_error(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
    assert_eq!(relative_error(&[0.0, 4.0], &[3.0, 4.0]), 0.6);
    assert_eq!(worst_element(&[2.0, 3.0], &[2.0, 4.0]), 0.25);
    assert!(worst_element(&[f32::NAN, 4.0], &[2.0, 4.0]).is_nan());
    let nan = Measured::new("", relative_error(&[f32::NAN], &[1.0]), LOGITS).used();
    assert!(nan.is_nan());
}

#[test]
#[should_panic(expected = "the reference is zero")]
fn a_zero_reference_fails() {
    relative_error(&[0.0], &[0.0]);
}

#[test]
#[should_panic(expected = "left == right")]
fn a_wrong_length_fails() {
    relative_error(&[1.0], &[1.0, 2.0]);
}
