//! Models: small ones made here, and `stories260K.bin`.

use jostle::llama2c::{BOS, EOS, Model, Tokenizer, Version};
use jostle::{
    Config, Error, Frozen, Generator, InstructionSet, Llama2cError, Options, Plan, Rope, Sampling, initialize,
};

use crate::shared;

/// Heads of six share a key/value head in pairs; the head of the model is untied.
const CONFIG: Config = Config { tied: false, ..Config::llama(11, 5, 2, 4, 2, 24, 7) };

fn plan(config: &Config) -> Plan {
    Plan::new(config, &Options::new(1)).unwrap()
}

/// Parameters that all differ.
fn parameters(plan: &Plan) -> Vec<f32> {
    (0..plan.parameters()).map(|i| 1.0 + i as f32).collect()
}

fn written(config: &Config, version: Version) -> Vec<u8> {
    let plan = plan(config);
    let mut file = vec![7; Model::file_len(config, version).unwrap()];
    let length = Model::write(&plan, &parameters(&plan), &[], version, &mut file);
    assert_eq!(length, Ok(file.len()));
    file
}

fn read(file: &[u8], plan: &Plan) -> Result<Vec<f32>, Error> {
    let mut parameters = vec![f32::NAN; plan.parameters()];
    Model::new(file)?.read(plan, &mut parameters)?;
    Ok(parameters)
}

fn number(file: &[u8], place: usize) -> f32 {
    f32::from_le_bytes(file[place..place + 4].try_into().unwrap())
}

fn set(file: &[u8], place: usize, number: i32) -> Vec<u8> {
    let mut file = file.to_vec();
    file[place..place + 4].copy_from_slice(&number.to_le_bytes());
    file
}

#[test]
fn models_come_back_from_both_versions() {
    for config in [CONFIG, Config { tied: true, ..CONFIG }] {
        for version in [Version::V0, Version::V1] {
            let file = written(&config, version);
            let model = Model::new(&file).unwrap();
            assert_eq!((model.version(), model.config()), (version, &config));
            let plan = plan(&config);
            assert_eq!(read(&file, &plan), Ok(parameters(&plan)), "{version:?}, tied {}", config.tied);
        }
    }
}

/// llama2.c's layout by hand: C 24, so that a query matrix has 4 heads of 6 rows.
#[test]
fn tensors_lie_where_llama2_c_has_them() {
    let plan = plan(&CONFIG);
    let parameters = parameters(&plan);
    let element = |name: &str, i: usize| parameters[plan.tensor(name).unwrap().offset + i];
    let v0 = written(&CONFIG, Version::V0);
    assert_eq!(number(&v0, 28), element("model.embed_tokens.weight", 0));
    let norms = 28 + 4 * 11 * 24;
    assert_eq!(number(&v0, norms + 4 * 24), element("model.layers.1.input_layernorm.weight", 0));
    let queries = norms + 4 * 2 * 24;
    let query = |file: &[u8], begin: usize, row: usize| number(file, begin + 4 * 24 * row);
    let v1 = written(&CONFIG, Version::V1);
    let in_v1 = 256 + 4 * (24 * (2 + 2 + 1) + 11 * 24);
    for (file, begin) in [(&v0, queries), (&v1, in_v1)] {
        // Neighbours rotate together in the file; here, elements that are half a head apart.
        for (row, here) in
            [(0, 0), (1, 3), (2, 1), (3, 4), (4, 2), (5, 5), (6, 6), (7, 9), (24, 24), (25, 27)]
        {
            let (layer, here) = (here / 24, here % 24);
            let name = format!("model.layers.{layer}.self_attn.q_proj.weight");
            assert_eq!(query(file, begin, row), element(&name, 24 * here), "row {row}");
        }
    }
    let keys = queries + 4 * 2 * 24 * 24;
    let key = "model.layers.0.self_attn.k_proj.weight";
    assert_eq!(query(&v0, keys, 1), element(key, 24 * 3));
    let down = keys + 4 * (2 * (2 * 12 * 24 + 24 * 24 + 24) + 2 * 7 * 24);
    assert_eq!(number(&v0, down), element("model.layers.0.mlp.down_proj.weight", 0));
    assert_eq!(number(&v0, v0.len() - 4), element("lm_head.weight", 11 * 24 - 1));
    assert_eq!(number(&v1, v1.len() - 4), element("lm_head.weight", 11 * 24 - 1));
    // The sines of the last position, 4, lie before the head: angles 4, 4 / 10000^(1/3), 4 / 10000^(2/3).
    let sines = v0.len() - 4 * (11 * 24 + 3);
    assert!((number(&v0, sines) - 4_f32.sin()).abs() < 1e-6);
    assert!((number(&v0, sines + 8) - (4.0 / 10_000_f32.powf(2.0 / 3.0)).sin()).abs() < 1e-6);
}

#[test]
fn frozen_tensors_are_written_and_not_read() {
    let frozen =
        Frozen::named(&CONFIG, ["model.layers.0.self_attn.k_proj.weight", "model.norm.weight"]).unwrap();
    let partly = Plan::new(&CONFIG, &Options { frozen, ..Options::new(1) }).unwrap();
    let all = parameters(&plan(&CONFIG));
    let (mut trained, mut kept) = (vec![0.0; partly.parameters()], vec![0.0; partly.frozen()]);
    partly.scatter(&all, &mut trained, &mut kept).unwrap();
    let mut file = vec![7; Model::file_len(&CONFIG, Version::V0).unwrap()];
    Model::write(&partly, &trained, &kept, Version::V0, &mut file).unwrap();
    assert_eq!(file, written(&CONFIG, Version::V0));
    assert_eq!(read(&file, &partly), Ok(trained));
}

#[test]
fn stories260k_writes_its_story() {
    let (Some(file), Some(vocabulary), Some(story)) =
        (shared("stories260K.bin"), shared("tok512.bin"), shared("stories260K.txt"))
    else {
        return;
    };
    let model = Model::new(&file).unwrap();
    assert_eq!(model.config(), &Config::llama(512, 512, 5, 8, 4, 64, 172));
    let plan = plan(model.config());
    let parameters = read(&file, &plan).unwrap();
    let mut index = vec![0; Tokenizer::index_len(&vocabulary).unwrap()];
    let tokenizer = Tokenizer::new(&vocabulary, &mut index).unwrap();

    let mut memory = vec![0.0; plan.generation()];
    let (mut window, mut order) = (vec![0; 512], vec![0; 512]);
    let simd = InstructionSet::detect();
    let mut generator = Generator::new(&plan, simd, &parameters, &[], &mut memory, &mut window).unwrap();
    let mut tokens = vec![BOS];
    for number in 0..200 {
        generator.feed(&tokens[tokens.len() - 1..]).unwrap();
        tokens.push(generator.draw(&Sampling::GREEDY, &mut order, 0, number).unwrap());
    }
    let mut text = vec![0; tokenizer.decoded_len(None, &tokens).unwrap()];
    tokenizer.decode(None, &tokens, &mut text).unwrap();
    assert_eq!(String::from_utf8_lossy(&text).trim_end(), String::from_utf8_lossy(&story).trim_end());
    assert!(!tokens.contains(&EOS));

    // The tables of cosines and sines are PyTorch's, and here correctly rounded.
    let mut again = vec![7; file.len()];
    assert_eq!(Model::write(&plan, &parameters, &[], Version::V0, &mut again), Ok(file.len()));
    let tables = file.len() - 4 * 512 * 8;
    assert!(again[..tables] == file[..tables]);
    for at in (tables..file.len()).step_by(4) {
        let (found, wanted) = (number(&again, at), number(&file, at));
        assert!((found - wanted).abs() < 1e-4, "{found}, not {wanted}");
    }
}

fn refused(file: &[u8]) -> Error {
    Model::new(file).unwrap_err()
}

#[test]
fn files_of_another_length_are_refused() {
    for version in [Version::V0, Version::V1] {
        let file = written(&CONFIG, version);
        let header = if version == Version::V0 { 28 } else { 256 };
        for given in [0, 3, 4, 27, 28, 255, 256, file.len() - 1] {
            let header = if given < 4 { 28 } else { header };
            let error = if given < header {
                Llama2cError::Truncated { given, wanted: header }
            } else {
                Llama2cError::Length { given, wanted: file.len() }
            };
            assert_eq!(refused(&file[..given]), error.into(), "{version:?}");
        }
        let mut longer = file.clone();
        longer.push(0);
        let error = Llama2cError::Length { given: longer.len(), wanted: file.len() };
        assert_eq!(refused(&longer), error.into());
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let names = ["width", "hidden", "layers", "heads", "kv_heads", "vocab", "context"];
    for (version, begin) in [(Version::V0, 0), (Version::V1, 8)] {
        let file = written(&CONFIG, version);
        for (i, what) in names.into_iter().enumerate() {
            for given in [0, -1, i32::MIN] {
                let error = refused(&set(&file, begin + 4 * i, given));
                if what == "vocab" && version == Version::V0 && given == -1 {
                    assert!(matches!(error, Error::Llama2c(Llama2cError::Length { .. })), "{error}");
                    continue;
                }
                // The sign of the first version's vocabulary says whether the head is tied.
                let given = if what == "vocab" && version == Version::V0 { 0 } else { given };
                assert_eq!(error, Llama2cError::Header { what, given }.into());
            }
            assert!(matches!(
                refused(&set(&file, begin + 4 * i, i32::MAX)),
                Error::TooLarge { .. } | Error::Heads { .. } | Error::KvHeads { .. }
            ));
        }
        assert_eq!(refused(&set(&file, begin + 16, 3)), Error::KvHeads { heads: 4, kv_heads: 3 });
        assert_eq!(refused(&set(&file, begin + 12, 5)), Error::Heads { width: 24, heads: 5 });
        let odd = refused(&set(&file, begin + 12, 8));
        assert!(matches!(odd, Error::Range { what: "head_width", given: 3.0, .. }), "{odd}");
    }
    let file = written(&CONFIG, Version::V1);
    let header = |what, given| Error::from(Llama2cError::Header { what, given });
    assert_eq!(refused(&set(&file, 4, 2)), header("version", 2));
    assert_eq!(refused(&set(&file, 36, 2)), header("tied", 2));
}

#[test]
fn models_of_another_shape_are_refused() {
    let file = written(&CONFIG, Version::V0);
    let others = [
        ("hidden", Config { hidden: 8, ..CONFIG }),
        ("context", Config { context: 6, ..CONFIG }),
        ("kv_heads", Config { kv_heads: 4, ..CONFIG }),
        ("norm_epsilon", Config { norm_epsilon: 1e-6, ..CONFIG }),
        ("tied", Config { tied: true, ..CONFIG }),
    ];
    for (what, other) in others {
        let error = Llama2cError::Configuration { what };
        assert_eq!(read(&file, &plan(&other)), Err(error.into()));
    }
    let unsupported = [
        ("qk_norm", Config { qk_norm: true, ..CONFIG }),
        ("qkv_bias", Config { qkv_bias: true, ..CONFIG }),
        ("head_width", Config { head_width: 8, ..CONFIG }),
        ("rope_theta", Config { rope: Rope { theta: 5e5, ..Rope::USUAL }, ..CONFIG }),
        ("activation", Config::new(11, 5, 2, 4, 24)),
    ];
    for (what, config) in unsupported {
        let error = Llama2cError::Unsupported { what };
        assert_eq!(Model::file_len(&config, Version::V1), Err(error.into()));
    }
}

#[test]
fn short_buffers_are_refused_and_nothing_is_written() {
    let (plan, file) = (plan(&CONFIG), written(&CONFIG, Version::V0));
    let mut short = vec![7.0; plan.parameters() - 1];
    let (given, wanted) = (short.len(), plan.parameters());
    let error = Error::Length { what: "parameters", given, wanted };
    assert_eq!(Model::new(&file).unwrap().read(&plan, &mut short), Err(error));
    assert!(short.iter().all(|number| *number == 7.0));

    let mut bytes = vec![7; file.len() - 1];
    let error = Model::write(&plan, &short, &[], Version::V0, &mut bytes);
    assert_eq!(error, Err(Error::Length { what: "parameters", given, wanted }));
    let mut all = vec![0.0; plan.parameters()];
    initialize(InstructionSet::detect(), &plan, &mut all, 1).unwrap();
    let error = Model::write(&plan, &all, &[], Version::V0, &mut bytes);
    assert_eq!(error, Err(Error::Buffer { what: "file", given: file.len() - 1, wanted: file.len() }));
    assert!(bytes.iter().all(|byte| *byte == 7));
}
