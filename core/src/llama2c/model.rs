//! Models: a header with the sizes, and the numbers of all tensors as f32, all little-endian.
//!
//! | version | header | order of the tensors |
//! |---|---|---|
//! | 0 | seven i32: [`SIZES`]; `vocab` is negative if the head is untied | [`V0`], with the tables of rotary positions |
//! | 1 | 256 bytes: a magic number, 1, the same seven, a byte that is 1 if the head is tied | [`V1`] |
//!
//! Each kind of tensor is there for all layers, one behind the other. The matrices are Llama's, but the two elements of a head
//! that rotate together are neighbours. So the rows of a head's query and key matrix go in pairs, and here in halves.

use super::word;
use crate::compact::turns::{cosine_and_sine, root};
use crate::config::{Config, Field};
use crate::error::{Error, Llama2cError, at_least, exact_length};
use crate::layout::{Group, Plan, Site, SiteTensors, Tensor};

/// The version of a model's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The first one, which stories260K.bin has.
    V0,
    /// The one with a magic number.
    V1,
}

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The weight of a site, of each layer if it is in a block.
    Weight(Site),
    /// The cosines and sines `[context, D/2]`, which readers skip.
    Angles,
}

use Part::{Angles, Weight};

const V0: [Part; 13] = [
    Weight(Site::Tokens),
    Weight(Site::AttentionNorm),
    Weight(Site::Query),
    Weight(Site::Key),
    Weight(Site::Value),
    Weight(Site::AttentionOut),
    Weight(Site::MlpNorm),
    Weight(Site::Gate),
    Weight(Site::MlpOut),
    Weight(Site::MlpIn),
    Weight(Site::FinalNorm),
    Angles,
    Weight(Site::Logits),
];

const V1: [Part; 12] = [
    Weight(Site::AttentionNorm),
    Weight(Site::MlpNorm),
    Weight(Site::FinalNorm),
    Weight(Site::Tokens),
    Weight(Site::Query),
    Weight(Site::Key),
    Weight(Site::Value),
    Weight(Site::AttentionOut),
    Weight(Site::Gate),
    Weight(Site::MlpOut),
    Weight(Site::MlpIn),
    Weight(Site::Logits),
];

/// The first number of version 1.
const MAGIC: u32 = 0x616b_3432;
const SIZES: [&str; 7] = ["width", "hidden", "layers", "heads", "kv_heads", "vocab", "context"];
/// The place of the vocabulary in [`SIZES`]; in version 0, its sign says whether the head is tied.
const VOCAB: usize = 5;
/// The bytes of a number.
const NUMBER: usize = size_of::<f32>();

impl Version {
    const fn parts(self) -> &'static [Part] {
        match self {
            Version::V0 => &V0,
            Version::V1 => &V1,
        }
    }

    /// The bytes before the sizes, and before the tensors.
    const fn header(self) -> [usize; 2] {
        match self {
            Version::V0 => [0, SIZES.len() * NUMBER],
            Version::V1 => [2 * NUMBER, 256],
        }
    }
}

impl Part {
    /// The elements in one layer, and the number of layers.
    fn elements(self, config: &Config) -> [usize; 2] {
        let Config { vocab, context, layers, width, hidden, tied, .. } = *config;
        let (queries, keys) = (config.attended(), config.kv_width());
        let matrix = |rows: usize| rows.saturating_mul(width);
        match self {
            Weight(Site::Tokens) => [matrix(vocab), 1],
            Weight(Site::Logits) => [if tied { 0 } else { matrix(vocab) }, 1],
            Weight(Site::FinalNorm) => [width, 1],
            Weight(Site::Query | Site::AttentionOut) => [matrix(queries), layers],
            Weight(Site::Key | Site::Value) => [matrix(keys), layers],
            Weight(Site::Gate | Site::MlpIn | Site::MlpOut) => [matrix(hidden), layers],
            Weight(_) => [width, layers],
            Angles => [context.saturating_mul(config.head_width()), 1],
        }
    }

    /// Where a layer's numbers begin in a file, in bytes. The end of the file for a part that the version lacks.
    fn place(self, version: Version, config: &Config, layer: usize) -> usize {
        let mut numbers = 0_usize;
        for part in version.parts() {
            let [elements, layers] = part.elements(config);
            let before = if *part == self { layer } else { layers };
            numbers = numbers.saturating_add(elements.saturating_mul(before));
            if *part == self {
                break;
            }
        }
        numbers.saturating_mul(NUMBER).saturating_add(version.header()[1])
    }
}

/// A model in a file's bytes.
///
/// ```no_run
/// use jostle::{Options, Plan, llama2c};
/// let file = std::fs::read("stories260K.bin").unwrap();
/// let model = llama2c::Model::new(&file)?;
/// let plan = Plan::new(model.config(), &Options::new(1))?;
/// let mut parameters = vec![0.0; plan.parameters()];
/// model.read(&plan, &mut parameters)?;
/// # Ok::<(), jostle::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    file: &'a [u8],
    version: Version,
    config: Config,
}

impl<'a> Model<'a> {
    /// Examines a file: its header, the configuration, and its length, which must be exactly what the header says.
    pub fn new(file: &'a [u8]) -> Result<Model<'a>, Error> {
        let truncated = |wanted| Llama2cError::Truncated { given: file.len(), wanted };
        let [_, shortest] = Version::V0.header();
        let first = word(file, 0).ok_or(truncated(shortest))?;
        let version = if first == MAGIC.to_le_bytes() { Version::V1 } else { Version::V0 };
        let [at, begin] = version.header();
        if file.len() < begin {
            return Err(truncated(begin).into());
        }
        let number = |at| word(file, at).map_or(0, i32::from_le_bytes);
        if version == Version::V1 && number(NUMBER) != 1 {
            return Err(Llama2cError::Header { what: "version", given: number(NUMBER) }.into());
        }
        let mut sizes = [0; SIZES.len()];
        for (i, (size, what)) in sizes.iter_mut().zip(SIZES).enumerate() {
            let given = number(at + NUMBER * i);
            let is_signed = i == VOCAB && version == Version::V0;
            let given = if is_signed { given.checked_abs().unwrap_or(0) } else { given };
            let positive = usize::try_from(given).ok().filter(|size| *size > 0);
            *size = positive.ok_or(Llama2cError::Header { what, given })?;
        }
        let tied = match (version, file.get(at + NUMBER * SIZES.len())) {
            (Version::V0, _) => number(at + NUMBER * VOCAB) > 0,
            (Version::V1, Some(flag @ (0 | 1))) => *flag == 1,
            (Version::V1, flag) => {
                let given = flag.copied().unwrap_or(0).into();
                return Err(Llama2cError::Header { what: "tied", given }.into());
            }
        };
        let [width, hidden, layers, heads, kv_heads, vocab, context] = sizes;
        let llama = Config::llama(vocab, context, layers, heads, kv_heads, width, hidden);
        let config = Config { tied, ..llama };
        config.validate()?;
        let (given, wanted) = (file.len(), file_len(&config, version));
        if given != wanted {
            return Err(Llama2cError::Length { given, wanted }.into());
        }
        Ok(Model { file, version, config })
    }

    /// Llama's, with the sizes of the header.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The version of the file.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Reads the numbers of all tensors but the frozen ones. [`Error::Llama2c`] if the plan is for a model of another shape.
    pub fn read(&self, plan: &Plan, parameters: &mut [f32]) -> Result<(), Error> {
        exact_length("parameters", parameters.len(), plan.parameters)?;
        let (mut given, mut wanted) = (self.config.derived(), plan.config.derived());
        for field in Field::ALL.iter().filter(|field| field.shapes_model()) {
            if given.value(*field).bits() != wanted.value(*field).bits() {
                return Err(Llama2cError::Configuration { what: field.name() }.into());
            }
        }
        for (place, tensor) in weights(plan).filter(|(_, tensor)| !tensor.frozen) {
            let numbers = parameters.get_mut(tensor.offset..).unwrap_or_default();
            let numbers = numbers.get_mut(..tensor.len()).unwrap_or_default();
            for (row, at) in numbers.chunks_mut(tensor.row_len().max(1)).zip(rows(
                &self.config,
                self.version,
                place,
                &tensor,
            )) {
                let bytes = self.file.get(at..).unwrap_or_default().as_chunks().0;
                row.iter_mut().zip(bytes).for_each(|(number, bytes)| *number = f32::from_le_bytes(*bytes));
            }
        }
        Ok(())
    }

    /// The length of the file of a configuration. [`Error::Unsupported`] if such files do not have a value of it.
    pub fn file_len(config: &Config, version: Version) -> Result<usize, Error> {
        let Config { vocab, context, layers, heads, width, hidden, tied, dropout, initial_std, .. } = *config;
        let llama = Config::llama(vocab, context, layers, heads, config.kv_heads(), width, hidden);
        let (mut wanted, mut given) =
            (Config { tied, dropout, initial_std, ..llama }.derived(), config.derived());
        for field in Field::ALL {
            if wanted.value(*field).bits() != given.value(*field).bits() {
                return Err(Llama2cError::Unsupported { what: field.name() }.into());
            }
        }
        Ok(file_len(config, version))
    }

    /// Writes a model to the front of `file`, and returns its length. Both kinds of parameters are the plan's.
    pub fn write(
        plan: &Plan,
        parameters: &[f32],
        frozen: &[f32],
        version: Version,
        file: &mut [u8],
    ) -> Result<usize, Error> {
        exact_length("parameters", parameters.len(), plan.parameters)?;
        exact_length("frozen parameters", frozen.len(), plan.frozen)?;
        let config = &plan.config;
        let length = Model::file_len(config, version)?;
        at_least("file", file.len(), length)?;
        let [at, begin] = version.header();
        let mut put = |at: usize, bytes: [u8; NUMBER]| {
            if let Some(place) = file.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                *place = bytes;
            }
        };
        (0..begin).step_by(NUMBER).for_each(|at| put(at, [0; NUMBER]));
        if version == Version::V1 {
            put(0, MAGIC.to_le_bytes());
            put(NUMBER, 1_i32.to_le_bytes());
            put(at + NUMBER * SIZES.len(), i32::from(config.tied).to_le_bytes());
        }
        let Config { vocab, context, layers, heads, width, hidden, tied, .. } = *config;
        let sizes = [width, hidden, layers, heads, config.kv_heads(), vocab, context].map(|size| size as i32);
        for (i, size) in sizes.into_iter().enumerate() {
            let is_negative = i == VOCAB && version == Version::V0 && !tied;
            put(at + NUMBER * i, (if is_negative { -size } else { size }).to_le_bytes());
        }
        for (place, tensor) in weights(plan) {
            let from = if tensor.frozen { frozen } else { parameters };
            let numbers = from.get(tensor.offset..).unwrap_or_default();
            let numbers = numbers.get(..tensor.len()).unwrap_or_default();
            for (row, at) in
                numbers.chunks(tensor.row_len().max(1)).zip(rows(config, version, place, &tensor))
            {
                (at..).step_by(NUMBER).zip(row).for_each(|(at, number)| put(at, number.to_le_bytes()));
            }
        }
        if version == Version::V0 {
            angles(config, |at, number| put(at, number.to_le_bytes()));
        }
        Ok(length)
    }
}

fn file_len(config: &Config, version: Version) -> usize {
    let (last, layers) = (Weight(Site::Logits), 1);
    last.place(version, config, layers)
}

/// The weights of a plan, with their sites and layers; outside of blocks the layer is 0.
fn weights(plan: &Plan) -> impl Iterator<Item = ((Site, usize), Tensor)> {
    let blocks = (0..plan.config.layers)
        .flat_map(|layer| [(Group::Attention { layer }, layer), (Group::Mlp { layer }, layer)]);
    let groups = [(Group::Embedding, 0)].into_iter().chain(blocks).chain([(Group::Logits, 0)]);
    groups.flat_map(|(group, layer)| {
        let weight = move |pair: SiteTensors| pair.weight.map(|weight| ((pair.site, layer), weight));
        plan.pairs(group).filter_map(weight)
    })
}

/// Where each row of a tensor begins in a file.
fn rows(
    config: &Config,
    version: Version,
    (site, layer): (Site, usize),
    tensor: &Tensor,
) -> impl Iterator<Item = usize> {
    let begin = Weight(site).place(version, config, layer);
    let (half, bytes) = (config.head_width() / 2, NUMBER * tensor.row_len());
    let in_pairs = matches!(site, Site::Query | Site::Key);
    (0..).map(move |row: usize| {
        let in_file = match row.checked_rem(2 * half) {
            Some(of_head) if in_pairs && of_head < half => row + of_head,
            Some(of_head) if in_pairs => row + of_head + 1 - 2 * half,
            _ => row,
        };
        begin + in_file * bytes
    })
}

/// The tables of version 0: the cosines of all positions, then the sines.
fn angles(config: &Config, mut put: impl FnMut(usize, f32)) {
    let begin = Angles.place(Version::V0, config, 0);
    let half = config.head_width() / 2;
    let sines = begin + NUMBER * half * config.context;
    for i in 0..half {
        let frequency = 1.0 / root(config.rope.theta, i as f32 / half as f32);
        for position in 0..config.context {
            let [cos, sin] = cosine_and_sine(position as f32 * frequency);
            let at = NUMBER * (position * half + i);
            put(begin + at, cos);
            put(sines + at, sin);
        }
    }
}
