//! Layout and names of parameters, sizes of memory, and refused configurations.

use jostle::Role;
use jostle::{Config, Dropout, Error, Frozen, Lora, LowRank, OptimizerState, Options, Plan, Target, Tensor};

fn plan(config: &Config) -> Plan {
    Plan::new(config, &Options::new(1)).unwrap()
}

fn configurations() -> Vec<Config> {
    let mut configurations = Vec::new();
    for (bias, tied) in [(true, true), (true, false), (false, true), (false, false)] {
        for config in
            [Config::new(65, 32, 2, 2, 32), Config::new(1, 1, 1, 1, 1), Config::new(27, 16, 12, 3, 15)]
        {
            configurations.push(Config { bias, tied, ..config });
            configurations.push(Config { bias, tied, hidden: 7, ..config });
        }
    }
    configurations
}

/// Names and shapes as Hugging Face's GPT2LMHeadModel has them, without `transformer.`.
fn names_and_shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (c, f) = (config.width, config.hidden);
    let mut wanted: Vec<(String, Vec<usize>)> = Vec::new();
    let mut push = |name: String, shape: &[usize]| {
        if config.bias || !name.ends_with(".bias") {
            wanted.push((name, shape.to_vec()));
        }
    };
    push("wte.weight".into(), &[config.vocab, c]);
    push("wpe.weight".into(), &[config.context, c]);
    for layer in 0..config.layers {
        let tensors: [(&str, &[usize]); 12] = [
            ("ln_1.weight", &[c]),
            ("ln_1.bias", &[c]),
            ("attn.c_attn.weight", &[c, 3 * c]),
            ("attn.c_attn.bias", &[3 * c]),
            ("attn.c_proj.weight", &[c, c]),
            ("attn.c_proj.bias", &[c]),
            ("ln_2.weight", &[c]),
            ("ln_2.bias", &[c]),
            ("mlp.c_fc.weight", &[c, f]),
            ("mlp.c_fc.bias", &[f]),
            ("mlp.c_proj.weight", &[f, c]),
            ("mlp.c_proj.bias", &[c]),
        ];
        tensors.iter().for_each(|(name, shape)| push(format!("h.{layer}.{name}"), shape));
    }
    push("ln_f.weight".into(), &[c]);
    push("ln_f.bias".into(), &[c]);
    if !config.tied {
        push("lm_head.weight".into(), &[config.vocab, c]);
    }
    wanted
}

#[test]
fn tensors_have_hugging_faces_names_and_shapes() {
    for config in configurations() {
        let got: Vec<(String, Vec<usize>)> = plan(&config)
            .tensors()
            .map(|tensor| (tensor.name.to_string(), tensor.shape[..tensor.rank].to_vec()))
            .collect();
        assert_eq!(got, names_and_shapes(&config), "{config:?}");
    }
}

/// Names and shapes as PEFT's files have them, without the prefix.
#[test]
fn adapters_have_pefts_names_and_shapes() {
    let rank = |rank| LowRank::new(rank, 8.0);
    let gpt2 = Lora { qkv: rank(2), o: rank(3), up: rank(4), down: rank(5), ..Lora::NONE };
    let gpt2 = Config { lora: gpt2, hidden: 20, ..Config::new(9, 4, 2, 2, 8) };
    let llama = Lora { q: rank(1), k: rank(2), v: rank(3), o: rank(4), ..Lora::NONE };
    let llama = Lora { gate: rank(5), up: rank(6), down: rank(7), ..llama };
    let llama = Config { lora: llama, ..Config::llama(9, 4, 2, 4, 2, 16, 24) };
    let shapes = |config: &Config| {
        let plan = plan(config);
        let adapters = plan.tensors().filter(Tensor::is_adapter);
        adapters.map(|tensor| (tensor.name.to_string(), tensor.shape)).collect::<Vec<_>>()
    };
    let wanted = |prefix: &str, modules: &[(&str, usize, [usize; 2])]| {
        let mut wanted = Vec::new();
        for layer in 0..2 {
            for (name, rank, [inputs, outputs]) in modules {
                wanted.push((format!("{prefix}{layer}.{name}.lora_A.weight"), [*rank, *inputs]));
                wanted.push((format!("{prefix}{layer}.{name}.lora_B.weight"), [*outputs, *rank]));
            }
        }
        wanted
    };
    let modules = [
        ("attn.c_attn", 2, [8, 24]),
        ("attn.c_proj", 3, [8, 8]),
        ("mlp.c_fc", 4, [8, 20]),
        ("mlp.c_proj", 5, [20, 8]),
    ];
    assert_eq!(shapes(&gpt2), wanted("h.", &modules));
    let modules = [
        ("self_attn.q_proj", 1, [16, 16]),
        ("self_attn.k_proj", 2, [16, 8]),
        ("self_attn.v_proj", 3, [16, 8]),
        ("self_attn.o_proj", 4, [16, 16]),
        ("mlp.gate_proj", 5, [16, 24]),
        ("mlp.up_proj", 6, [16, 24]),
        ("mlp.down_proj", 7, [24, 16]),
    ];
    assert_eq!(shapes(&llama), wanted("model.layers.", &modules));

    // A frozen base saves the products of its gradients; the rest is three products of each matrix of an adapter.
    let cost = |config: &Config, frozen| {
        Plan::new(config, &Options { frozen, ..Options::new(3) }).unwrap().multiply_adds()
    };
    for config in [gpt2, llama] {
        let base = Config { lora: Lora::NONE, ..config };
        let all = Frozen::base(&config, []).unwrap();
        let elements: usize = plan(&config).tensors().filter(Tensor::is_adapter).map(|t| t.len()).sum();
        let added = cost(&config, Frozen::NONE) - cost(&base, Frozen::NONE);
        assert_eq!(added, 3 * 3 * 4 * elements);
        assert!(cost(&config, all) < cost(&config, Frozen::NONE));
    }
}

#[test]
fn a_tensor_is_found_by_its_whole_name_only() {
    for config in configurations() {
        let plan = plan(&config);
        for tensor in plan.tensors() {
            let name = tensor.name.to_string();
            assert_eq!(plan.tensor(&name), Some(tensor));
            assert_eq!(plan.tensor(&name[..name.len() - 1]), None);
            assert_eq!(plan.tensor(&format!("{name}s")), None);
        }
        for name in ["", "h.", "h.00.ln_1.weight", "h.+0.ln_1.weight", "ln_1.weight", "h.99.ln_1.weight"] {
            assert_eq!(plan.tensor(name), None, "{name}");
        }
    }
}

#[test]
fn tensors_follow_each_other_without_gaps_and_fill_the_parameters() {
    for config in configurations() {
        let plan = plan(&config);
        let mut end = 0;
        for tensor in plan.tensors() {
            assert_eq!(tensor.offset, end, "{}", tensor.name);
            assert!(!tensor.is_empty());
            assert_eq!(tensor.len(), tensor.shape[..tensor.rank].iter().product::<usize>());
            end += tensor.len();
        }
        assert_eq!(end, plan.parameters());
        assert_eq!(plan.gradients(), plan.parameters());
    }
}

#[test]
fn gpt2_has_as_many_parameters_as_published() {
    for (layers, heads, width, parameters) in [
        (12, 12, 768, 124_439_808),
        (24, 16, 1024, 354_823_168),
        (36, 20, 1280, 774_030_080),
        (48, 25, 1600, 1_557_611_200),
    ] {
        let plan = plan(&Config::new(50_257, 1024, layers, heads, width));
        assert_eq!(plan.parameters(), parameters);
        assert_eq!(plan.optimizer(), 2 * parameters);
    }
}

#[test]
fn each_tensor_has_its_role() {
    let plan = plan(&Config { tied: false, ..Config::new(5, 4, 2, 1, 3) });
    let names = |role| -> Vec<String> {
        let tensors = plan.tensors().filter(|tensor| tensor.role() == role);
        tensors.map(|tensor| tensor.name.to_string()).collect()
    };
    assert_eq!(names(Role::Embedding), ["wte.weight", "wpe.weight"]);
    let norms = ["h.0.ln_1.weight", "h.0.ln_2.weight", "h.1.ln_1.weight", "h.1.ln_2.weight", "ln_f.weight"];
    assert_eq!(names(Role::NormWeight), norms);
    let weights = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];
    let of_blocks = (0..2).flat_map(|layer| weights.map(|weight| format!("h.{layer}.{weight}.weight")));
    let weights: Vec<_> = of_blocks.chain(["lm_head.weight".to_owned()]).collect();
    assert_eq!(names(Role::Weight), weights);
    assert!(names(Role::Bias).iter().all(|name| name.ends_with(".bias")) && names(Role::Bias).len() == 13);
}

#[test]
fn a_plan_can_be_made_at_compile_time() {
    const PLAN: Plan = match Plan::new(&Config::new(27, 16, 1, 4, 16), &Options::new(2)) {
        Ok(plan) => plan,
        Err(_) => panic!("not a model"),
    };
    let parameters = [0.0_f32; PLAN.parameters()];
    // 27 * 16 + 16 * 16 + 12 * 16 * 16 + (3 + 1 + 4 + 1) * 16 biases + 6 norm vectors of 16.
    assert_eq!(parameters.len(), 432 + 256 + 3072 + 144 + 96);
    assert_eq!(PLAN.batch(), 2 * 2 * 16);
    assert_eq!(Plan::new(&Config::new(27, 16, 1, 4, 16), &Options::new(2)), Ok(PLAN));
    const REFUSED: Result<Plan, Error> = Plan::new(&Config::new(27, 16, 1, 3, 16), &Options::new(2));
    assert_eq!(REFUSED, Err(Error::Heads { width: 16, heads: 3 }));
}

#[test]
fn the_optimizer_keeps_what_it_says() {
    let config = Config::new(65, 32, 2, 2, 32);
    for (optimizer, factor) in
        [(OptimizerState::None, 0), (OptimizerState::Momentum, 1), (OptimizerState::AdamW, 2)]
    {
        let plan = Plan::new(&config, &Options { optimizer, ..Options::new(1) }).unwrap();
        assert_eq!(plan.optimizer(), factor * plan.parameters());
        let elements =
            plan.parameters() + plan.gradients() + plan.optimizer() + plan.workspace() + plan.batch();
        assert_eq!(plan.bytes(), 4 * elements);
        assert!(plan.to_string().contains(&plan.bytes().to_string()));
    }
}

#[test]
fn memory_grows_with_every_size() {
    let base = Config::new(65, 32, 2, 2, 32);
    let options = Options::new(2);
    let bytes = |config: Config, options: Options| Plan::new(&config, &options).unwrap().bytes();
    let least = bytes(base, options);
    for config in [
        Config { vocab: 66, ..base },
        Config { context: 33, ..base },
        Config { layers: 3, ..base },
        Config { width: 34, ..base },
        Config { hidden: 129, ..base },
        Config { tied: false, ..base },
    ] {
        assert!(bytes(config, options) > least, "{config:?}");
    }
    assert!(bytes(Config { bias: false, ..base }, options) < least);
    assert!(bytes(base, Options { batch: 3, ..options }) > least);
    assert!(bytes(base, Options { threads: 2, ..options }) > least);
}

/// With recomputation, activations shrink to exactly one block's and each block's input.
#[test]
fn recomputing_keeps_one_block() {
    for layers in [1, 2, 5] {
        let config = Config { hidden: 50, ..Config::new(27, 16, layers, 4, 12) };
        let plan = |recompute| Plan::new(&config, &Options { recompute, ..Options::new(3) }).unwrap();
        let (kept, again) = (plan(false), plan(true));
        let (rows, saved) = (3 * 16, layers - 1);
        // Norms' statistics, qkv, softmax's statistics, attention's output, hidden; and x between the branches.
        let block = rows * (4 + 3 * 12 + 2 * 4 + 12 + 50 + 12);
        assert_eq!(again.activations(), kept.activations() - saved * block);
        assert_eq!((again.scratch(), again.bytes()), (kept.scratch(), kept.bytes() - 4 * saved * block));
        // Products of C by 3C, C by C and C by F, and attention's two.
        let extra = saved * rows * (3 * 12 * 12 + 12 * 12 + 12 * 50 + 2 * 16 * 12);
        assert_eq!((kept.recomputed(), again.recomputed()), (0, extra));
        assert_eq!(again.to_string().contains("recompute"), layers > 1);
        if layers > 1 {
            assert!(again.to_string().contains(&format!("{extra} multiply-adds")), "{again}");
        }
    }
}

/// With a fused optimizer step, the gradient buffer holds 128 rows of the widest weight, or fewer if the largest tensor is
/// smaller; without vectors it holds four rows.
///
/// The hidden activations keep as many columns as the next weight's gradient has rows in that buffer, but at least the
/// width. They share memory with the norm's output. Without vectors attention's tiles share it too, and scratch serves
/// products alone.
#[test]
fn a_fused_update_has_room_for_some_rows_of_a_gradient() {
    let sizes = |config, target, spared| {
        let plan = |fused| Plan::on(target, &config, &Options { fused, ..Options::new(3) }).unwrap();
        let (whole, fused) = (plan(false), plan(true));
        let columns = config.hidden.min(fused.gradients() / config.width).max(config.width);
        let of_rows = 3 * config.context * (config.width + config.hidden - columns);
        assert_eq!(fused.scratch() + of_rows + spared, whole.scratch());
        assert_eq!(fused.activations(), whole.activations());
        assert_eq!(
            whole.bytes() - fused.bytes(),
            4 * (whole.parameters() - fused.gradients() + whole.scratch() - fused.scratch())
        );
        assert!(fused.to_string().contains("\nfused ") && !whole.to_string().contains("fused"));
        fused.gradients()
    };
    let config = Config::new(27, 16, 2, 4, 16);
    // Two tiles of 8 rows and four rows of a product, minus the scratch of the longest product, which copies 48 steps at
    // a time.
    let tiles = 2 * 8 * 16 + 4 * 16 - 4 * 48;
    assert_eq!(sizes(config, Target::Vectors, 0), 16 * 64);
    assert_eq!(sizes(config, Target::Portable, tiles), 4 * 64);
    assert_eq!(sizes(Config { vocab: 500, ..config }, Target::Vectors, 0), 500 * 16);
    assert_eq!(sizes(Config { vocab: 5000, ..config }, Target::Vectors, 0), 128 * 64);
    assert_eq!(sizes(Config { hidden: 8, ..config }, Target::Portable, tiles), 4 * 48);
    assert_eq!(sizes(Config::new(2, 1, 1, 1, 1), Target::Portable, 0), 4);
}

type Set = fn(&mut Config, usize);

const SIZES: [(&str, Set); 6] = [
    ("vocab", |config, size| config.vocab = size),
    ("context", |config, size| config.context = size),
    ("layers", |config, size| config.layers = size),
    ("heads", |config, size| config.heads = size),
    ("width", |config, size| config.width = size),
    ("hidden", |config, size| config.hidden = size),
];

#[test]
fn the_plan_that_fits_is_the_largest_that_does() {
    let config = Config::new(27, 16, 2, 4, 16);
    let sized = |batch, threads| Plan::new(&config, &Options { threads, ..Options::new(batch) }).unwrap();
    let options = Options { threads: 3, ..Options::new(12) };
    for (batch, threads) in [(1, 1), (2, 1), (2, 2), (3, 3), (7, 3), (12, 3)] {
        let wanted = sized(batch, threads);
        let found = Plan::fit(&config, &options, wanted.bytes()).unwrap();
        assert!(found.bytes() <= wanted.bytes());
        assert_eq!(found.options().threads, threads.max(found.options().threads), "{batch} {threads}");
        let more = Options { batch: found.options().batch + 1, ..*found.options() };
        assert!(found == sized(12, 3) || Plan::new(&config, &more).unwrap().bytes() > wanted.bytes());
    }
    assert_eq!(Plan::fit(&config, &options, usize::MAX), Ok(sized(12, 3)));
    assert_eq!(Plan::fit(&config, &options, sized(1, 1).bytes()), Ok(sized(1, 1)));
    // With less memory, the plan recomputes activations, again with as many threads and sequences as fit.
    let again = |batch, threads| {
        let options = Options { threads, recompute: true, ..Options::new(batch) };
        Plan::new(&config, &options).unwrap()
    };
    let found = Plan::fit(&config, &options, sized(1, 1).bytes() - 1).unwrap();
    assert_eq!(found, again(found.options().batch, found.options().threads));
    let options = Options { recompute: true, ..options };
    assert_eq!(Plan::fit(&config, &options, usize::MAX), Ok(again(12, 3)));
    let options = Options { recompute: false, ..options };
    let least = again(1, 1).bytes();
    assert_eq!(Plan::fit(&config, &options, least), Ok(again(1, 1)));
    let error = Plan::fit(&config, &options, least - 1);
    assert_eq!(error, Err(Error::Budget { given: least - 1, wanted: least }));
    assert_eq!(Plan::fit(&config, &Options::new(0), usize::MAX), Err(Error::Zero { what: "batch" }));
}

/// A budget for one thread that keeps activations, or for two that recompute them.
#[test]
fn the_plan_that_fits_recomputes_where_that_lets_more_threads_work() {
    let config = Config::new(65, 64, 8, 4, 64);
    let plan = |batch, threads, recompute| {
        Plan::new(&config, &Options { threads, recompute, ..Options::new(batch) }).unwrap()
    };
    let (one, two) = (plan(1, 1, false), plan(2, 2, true));
    let (c, f, t, v) = (64, 256, 64, 65);
    assert_eq!(one.multiply_adds(), 64 * (8 * (12 * c * c + 6 * c * f + 7 * t * c) + 3 * v * c));
    assert_eq!(two.multiply_adds(), 2 * one.multiply_adds() + two.recomputed());
    let budget = one.bytes().max(two.bytes());
    assert!(plan(2, 2, false).bytes() > budget);
    let options = |threads| Options { threads, ..Options::new(12) };
    let found = *Plan::fit(&config, &options(2), budget).unwrap().options();
    assert_eq!((found.threads, found.recompute), (2, true));
    let found = *Plan::fit(&config, &options(1), budget).unwrap().options();
    assert_eq!((found.threads, found.recompute), (1, false));
}

/// If even recomputing single sequences does not fit, the plan takes all sequences in one pass with a fused update.
#[test]
fn the_least_plan_that_fits_fuses_the_update() {
    let config = Config::new(27, 4, 2, 4, 64);
    let fused = |batch, threads, recompute| {
        let options = Options { threads, recompute, fused: true, ..Options::new(batch) };
        Plan::new(&config, &options).unwrap()
    };
    let options = Options { threads: 2, ..Options::new(2) };
    let accumulating = Plan::new(&config, &Options { recompute: true, ..Options::new(1) }).unwrap();
    assert!(!Plan::fit(&config, &options, accumulating.bytes()).unwrap().options().fused);
    for plan in [fused(2, 2, false), fused(2, 1, false), fused(2, 1, true)] {
        let found = Plan::fit(&config, &options, plan.bytes()).unwrap();
        assert!(found.options().fused && found.options().batch == 2 && found.bytes() <= plan.bytes());
        // Without vectors, a thread's scratch is small: a second thread may fit instead of the activations.
        let [more, recompute] = [found.options().threads > plan.options().threads, found.options().recompute];
        assert!(more || recompute == plan.options().recompute);
        assert_eq!(Plan::fit(&config, &Options { fused: true, ..options }, plan.bytes()), Ok(found));
    }
    let wanted = fused(2, 1, true).bytes();
    let error = Plan::fit(&config, &options, wanted - 1);
    assert_eq!(error, Err(Error::Budget { given: wanted - 1, wanted }));
    let alone = Plan::fit(&config, &Options { fused: true, ..options }, usize::MAX);
    assert_eq!(alone, Ok(fused(2, 2, false)));
}

#[test]
fn a_size_of_zero_is_refused_by_name() {
    let config = Config::new(65, 32, 2, 2, 32);
    for (what, set) in SIZES {
        let mut config = config;
        set(&mut config, 0);
        assert_eq!(config.validate(), Err(Error::Zero { what }));
        assert_eq!(Plan::new(&config, &Options::new(1)), Err(Error::Zero { what }));
    }
    assert_eq!(Plan::new(&config, &Options::new(0)), Err(Error::Zero { what: "batch" }));
    let options = Options { threads: 0, ..Options::new(1) };
    assert_eq!(Plan::new(&config, &options), Err(Error::Zero { what: "threads" }));
}

#[test]
fn a_size_beyond_the_largest_is_refused_by_name() {
    for (what, set) in SIZES {
        for size in [jostle::Config::LARGEST + 1, usize::MAX / 2, usize::MAX] {
            let mut config = Config::new(65, 32, 2, 2, 32);
            set(&mut config, size);
            assert_eq!(Plan::new(&config, &Options::new(1)), Err(Error::TooLarge { what }));
        }
    }
    assert_eq!(Config::new(1, 1, 1, 1, usize::MAX).validate(), Err(Error::TooLarge { what: "width" }));
}

#[test]
fn products_of_sizes_that_overflow_are_refused() {
    let largest = jostle::Config::LARGEST;
    let small = Config::new(2, 2, 1, 1, 2);
    let refused = |config: Config, options: Options| Plan::new(&config, &options).unwrap_err();
    let too_large = |what| Error::TooLarge { what };
    let all = Config { hidden: largest, ..Config::new(largest, largest, largest, 1, largest) };
    assert_eq!(refused(all, Options::new(1)), too_large("parameters"));
    let deep = Config { layers: largest, width: 1 << 20, ..small };
    assert_eq!(refused(deep, Options::new(1)), too_large("parameters"));
    let one = Config { vocab: 1 << 30, width: 1 << 30, ..small };
    assert_eq!(refused(one, Options::new(1)), too_large("parameters"));
    for batch in [usize::MAX, usize::MAX / 2, usize::MAX / 16] {
        assert_eq!(refused(small, Options::new(batch)), too_large("activations"));
    }
    for threads in [usize::MAX, usize::MAX / 16] {
        let options = Options { threads, ..Options::new(1) };
        assert_eq!(refused(small, options), too_large("scratch"));
    }
}

#[test]
fn heads_must_divide_the_width() {
    for (heads, width) in [(2, 3), (3, 16), (5, 4)] {
        let config = Config::new(5, 5, 1, heads, width);
        assert_eq!(config.validate(), Err(Error::Heads { width, heads }));
        assert_eq!(Plan::new(&config, &Options::new(1)), Err(Error::Heads { width, heads }));
    }
    assert_eq!(Config::new(5, 5, 1, 3, 15).validate(), Ok(()));
    assert_eq!(Config::new(5, 5, 1, 3, 15).head_width(), 5);
    assert_eq!(Config::new(5, 5, 1, 0, 15).head_width(), 0);
}

#[test]
fn rates_and_epsilon_outside_their_range_are_refused_by_name() {
    let config = Config::new(65, 32, 2, 2, 32);
    let none = Dropout::NONE;
    type SetRate = fn(&mut Dropout, f32);
    let places: [(&str, SetRate); 4] = [
        ("embedding_dropout", |dropout, rate| dropout.embedding = rate),
        ("attention_dropout", |dropout, rate| dropout.attention = rate),
        ("attention_projection_dropout", |dropout, rate| dropout.attention_projection = rate),
        ("mlp_projection_dropout", |dropout, rate| dropout.mlp_projection = rate),
    ];
    for (name, set) in places {
        for rate in [1.0, -0.1, 2.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut dropout = none;
            set(&mut dropout, rate);
            let error = Config { dropout, ..config }.validate().unwrap_err();
            let Error::Range { what, given, wanted } = error else { panic!("{error:?}") };
            assert_eq!((what, given.to_bits()), (name, rate.to_bits()));
            assert_eq!(wanted, "at least 0 and less than 1");
        }
        let mut dropout = none;
        set(&mut dropout, 0.999);
        assert_eq!(Config { dropout, ..config }.validate(), Ok(()));
    }
    for norm_epsilon in [0.0, -1e-5, 1.0, f32::NAN, f32::INFINITY] {
        let error = Config { norm_epsilon, ..config }.validate().unwrap_err();
        let Error::Range { what: "norm_epsilon", given, wanted } = error else { panic!("{error:?}") };
        assert_eq!(given.to_bits(), norm_epsilon.to_bits());
        assert_eq!(wanted, "more than 0 and less than 1");
    }
}

#[test]
fn errors_say_what_was_given_and_what_was_wanted() {
    for (error, text) in [
        (Error::Zero { what: "layers" }, "layers is 0; expected at least 1"),
        (Error::Heads { width: 16, heads: 3 }, "width 16 is not divisible by heads 3"),
        (Error::KvHeads { heads: 9, kv_heads: 2 }, "heads 9 is not divisible by kv_heads 2"),
        (Error::Length { what: "x", given: 4, wanted: 5 }, "x has 4 elements; expected 5"),
        (
            Error::Token { index: 2, token: -7, vocab: 65 },
            "token -7 at index 2 is outside the vocabulary of 65",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn absurd_counts_take_no_time() {
    let layers = 1 << 30;
    let config = Config::new(2, 1, layers, 1, 1);
    let far = format!("h.{}.ln_1.weight", layers - 1);
    let Err(Error::TooLarge { .. }) = Frozen::named(&config, [far.as_str()]) else {
        panic!("too far to freeze")
    };
    assert_eq!(Frozen::named(&config, ["ln_x.weight"]), Err(Error::Name { index: 0 }));

    let options = Options { frozen: Frozen::named(&config, ["h.1.ln_1.bias"]).unwrap(), ..Options::new(1) };
    let plan = Plan::new(&config, &options).unwrap();
    assert_eq!(plan.tensors().len(), 12 * layers + 4);
    let tensor = plan.tensor(&far).unwrap();
    assert_eq!(plan.tensors().nth(2 + 12 * (layers - 1)), Some(tensor));
    assert_eq!(plan.tensors().nth(12 * layers + 4), None);

    let config = Config::new(65, 8, 1, 1, 4);
    let most = u32::MAX as usize;
    let options = Options { threads: most, ..Options::new(most) };
    let plan = Plan::fit(&config, &options, 100_000).unwrap();
    assert!(plan.bytes() <= 100_000 && plan.options().threads > 1);
}

#[test]
fn a_tensor_is_found_by_number_as_by_name() {
    for frozen in [vec![], vec!["wpe.weight", "h.1.mlp.c_fc.weight"]] {
        for (bias, tied) in [(true, true), (false, false)] {
            let config = Config { bias, tied, ..Config::new(11, 5, 3, 2, 4) };
            let frozen = Frozen::named(&config, frozen.iter().copied()).unwrap();
            let plan = Plan::new(&config, &Options { frozen, ..Options::new(1) }).unwrap();
            let all: Vec<_> = plan.tensors().collect();
            assert_eq!(plan.tensors().len(), all.len());
            for (number, tensor) in all.iter().enumerate() {
                assert_eq!(plan.tensors().nth(number), Some(*tensor));
                assert_eq!(plan.tensor(&tensor.name.to_string()), Some(*tensor));
            }
            assert_eq!(plan.tensors().nth(all.len()), None);
            for name in
                ["h.03.ln_1.weight", "h.3.ln_1.weight", "ln_1.weight", "h.0.ln_f.weight", "h.0.", "h.", ""]
            {
                assert_eq!(plan.tensor(name), None, "{name}");
            }
        }
    }
}
