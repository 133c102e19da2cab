//! Checkpoints against the `safetensors` crate, and against damage of every kind.

use std::collections::HashMap;

use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::rng::{Stream, below, generator};
use jostle::{Activation, CheckpointError, Config, Dropout, Error, OptimizerState, Options, Plan};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

const PROGRESS: Progress = Progress { step: 1234, seed: 0xFEED_FACE_CAFE_BEEF };
const METADATA: &[(&str, &str)] =
    &[("tokenizer", "\0\n\"\\aé😀\u{7f}/"), ("quote\"d", ""), ("", "empty key")];

fn config() -> Config {
    Config {
        hidden: 3,
        dropout: Dropout { embedding: 0.1, attention: 1e-30, attention_projection: 0.3, mlp_projection: 0.0 },
        activation: Activation::GeluTanh,
        tied: false,
        norm_epsilon: 1.2345679e-5,
        ..Config::new(5, 3, 1, 1, 2)
    }
}

fn plan_with(config: &Config, optimizer: OptimizerState) -> Plan {
    Plan::new(config, &Options { optimizer, ..Options::new(1) }).unwrap()
}

fn plan() -> Plan {
    plan_with(&config(), OptimizerState::AdamW)
}

/// Numbers of all kinds, each with different bits. NaNs, infinities and subnormals are among them.
fn numbers(count: usize, salt: u32) -> Vec<f32> {
    let special = [0x8000_0000, 0x7F80_0000, 0xFF80_0001, 0x7FC0_1234, 1, 0x807F_FFFF];
    let ordinary = (0..).map(|i: u32| 0x3F80_0000 ^ (i * 0x0001_0007) ^ (salt << 20));
    special.into_iter().chain(ordinary).map(f32::from_bits).take(count).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

fn write(plan: &Plan, parameters: &[f32], optimizer: Option<&[f32]>) -> Vec<u8> {
    let contents = Contents { parameters, frozen: &[], optimizer, progress: PROGRESS, metadata: METADATA };
    let mut bytes = vec![0xAA; checkpoint::size(plan, optimizer.is_some(), METADATA).unwrap()];
    assert_eq!(checkpoint::write(&mut bytes, plan, &contents), Ok(bytes.len()));
    bytes
}

fn sample(plan: &Plan) -> Vec<u8> {
    write(plan, &numbers(plan.parameters(), 1), Some(&numbers(plan.optimizer(), 2)))
}

/// Reads in every possible way. After an error the destination must be untouched.
fn read(bytes: &[u8], plan: &Plan) -> Result<Progress, Error> {
    let sentinel = f32::from_bits(0x1234_5678);
    let mut parameters = vec![sentinel; plan.parameters()];
    let mut optimizer = vec![sentinel; plan.optimizer()];
    let progress = Checkpoint::new(bytes)
        .and_then(|file| file.config().and(file.read(plan, &mut parameters, Some(&mut optimizer))));
    if progress.is_err() {
        assert!(parameters.iter().chain(&optimizer).all(|x| x.to_bits() == sentinel.to_bits()));
    }
    progress
}

fn read_parameters(bytes: &[u8], plan: &Plan) -> Result<Vec<f32>, Error> {
    let sentinel = f32::from_bits(0x1234_5678);
    let mut parameters = vec![sentinel; plan.parameters()];
    let result = Checkpoint::new(bytes).and_then(|file| file.read_parameters(plan, &mut parameters));
    if result.is_err() {
        assert!(parameters.iter().all(|x| x.to_bits() == sentinel.to_bits()));
    }
    result.map(|()| parameters)
}

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn every_bit_returns() {
    for optimizer in [OptimizerState::None, OptimizerState::Momentum, OptimizerState::AdamW] {
        for (layers, bias, tied) in [(1, true, true), (2, false, false), (12, true, false)] {
            let plan = plan_with(&Config { layers, bias, tied, ..config() }, optimizer);
            let (parameters, state) = (numbers(plan.parameters(), 1), numbers(plan.optimizer(), 2));
            let bytes = write(&plan, &parameters, Some(&state));
            let file = Checkpoint::new(&bytes).unwrap();
            assert_eq!(file.config(), Ok(*plan.config()));
            let (mut p, mut s) = (vec![0.0; plan.parameters()], vec![0.0; plan.optimizer()]);
            assert_eq!(file.read(&plan, &mut p, Some(&mut s)), Ok(PROGRESS));
            assert_eq!(bits(&p), bits(&parameters));
            assert_eq!(bits(&s), bits(&state));
            p.fill(0.0);
            assert_eq!(file.read(&plan, &mut p, None), Ok(PROGRESS));
            assert_eq!(bits(&p), bits(&parameters));
        }
    }
}

#[test]
fn configuration_keeps_every_bit_of_its_floats() {
    let mut rng = generator(3, Stream::Sampling, 0, 0);
    for _ in 0..500 {
        let rate = f32::from_bits(below(&mut rng, 1.0_f32.to_bits()));
        let epsilon = f32::from_bits(1 + below(&mut rng, 1.0_f32.to_bits() - 1));
        let config = Config { dropout: Dropout::all(rate), norm_epsilon: epsilon, ..config() };
        let plan = plan_with(&config, OptimizerState::None);
        let bytes = sample(&plan);
        let read = Checkpoint::new(&bytes).unwrap().config().unwrap();
        assert_eq!(read.dropout.attention.to_bits(), rate.to_bits());
        assert_eq!(read.norm_epsilon.to_bits(), epsilon.to_bits());
    }
}

#[test]
fn size_is_exact_and_does_not_depend_on_progress() {
    let plan = plan();
    let (parameters, state) = (numbers(plan.parameters(), 1), numbers(plan.optimizer(), 2));
    let size = checkpoint::size(&plan, true, METADATA).unwrap();
    for (step, seed) in [(0, 0), (99, 7), (u64::MAX, u64::MAX)] {
        let progress = Progress { step, seed };
        let contents = Contents {
            parameters: &parameters,
            frozen: &[],
            optimizer: Some(&state),
            progress,
            metadata: METADATA,
        };
        let mut bytes = vec![0x55; size + 9];
        assert_eq!(checkpoint::write(&mut bytes, &plan, &contents), Ok(size));
        assert!(bytes[size..].iter().all(|b| *b == 0x55));
        assert_eq!(read(&bytes[..size], &plan), Ok(progress));
        assert!(SafeTensors::deserialize(&bytes[..size]).is_ok());
        let data_at = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(data_at.is_multiple_of(8));

        let mut short = vec![0x55; size - 1];
        let error = CheckpointError::Buffer { given: size - 1, wanted: size };
        assert_eq!(checkpoint::write(&mut short, &plan, &contents), Err(error.into()));
        assert!(short.iter().all(|b| *b == 0x55));
    }
}

#[test]
fn safetensors_reads_every_name_shape_and_value() {
    let plan = plan();
    let (parameters, state) = (numbers(plan.parameters(), 1), numbers(plan.optimizer(), 2));
    let bytes = write(&plan, &parameters, Some(&state));
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    let parts = [
        ("", &parameters[..]),
        ("optimizer.first_moment.", &state[..plan.parameters()]),
        ("optimizer.second_moment.", &state[plan.parameters()..]),
    ];
    assert_eq!(theirs.len(), 3 * plan.tensors().count());
    for (prefix, values) in parts {
        for tensor in plan.tensors() {
            let view = theirs.tensor(&format!("{prefix}{}", tensor.name)).unwrap();
            assert_eq!(view.dtype(), Dtype::F32);
            assert_eq!(view.shape(), &tensor.shape[..tensor.rank]);
            let wanted = &values[tensor.offset..][..tensor.len()];
            assert!(view.data().iter().copied().eq(wanted.iter().flat_map(|x| x.to_le_bytes())));
        }
    }
    let metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
    assert_eq!(metadata["format"], "pt");
    assert_eq!(metadata["jostle.step"], "1234");
    assert_eq!(metadata["jostle.seed"], PROGRESS.seed.to_string());
    for (key, value) in METADATA {
        assert_eq!(metadata[*key], *value);
    }
    let ours: HashMap<String, String> = Checkpoint::new(&bytes)
        .unwrap()
        .pairs()
        .map(|(key, value)| (key.to_string(), value.chars().collect()))
        .collect();
    assert_eq!(ours, metadata);
}

/// GPT-2 as Hugging Face's library writes it: prefixed, with masks, ordered by the `safetensors` crate.
fn foreign(
    plan: &Plan,
    parameters: &[f32],
    prefix: &str,
    metadata: Option<HashMap<String, String>>,
) -> Vec<u8> {
    let data: Vec<u8> = parameters.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut tensors: Vec<(String, TensorView)> = plan
        .tensors()
        .map(|t| {
            let data = &data[t.offset * 4..][..t.len() * 4];
            let name = t.name.to_string();
            let prefix = if name == "lm_head.weight" { "" } else { prefix };
            (
                prefix.to_owned() + &name,
                TensorView::new(Dtype::F32, t.shape[..t.rank].to_vec(), data).unwrap(),
            )
        })
        .collect();
    let mask = [1, 1, 0, 1, 1, 1, 0, 0, 1];
    tensors.push((
        format!("{prefix}h.0.attn.bias"),
        TensorView::new(Dtype::U8, vec![1, 1, 3, 3], &mask).unwrap(),
    ));
    let scalar = 1e4_f32.to_le_bytes();
    let scalar = TensorView::new(Dtype::F32, vec![], &scalar).unwrap();
    tensors.push((format!("{prefix}h.0.attn.masked_bias"), scalar));
    tensors.push((format!("{prefix}h.7.attn.bias"), TensorView::new(Dtype::F64, vec![0], &[]).unwrap()));
    tensors.reverse();
    safetensors::serialize(tensors, metadata).unwrap()
}

#[test]
fn foreign_files_are_read() {
    let plan = plan();
    let parameters = numbers(plan.parameters(), 5);
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    for prefix in ["", "transformer."] {
        for metadata in [None, Some(format.clone())] {
            let bytes = foreign(&plan, &parameters, prefix, metadata);
            assert_eq!(bits(&read_parameters(&bytes, &plan).unwrap()), bits(&parameters));
            let file = Checkpoint::new(&bytes).unwrap();
            let key = "jostle.vocab";
            assert_eq!(file.config(), Err(CheckpointError::Metadata { key }.into()));
            assert!(matches!(read(&bytes, &plan), Err(Error::Checkpoint(CheckpointError::Metadata { .. }))));
        }
    }
}

#[test]
fn narrow_numbers_are_read() {
    let plan = plan_with(&config(), OptimizerState::None);
    let (mut wanted, mut tensors) = (vec![0.0; plan.parameters()], Vec::new());
    for (i, tensor) in plan.tensors().enumerate() {
        let mut data = Vec::new();
        for (k, number) in (0_u16..).zip(&mut wanted[tensor.offset..][..tensor.len()]) {
            let bits = 0x3C00 + k;
            *number = match i % 3 {
                0 => f32::from_bits(u32::from(bits) << 16),
                _ => 1.0 + f32::from(k) / 1024.0,
            };
            match i % 3 {
                2 => data.extend(number.to_le_bytes()),
                _ => data.extend(bits.to_le_bytes()),
            }
        }
        let kind = [Dtype::BF16, Dtype::F16, Dtype::F32][i % 3];
        tensors.push((tensor.name.to_string(), kind, tensor.shape[..tensor.rank].to_vec(), data));
    }
    let views = tensors
        .iter()
        .map(|(name, kind, shape, data)| (name, TensorView::new(*kind, shape.clone(), data).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    assert_eq!(bits(&read_parameters(&bytes, &plan).unwrap()), bits(&wanted));
}

#[test]
fn tensors_that_the_model_does_not_have_are_refused() {
    let plan = plan_with(&Config { layers: 2, ..config() }, OptimizerState::None);
    let mut parameters = numbers(plan.parameters(), 5);
    let file = |parameters: &[f32]| foreign(&plan, parameters, "transformer.", None);
    let unused = |bytes: &[u8], config: Config| {
        let plan = plan_with(&config, OptimizerState::None);
        let names: Vec<_> =
            Checkpoint::new(bytes).unwrap().unused(&plan).map(|name| name.to_string()).collect();
        match read_parameters(bytes, &plan) {
            Ok(_) => assert!(names.is_empty()),
            Err(Error::Checkpoint(CheckpointError::Unused { at })) => {
                let name = format!("\"{}\"", names[0]);
                assert!(bytes[at..].starts_with(name.as_bytes()));
            }
            Err(error) => panic!("{error}"),
        }
        names
    };
    let bytes = file(&parameters);
    assert!(unused(&bytes, *plan.config()).is_empty());
    assert_eq!(unused(&bytes, Config { tied: true, ..*plan.config() }), ["lm_head.weight"]);
    let biases = unused(&bytes, Config { bias: false, ..*plan.config() });
    assert!(!biases.is_empty() && biases.iter().all(|name| name.ends_with(".bias")));
    let layers = unused(&bytes, Config { layers: 1, ..*plan.config() });
    assert!(!layers.is_empty() && layers.iter().all(|name| name.starts_with("transformer.h.1.")));
    // A head that equals the embedding is one.
    let [embedding, head] = ["wte.weight", "lm_head.weight"].map(|name| plan.tensor(name).unwrap());
    parameters.copy_within(embedding.offset..embedding.offset + embedding.len(), head.offset);
    assert!(unused(&file(&parameters), Config { tied: true, ..*plan.config() }).is_empty());
}

#[test]
fn a_checkpoint_is_written_in_pieces() {
    let plan = plan();
    let parameters = numbers(plan.parameters(), 5);
    let contents = Contents {
        parameters: &parameters,
        frozen: &[],
        optimizer: None,
        progress: Progress { step: 1, seed: 2 },
        metadata: &[],
    };
    let mut whole = vec![0; checkpoint::size(&plan, false, &[]).unwrap()];
    checkpoint::write(&mut whole, &plan, &contents).unwrap();
    let mut pieces = Vec::new();
    let written = checkpoint::write_to(&plan, &contents, |piece| {
        pieces.extend_from_slice(piece);
        Ok::<_, Error>(())
    });
    assert_eq!((written, pieces), (Ok(whole.len()), whole));
    let mut room = 3;
    let full = checkpoint::write_to(&plan, &contents, |_| {
        room -= 1;
        if room == 0 { Err(Error::Unfinished) } else { Ok(()) }
    });
    assert_eq!((full, room), (Err(Error::Unfinished), 0));
}

#[test]
fn listing_order_escapes_and_white_space_are_free() {
    let plan = plan_with(&Config { bias: false, tied: true, ..config() }, OptimizerState::None);
    let parameters = numbers(plan.parameters(), 6);
    let data: Vec<u8> = parameters.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut entries: Vec<String> = plan
        .tensors()
        .map(|t| {
            let name = t.name.to_string().replace('.', "\\u002E");
            let (begin, end) = (t.offset * 4, (t.offset + t.len()) * 4);
            let shape = &t.shape[..t.rank];
            format!("\t\"{name}\" :\r\n{{ \"data_offsets\" :[ {begin}\n,{end} ] , \"shape\":{shape:?},\"dtype\" : \"F\\u00332\" }} ")
        })
        .collect();
    entries.reverse();
    let bytes = file(&format!("{{{}, \"__metadata__\": {{ }} }}\n ", entries.join(",")), &data);
    assert_eq!(bits(&read_parameters(&bytes, &plan).unwrap()), bits(&parameters));
    assert_eq!(Checkpoint::new(&bytes).unwrap().pairs().count(), 0);
}

#[test]
fn metadata_is_read_back() {
    let bytes = sample(&plan());
    let file = Checkpoint::new(&bytes).unwrap();
    for (key, value) in METADATA {
        let text = file.metadata(key).unwrap();
        let mut buffer = vec![0; value.len()];
        assert_eq!(text.len(), value.len());
        assert_eq!(text.copy_to(&mut buffer), Ok(*value));
        assert_eq!(text.to_string(), *value);
    }
    let mut short = [0];
    let error = CheckpointError::Buffer { given: 1, wanted: METADATA[0].1.len() };
    assert_eq!(file.metadata("tokenizer").unwrap().copy_to(&mut short), Err(error.into()));
    assert!(file.metadata("quote").is_none());
}

#[test]
fn reserved_and_repeated_keys_are_refused() {
    let plan = plan();
    for key in ["format", "jostle.step", "jostle.", "same"] {
        let metadata = [("same", ""), (key, "")];
        let error = CheckpointError::Key { index: 1 };
        assert_eq!(checkpoint::size(&plan, true, &metadata), Err(error.into()));
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let plan = plan();
    let bytes = sample(&plan);
    let file = Checkpoint::new(&bytes).unwrap();
    let (mut p, mut s) = (vec![0.0; plan.parameters()], vec![0.0; plan.optimizer()]);
    let length = |what, given| Err(Error::Length { what, given, wanted: given + 1 });
    let (_, p_short) = p.split_first_mut().unwrap();
    assert_eq!(file.read_parameters(&plan, p_short), length("parameters", plan.parameters() - 1));
    let (_, s_short) = s.split_first_mut().unwrap();
    let read = file.read(&plan, &mut p, Some(s_short)).map(|_| ());
    assert_eq!(read, length("optimizer state", plan.optimizer() - 1));
}

#[test]
fn other_models_are_refused() {
    let plan = plan();
    let bytes = sample(&plan);
    let refused = |config: &Config| match read(&bytes, &plan_with(config, OptimizerState::AdamW)) {
        Err(Error::Checkpoint(CheckpointError::Configuration { key })) => key,
        other => panic!("{other:?}"),
    };
    let config = config();
    assert_eq!(refused(&Config { vocab: 6, ..config }), "jostle.vocab");
    assert_eq!(refused(&Config { heads: 2, ..config }), "jostle.heads");
    assert_eq!(refused(&Config { activation: Activation::Gelu, ..config }), "jostle.activation");
    assert_eq!(refused(&Config { norm_epsilon: 1e-5, ..config }), "jostle.norm_epsilon");
    let dropout = Config { dropout: Dropout::NONE, ..config };
    assert_eq!(read(&bytes, &plan_with(&dropout, OptimizerState::AdamW)), Ok(PROGRESS));

    let tensors = plan.tensors().count();
    let missing = Err(CheckpointError::Missing { tensor: tensors }.into());
    assert_eq!(read(&bytes, &plan_with(&config, OptimizerState::Momentum)), missing);
    let parameters_only = write(&plan, &numbers(plan.parameters(), 1), None);
    assert_eq!(read(&parameters_only, &plan), missing);

    let theirs = foreign(&plan, &numbers(plan.parameters(), 1), "", None);
    let shape = |config| read_parameters(&theirs, &plan_with(&config, OptimizerState::None)).unwrap_err();
    assert_eq!(
        shape(Config { context: 4, ..config }),
        CheckpointError::Shape { tensor: 1, given: [3, 2], wanted: [4, 2] }.into()
    );
    assert_eq!(shape(Config { layers: 2, ..config }), CheckpointError::Missing { tensor: 14 }.into());
}

#[test]
fn every_truncation_is_refused() {
    let plan = plan();
    let theirs = foreign(&plan, &numbers(plan.parameters(), 1), "transformer.", None);
    for bytes in [sample(&plan), theirs] {
        for len in 0..bytes.len() {
            let error = read_parameters(&bytes[..len], &plan).unwrap_err();
            let Error::Checkpoint(CheckpointError::Truncated { given, wanted }) = error else {
                panic!("{len}: {error}");
            };
            assert!(given == len && len < wanted && wanted <= bytes.len());
            assert_eq!(read(&bytes[..len], &plan), Err(error));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(
            Checkpoint::new(&longer),
            Err(Error::Checkpoint(CheckpointError::Offsets { given, wanted })) if wanted == given + 1
        ));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let plan = plan_with(&Config { bias: false, ..config() }, OptimizerState::Momentum);
    let mut bytes = sample(&plan);
    for i in 0..bytes.len() {
        for bit in 0..8 {
            bytes[i] ^= 1 << bit;
            let error = read_parameters(&bytes, &plan).unwrap_err();
            assert_eq!(read(&bytes, &plan), Err(error), "byte {i}, bit {bit}");
            bytes[i] ^= 1 << bit;
        }
    }
    assert_eq!(read(&bytes, &plan), Ok(PROGRESS));
}

#[test]
fn malformed_headers_are_refused() {
    let data = [0; 8];
    let tensor = |name: &str, begin: usize, end: usize| {
        format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{begin},{end}]}}"#)
    };
    let (a, b) = (tensor("a", 0, 4), tensor("b", 4, 8));
    let examine = |header: &str| Checkpoint::new(&file(header, &data)).map(|_| ());
    assert_eq!(examine(&format!("{{{a},{b}}}")), Ok(()));
    assert_eq!(examine(&format!("{{{b},{a},{}}}", tensor("c", 4, 4))), Ok(()));

    let deep = "[".repeat(100_000);
    let malformed = [
        String::new(),
        " ".to_owned(),
        "{".to_owned(),
        "[]".to_owned(),
        format!(" {{{a},{b}}}"),
        format!("{{{a},{b}}}x"),
        format!("{{{a},{b},}}"),
        format!("{{,{a},{b}}}"),
        format!("{{{a} {b}}}"),
        format!("{{{a},{b}"),
        format!("{{{a},{b},\"c\":null}}"),
        format!("{{{a},{b},\"c\":{deep}}}"),
        format!("{{{a},{b},\"__metadata__\":{deep}}}"),
        format!("{{{a},{b},\"__metadata__\":{{\"k\":{deep}}}}}"),
        format!("{{{a},{b},\"__metadata__\":{{\"k\":1}}}}"),
        format!("{{{a},{b},\"__metadata__\":null}}"),
        format!("{{{a},{b},\"__metadata__\":{{\"k\":\"\\x\"}}}}"),
        format!("{{{a},{b},\"__metadata__\":{{\"k\":\"\\ud800\"}}}}"),
        format!("{{{a},{}}}", tensor("b", 8, 4)),
        format!("{{{a},{}}}", b.replace("[1]", "[-1]")),
        format!("{{{a},{}}}", b.replace("[1]", "[1.0]")),
        format!("{{{a},{}}}", b.replace("[1]", "[1,]")),
        format!("{{{a},{}}}", b.replace("[1]", "[01]")),
        format!("{{{a},{}}}", b.replace("[1]", "1")),
        format!("{{{a},{}}}", b.replace("[1]", &deep)),
        format!("{{{a},{}}}", b.replace("[1]", "[99999999999999999999]")),
        format!("{{{a},{}}}", b.replace("[4,8]", "[4]")),
        format!("{{{a},{}}}", b.replace("[4,8]", "[4,8,8]")),
        format!("{{{a},{}}}", b.replace("[4,8]", "[4,1e1]")),
        format!("{{{a},{}}}", b.replace("\"shape\":[1],", "")),
        format!("{{{a},{}}}", b.replace("\"shape\":[1],", "\"shape\":[1],\"shape\":[1],")),
        format!("{{{a},{}}}", b.replace("\"F32\"", "32")),
        format!("{{{a},{}}}", b.replace("\"F32\"", "\"F32\",\"more\":1")),
    ];
    for header in malformed {
        let error = examine(&header);
        let shown = header.get(..200).unwrap_or(&header);
        let Err(Error::Checkpoint(CheckpointError::Header { at })) = error else {
            panic!("{error:?}: {shown}");
        };
        assert!((8..=8 + header.len()).contains(&at), "{at}: {shown}");
    }

    let duplicates = [
        format!("{{{a},{}}}", tensor("a", 4, 8)),
        format!("{{{a},{}}}", tensor("transformer.a", 4, 8)),
        format!("{{{a},{}}}", tensor("\\u0061", 4, 8)),
        format!("{{{a},{b},\"__metadata__\":{{}},\"__metadata__\":{{}}}}"),
        format!("{{{a},{b},\"__metadata__\":{{\"k\":\"\",\"\\u006b\":\"\"}}}}"),
    ];
    for header in duplicates {
        let error = examine(&header);
        assert!(
            matches!(error, Err(Error::Checkpoint(CheckpointError::Duplicate { .. }))),
            "{error:?}: {header}"
        );
    }

    let offsets = |tensors: [String; 2]| examine(&format!("{{{}}}", tensors.join(","))).unwrap_err();
    let wrong = |given| Error::from(CheckpointError::Offsets { given, wanted: 8 });
    assert_eq!(offsets([tensor("a", 0, 5), tensor("b", 4, 8)]), wrong(9));
    assert_eq!(offsets([tensor("a", 0, 3), tensor("b", 4, 8)]), wrong(7));
    assert_eq!(offsets([tensor("a", 1, 8), tensor("b", 7, 8)]), wrong(8));
    assert_eq!(offsets([tensor("a", 0, 4), tensor("b", 0, 4)]), wrong(8));
    for end in [9, usize::MAX] {
        let error = offsets([tensor("a", 0, 4), tensor("b", 4, end)]);
        assert!(
            matches!(error, Error::Checkpoint(CheckpointError::Truncated { wanted, .. }) if wanted >= end)
        );
    }
}

#[test]
fn foreign_bytes_are_refused() {
    for bytes in [&b"\x89PNG\r\n\x1a\n more"[..], b"{\"model\": \"gpt2\"}", &[0xFF; 64]] {
        assert_eq!(Checkpoint::new(bytes).map(|_| ()), Err(CheckpointError::Header { at: 0 }.into()));
    }
    let absurd = |length: u64| Checkpoint::new(&[&length.to_le_bytes()[..], b"{}"].concat()).map(|_| ());
    assert_eq!(absurd(2), Ok(()));
    assert_eq!(absurd(3), Err(CheckpointError::Truncated { given: 10, wanted: 11 }.into()));
    assert_eq!(absurd(100_000_001), Err(CheckpointError::Header { at: 0 }.into()));
    let mut invalid = file(r#"{"__metadata__":{"k":"abc"}}"#, &[]);
    assert!(Checkpoint::new(&invalid).is_ok());
    invalid[8 + 23] = 0xFF;
    assert_eq!(Checkpoint::new(&invalid).map(|_| ()), Err(CheckpointError::Header { at: 31 }.into()));
}

/// Comparing each name or range with each other would take an hour.
#[test]
fn tens_of_thousands_of_tensors_take_no_time_in_any_order() {
    let header = |count: usize, twice: &str| {
        let tensor =
            |i| format!(r#""{i}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#, 4 * i, 4 * i + 4);
        let tensors: Vec<String> = (0..count).rev().map(tensor).collect();
        file(&format!("{{{}}}", tensors.join(",").replace("\"7\"", twice)), &vec![0; 4 * count])
    };
    assert!(Checkpoint::new(&header(40_000, "\"7\"")).is_ok());
    for twice in ["\"39999\"", "\"8\"", "\"1\""] {
        let error = Checkpoint::new(&header(40_000, twice)).map(|_| ());
        assert!(matches!(error, Err(Error::Checkpoint(CheckpointError::Duplicate { .. }))), "{error:?}");
    }
    let error = Error::TooLarge { what: "checkpoint header" };
    assert_eq!(Checkpoint::new(&header(100_000, "\"7\"")).map(|_| ()), Err(error));
}

#[test]
fn the_first_missing_tensor_is_named_in_any_order() {
    let plan = plan_with(&config(), OptimizerState::None);
    let parameters = numbers(plan.parameters(), 1);
    let bytes = foreign(&plan, &parameters, "", None);
    for (index, tensor) in plan.tensors().enumerate() {
        let name = format!("\"{}\"", tensor.name);
        let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
        let mut renamed = bytes.clone();
        renamed[at + 1] = b'x';
        let error = CheckpointError::Missing { tensor: index };
        assert_eq!(read_parameters(&renamed, &plan), Err(error.into()), "{name}");
    }
}

/// Random bytes, and valid files with pieces overwritten, removed or doubled: reading always returns.
#[test]
fn mutations_never_panic() {
    let plan = plan_with(&Config { bias: false, ..config() }, OptimizerState::Momentum);
    let metadata = HashMap::from([("k\n".to_owned(), "é\"".to_owned())]);
    let seeds =
        [sample(&plan), foreign(&plan, &numbers(plan.parameters(), 1), "transformer.", Some(metadata))];
    let tokens: [&[u8]; 12] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\ud800",
        b"99999999999999999999",
        b"\xff",
        b" ",
    ];
    let mut accepted = 0;
    for case in 0..20_000 {
        let rng = &mut generator(1, Stream::Sampling, case, 0);
        let mut draw = |bound: usize| below(rng, bound as u32) as usize;
        let mut bytes = seeds[draw(2)].clone();
        let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        if case % 10 == 0 {
            bytes = (0..draw(200)).map(|_| draw(256) as u8).collect();
        }
        for _ in 0..1 + draw(3) {
            let at = draw(bytes.len().min(8 + header_len) + 1);
            let end = (at + draw(40)).min(bytes.len());
            let piece = match draw(4) {
                0 => bytes[at..end].repeat(2),
                1 => vec![],
                2 => tokens[draw(tokens.len())].to_vec(),
                _ => bytes[at..end].iter().map(|b| b ^ (draw(3) as u8)).collect(),
            };
            bytes.splice(at..end, piece);
        }
        // Half of the time the length is corrected, so that the header is read to its end.
        if draw(2) == 0
            && let Some(at) = bytes.windows(3).rposition(|w| w == b"]}}")
        {
            bytes[..8].copy_from_slice(&(at as u64 + 3 - 8).to_le_bytes());
        }
        accepted += u32::from(read_parameters(&bytes, &plan).is_ok());
        let _ = read(&bytes, &plan);
    }
    // A mutation of a file without a checksum can be harmless, but most are not.
    assert!(accepted < 5_000, "{accepted}");
}
