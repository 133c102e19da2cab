//! The parameters by site, trained and frozen ones.

use core::ops::Range;

use super::{Group, Order, Plan, Site, Tensor, family};
use crate::config::{Config, LLAMA, Module};
use crate::fault;

/// A slice that pieces are cut off from.
pub(crate) trait Cut: Sized {
    /// Cuts `len` elements off the front. The piece is empty if there are fewer.
    fn cut(&mut self, len: usize) -> Self;
}

impl Cut for &[f32] {
    #[inline(never)]
    fn cut(&mut self, len: usize) -> Self {
        self.split_off(..len).unwrap_or_else(|| {
            fault::report(&"regions of memory");
            &[]
        })
    }
}

impl Cut for &mut [f32] {
    #[inline(never)]
    fn cut(&mut self, len: usize) -> Self {
        self.split_off_mut(..len).unwrap_or_else(|| {
            fault::report(&"regions of memory");
            &mut []
        })
    }
}

/// The parameters of a norm, each `[C]`, or of a product, whose matrix has the order `order`. The bias is empty if
/// the model has none.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub order: Order,
}

/// A product that computes some of the columns that several sites write side by side.
pub(crate) struct Part<'a> {
    pub affine: Affine<'a>,
    pub columns: Range<usize>,
}

/// All parameters of a model, by site.
#[derive(Clone, Copy)]
pub(crate) struct Parameters<'a> {
    plan: &'a Plan,
    trained: &'a [f32],
    frozen: &'a [f32],
}

impl<'a> Parameters<'a> {
    /// From slices of exactly [`Plan::parameters`] and [`Plan::frozen`] elements.
    pub fn new(trained: &'a [f32], frozen: &'a [f32], plan: &'a Plan) -> Parameters<'a> {
        Parameters { plan, trained, frozen }
    }

    /// The embeddings of tokens `[V, C]` and of positions `[context, C]`, which are empty if positions are rotary.
    pub fn embeddings(&self) -> [&'a [f32]; 2] {
        let group = self.of(Group::Embedding);
        [group.affine(Site::Tokens).weight, group.affine(Site::Positions).weight]
    }

    /// The final norm and the head's product, whose matrix may be the token embedding.
    pub fn head(&self) -> [Affine<'a>; 2] {
        let group = self.of(Group::Logits);
        let mut head = group.affine(Site::Logits);
        if self.plan.config.tied {
            [head.weight, _] = self.embeddings();
        }
        [group.affine(Site::FinalNorm), head]
    }

    /// The parameters of a group's sites.
    #[inline(never)]
    pub fn of(&self, group: Group) -> GroupParameters<'a> {
        let (mut tensors, mut members) = (self.plan.pairs(group), [None; Group::MOST_TENSORS]);
        let mut places = members.iter_mut();
        while let Some((row, Tensor { offset, frozen, .. })) = tensors.next_tensor(None)
            && let Some(place) = places.next()
        {
            *place = Some(Member { row: row as u8, frozen, offset });
        }
        GroupParameters { all: *self, members }
    }

    /// The values of `len` elements from a tensor's first one on, from the one or the other buffer.
    #[inline(never)]
    fn values(&self, tensor: Option<Member>, len: usize) -> &'a [f32] {
        let Some(tensor) = tensor else { return &[] };
        let all = if tensor.frozen { self.frozen } else { self.trained };
        all.get(tensor.offset..).and_then(|rest| rest.get(..len)).unwrap_or_default()
    }
}

/// A tensor, in few bytes: devices keep a group on the stack.
#[derive(Clone, Copy)]
struct Member {
    /// Its row of the table.
    row: u8,
    frozen: bool,
    offset: usize,
}

impl Member {
    fn shape(tensor: Option<Member>, config: &Config) -> [usize; 2] {
        let slot = tensor.and_then(|tensor| family::slot(tensor.row.into()));
        slot.map_or([0, 0], |slot| slot.shape(config))
    }

    fn len(tensor: Option<Member>, config: &Config) -> usize {
        let [rows, columns] = Member::shape(tensor, config);
        rows * columns
    }
}

/// The parameters of a group.
pub(crate) struct GroupParameters<'a> {
    all: Parameters<'a>,
    members: [Option<Member>; Group::MOST_TENSORS],
}

impl<'a> GroupParameters<'a> {
    /// The weight and the bias of a site.
    #[inline(never)]
    fn tensors(&self, site: Site) -> [Option<Member>; 2] {
        let mut found = [None; 2];
        for member in self.members.iter().flatten() {
            if let Some(slot) = family::slot(member.row.into()).filter(|slot| slot.site == site) {
                *(if slot.is_bias() { &mut found[1] } else { &mut found[0] }) = Some(*member);
            }
        }
        found
    }

    /// The parameters of one site.
    #[inline(never)]
    pub fn affine(&self, site: Site) -> Affine<'a> {
        let nothing = Affine { weight: &[], bias: &[], order: Order::OutIn };
        self.part(&mut &[site][..], 0).map_or(nothing, |part| part.affine)
    }

    /// The matrices A `[r, in]` and B `[out, r]` of an adapter.
    #[inline(never)]
    pub fn adapter(&self, module: Module) -> [&'a [f32]; 2] {
        [Site::A(module), Site::B(module)].map(|site| {
            let [matrix, _] = self.tensors(site);
            self.all.values(matrix, Member::len(matrix, &self.all.plan.config))
        })
    }

    /// The next product of sites that write their columns side by side, from a column on. Sites whose parameters lie one
    /// behind the other are one product.
    #[inline(never)]
    pub fn part(&self, sites: &mut &[Site], column: usize) -> Option<Part<'a>> {
        let ((site, mut rest), config) = (sites.split_first()?, &self.all.plan.config);
        let order = site.order(config);
        let [weight, bias] = self.tensors(*site);
        let outputs = |tensor: Option<Member>| {
            let [rows, columns] = Member::shape(tensor, config);
            if order == Order::InOut { columns } else { rows }
        };
        let len = |tensor: Option<Member>| Member::len(tensor, config);
        let (mut columns, mut elements, mut of_bias) = (outputs(weight), len(weight), len(bias));
        let is_frozen = |tensor: Option<Member>| tensor.map(|tensor| tensor.frozen);
        while LLAMA && let Some((next, after)) = rest.split_first() {
            let [next_weight, next_bias] = self.tensors(*next);
            if [next_weight, next_bias].map(is_frozen) != [weight, bias].map(is_frozen) {
                break;
            }
            columns += outputs(next_weight);
            elements += len(next_weight);
            of_bias += len(next_bias);
            rest = after;
        }
        *sites = rest;
        let (weight, bias) = (self.all.values(weight, elements), self.all.values(bias, of_bias));
        Some(Part { affine: Affine { weight, bias, order }, columns: column..column + columns })
    }
}
