//! The parameter tensors of one model, by name, shape and offset, from the family's table.

use core::ops::Range;
use core::{fmt, iter};

use super::family::{self, Family, Group, Initial, Role, Site, Slot};
use super::{Frozen, Plan, greatest};
use crate::compact::format::{self, Number, Sink, Written};
use crate::config::Config;

/// One parameter tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The name. Its `Display` is Hugging Face's name, e.g. `h.0.attn.c_attn.weight`.
    pub name: TensorName,
    /// 1 for biases and norms, 2 for matrices.
    pub rank: usize,
    /// The shape; a vector has its length in `shape[0]` and 1 in `shape[1]`.
    pub shape: [usize; 2],
    /// The offset of its first element in the parameters, or in the frozen parameters.
    pub offset: usize,
    /// Whether it is frozen: see [`crate::Options::frozen`].
    pub frozen: bool,
}

impl Tensor {
    /// The number of elements.
    pub const fn len(&self) -> usize {
        self.shape[0].saturating_mul(self.shape[1])
    }

    /// Always false: a validated configuration has no empty tensor.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensor's role in the model.
    pub fn role(&self) -> Role {
        self.name.slot().map_or(Role::Weight, |slot| slot.role)
    }

    pub(crate) fn initial(&self) -> Initial {
        self.name.slot().map_or(Initial::Zeros, |slot| slot.initial)
    }

    /// Whether it is a matrix of an adapter.
    #[cfg(feature = "lora")]
    pub fn is_adapter(&self) -> bool {
        self.name.slot().is_some_and(|slot| matches!(slot.site, Site::A(_) | Site::B(_)))
    }

    /// The elements of a row. A vector is one row.
    pub(crate) const fn row_len(&self) -> usize {
        if self.rank == 1 { self.shape[0] } else { self.shape[1] }
    }

    /// Whether it is a factor of a product. The token embedding is one if the head is tied.
    pub(crate) fn is_factor(&self, tied: bool) -> bool {
        self.role() == Role::Weight || tied && self.name.slot().is_some_and(|slot| slot.site == Site::Tokens)
    }
}

/// A tensor's name without a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorName {
    /// The row of the family's table.
    row: usize,
    layer: usize,
}

impl TensorName {
    fn slot(&self) -> Option<&'static Slot> {
        family::slot(self.row)
    }

    /// The tensor with this name, if the configuration has one.
    fn find(config: &Config, name: &[u8]) -> Option<TensorName> {
        let family = Family::of(config);
        let numbered = name.strip_prefix(family.prefix.as_bytes()).and_then(|rest| {
            let dot = rest.iter().position(|byte| *byte == b'.')?;
            Some((format::whole(rest.get(..dot)?)?, rest.get(dot + 1..)?))
        });
        let (layer, name_in_block) = numbered.unwrap_or((0, name));
        let ([first, end], [_, block_end]) = (family.all(), family.block());
        let is_named =
            |row: &usize| family::name(*row).is_some_and(|known| known.as_bytes() == name_in_block);
        let row = (first..end).find(is_named)?;
        let layer = if row < block_end { usize::try_from(layer).ok()? } else { config.layers };
        let found = TensorName { row, layer };
        // The comparison refuses a block's tensor without a number, other tensors with one, and leading zeros.
        let exists = (layer < config.layers || row >= block_end) && found.slot()?.exists(config);
        (exists && found.has(name)).then_some(found)
    }

    fn place(&self, config: &Config) -> usize {
        family::place(self.row, self.layer, config)
    }

    /// Whether `name` is the name of this tensor, e.g. `h.0.attn.c_attn.weight`.
    pub fn is(&self, name: &str) -> bool {
        self.has(name.as_bytes())
    }

    fn has(&self, name: &[u8]) -> bool {
        let mut rest = Rest(Some(name));
        self.write(&mut rest);
        rest.0 == Some(&[])
    }
}

/// The rest of a text after a prefix, if the text begins with the prefix.
struct Rest<'a>(Option<&'a [u8]>);

impl Sink for Rest<'_> {
    fn put(&mut self, text: &[u8]) {
        self.0 = self.0.and_then(|rest| rest.strip_prefix(text));
    }
}

impl Written for TensorName {
    fn write(&self, out: &mut dyn Sink) {
        let Some(name) = family::name(self.row) else { return };
        let family = Family::with(self.row);
        let [block, end] = family.block();
        if (block..end).contains(&self.row) {
            out.put(family.prefix.as_bytes());
            Number(self.layer as u64).write(out);
            out.put(b".");
        }
        out.put(name.as_bytes());
    }
}

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format::display(self, f)
    }
}

/// A weight and a bias of one site that are adjacent, or one of them.
#[derive(Clone, Copy)]
pub(crate) struct SiteTensors {
    pub site: Site,
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
}

/// Iterator over a group's tensors in memory order, in pairs.
pub(crate) struct Pairs<'a> {
    tensors: Tensors<'a>,
    /// The rows of the table that are to come.
    rows: Range<usize>,
    layer: usize,
}

impl Pairs<'_> {
    /// The next tensor, and its row of the table. With a condition, only if its slot fulfils it.
    #[inline(never)]
    pub fn next_tensor(&mut self, bias_of: Option<Site>) -> Option<(usize, Tensor)> {
        for row in self.rows.clone() {
            let slot = family::slot(row)?;
            if slot.exists(self.tensors.config) {
                if bias_of.is_some_and(|site| site != slot.site || !slot.is_bias()) {
                    return None;
                }
                self.rows.start = row + 1;
                return Some((row, self.tensors.next_is(TensorName { row, layer: self.layer }, slot)));
            }
        }
        None
    }
}

impl Iterator for Pairs<'_> {
    type Item = SiteTensors;

    fn next(&mut self) -> Option<SiteTensors> {
        let (row, tensor) = self.next_tensor(None)?;
        let slot = family::slot(row)?;
        let site = slot.site;
        if slot.is_bias() {
            return Some(SiteTensors { site, weight: None, bias: Some(tensor) });
        }
        let bias = self.next_tensor(Some(site)).map(|(_, tensor)| tensor);
        Some(SiteTensors { site, weight: Some(tensor), bias })
    }
}

impl Plan {
    /// The tensors of a group.
    #[inline(never)]
    pub(crate) fn pairs(&self, group: Group) -> Pairs<'_> {
        let config = &self.config;
        let [place, _] = group.places(config);
        let [first, end] = Family::of(config).of_group(group);
        let layer = group.layer(config.layers);
        let frozen = &self.options.frozen;
        let tensors = if frozen.is_none() {
            let [embeddings, attention, mlp] = self.groups;
            let before = match group {
                Group::Embedding => 0,
                Group::Mlp { .. } => embeddings + attention,
                Group::Attention { .. } | Group::Logits => embeddings,
            };
            let offset = before.wrapping_add(layer.wrapping_mul(attention + mlp));
            Tensors { place, offsets: [offset, 0], ..Tensors::new(config, frozen) }
        } else {
            Tensors::from_place(config, frozen, place)
        };
        Pairs { tensors, rows: first..end, layer }
    }

    /// Whether backward reaches a group: whether that group, or one before it, has a trained tensor.
    pub(crate) fn reaches(&self, group: Group) -> bool {
        let [_, end] = group.places(&self.config);
        let mut tensors = self.tensors();
        iter::from_fn(|| tensors.next_before(end)).any(|tensor| !tensor.frozen)
    }

    /// The group of the first trained tensor, at which backward ends.
    pub(crate) fn first_trained(&self) -> Option<Group> {
        let TensorName { row, layer } = self.tensors().find(|tensor| !tensor.frozen)?.name;
        let groups = [Group::Embedding, Group::Attention { layer }, Group::Mlp { layer }, Group::Logits];
        let holds = |group: &Group| {
            let [first, end] = Family::of(&self.config).of_group(*group);
            (first..end).contains(&row)
        };
        groups.into_iter().find(holds)
    }
}

impl Group {
    /// The layer in the names of the group's tensors.
    const fn layer(self, layers: usize) -> usize {
        match self {
            Group::Embedding => 0,
            Group::Attention { layer } | Group::Mlp { layer } => layer,
            Group::Logits => layers,
        }
    }

    /// The place of the group's first tensor, and of the first tensor after the group, in a model that has all
    /// tensors.
    const fn places(self, config: &Config) -> [usize; 2] {
        let [first, end] = Family::of(config).of_group(self);
        let place = family::place(first, self.layer(config.layers), config);
        [place, place.wrapping_add(end - first)]
    }
}

/// Iterator over the parameter tensors; see [`super::Plan::tensors`].
#[derive(Clone, Debug)]
pub struct Tensors<'a> {
    config: &'a Config,
    frozen: &'a Frozen,
    /// The place of the next tensor in a model that has all tensors.
    place: usize,
    /// Its number, unless it is beyond those that can be frozen.
    number: usize,
    /// The offset of the next tensor if it is trained, and if it is frozen.
    offsets: [usize; 2],
}

impl<'a> Tensors<'a> {
    pub(super) fn new(config: &'a Config, frozen: &'a Frozen) -> Tensors<'a> {
        Tensors { config, frozen, place: 0, number: 0, offsets: [0; 2] }
    }

    /// The iterator from a place on, in a time that does not grow with the place.
    pub(super) fn from_place(config: &'a Config, frozen: &'a Frozen, place: usize) -> Tensors<'a> {
        let mut tensors = Tensors::new(config, frozen);
        // Only the first tensors can be frozen. The offsets of those after them are known.
        while !frozen.is_none() && tensors.number < Frozen::MOST && tensors.next_before(place).is_some() {}
        if tensors.place < place {
            let all = family::elements_before(place, config).get();
            tensors.offsets[0] = all.wrapping_sub(tensors.offsets[1]);
            tensors.place = place;
        }
        tensors
    }

    /// The tensor with this name.
    #[inline(never)]
    pub(super) fn named(config: &'a Config, frozen: &'a Frozen, name: &[u8]) -> Option<(usize, Tensor)> {
        let place = TensorName::find(config, name)?.place(config);
        let number = family::count_before(place, config);
        Some((number, Tensors::from_place(config, frozen, place).next()?))
    }

    /// The next tensor, if its place is before `end`.
    #[inline(never)]
    fn next_before(&mut self, end: usize) -> Option<Tensor> {
        let (place, row, layer) = family::next(self.place, self.config)?;
        if place >= end {
            return None;
        }
        self.place = place + 1;
        Some(self.next_is(TensorName { row, layer }, family::slot(row)?))
    }

    /// The next tensor, which has this name.
    #[inline(never)]
    fn next_is(&mut self, name: TensorName, slot: &Slot) -> Tensor {
        let frozen = self.frozen.has(self.number);
        self.number += 1;
        let [trained, not] = &mut self.offsets;
        let end = if frozen { not } else { trained };
        let tensor = Tensor { name, rank: slot.rank(), shape: slot.shape(self.config), offset: *end, frozen };
        *end = end.wrapping_add(tensor.len());
        tensor
    }
}

impl Iterator for Tensors<'_> {
    type Item = Tensor;

    fn next(&mut self) -> Option<Tensor> {
        self.next_before(usize::MAX)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let end = family::count_before(family::places(self.config), self.config);
        let left = end.saturating_sub(family::count_before(self.place, self.config));
        (left, Some(left))
    }

    fn nth(&mut self, n: usize) -> Option<Tensor> {
        let count = |place| family::count_before(place, self.config);
        let number = count(self.place).checked_add(n)?;
        // The tensor with that number has the last place before which there are that many.
        let last = family::places(self.config).saturating_sub(1);
        let place = greatest(self.place, last, |place| count(place) <= number);
        let found = count(place) == number;
        *self = Tensors::from_place(self.config, self.frozen, place);
        if found { self.next() } else { None }
    }
}

impl ExactSizeIterator for Tensors<'_> {
    // The provided one can panic.
    fn len(&self) -> usize {
        self.size_hint().0
    }
}
