//! The parameters by site, trained and frozen ones.

use super::{Group, Order, Plan, SiteTensors, Tensor};
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

    /// The embeddings of tokens `[V, C]` and of positions `[context, C]`.
    pub fn embeddings(&self) -> [&'a [f32]; 2] {
        let [tokens, positions, _] = self.of(Group::Embedding);
        [tokens.weight, positions.weight]
    }

    /// The final norm and the head's product, whose matrix may be the token embedding.
    pub fn head(&self) -> [Affine<'a>; 2] {
        let [norm, mut head, _] = self.of(Group::Logits);
        if self.plan.config.tied {
            [head.weight, _] = self.embeddings();
        }
        [norm, head]
    }

    /// The parameters of a group's sites; of a block's branch these are the norm, and the products from and to the residual
    /// stream.
    #[inline(never)]
    pub fn of(&self, group: Group) -> [Affine<'a>; Group::MOST_SITES] {
        self.plan.group(group).each_ref().map(|SiteTensors { site, weight, bias }| Affine {
            weight: self.values(weight),
            bias: self.values(bias),
            order: site.order(),
        })
    }

    /// A tensor's values, from the one or the other buffer.
    #[inline(never)]
    fn values(&self, tensor: &Option<Tensor>) -> &'a [f32] {
        let Some(tensor) = tensor else { return &[] };
        let all = if tensor.frozen { self.frozen } else { self.trained };
        all.get(tensor.offset..).and_then(|rest| rest.get(..tensor.len())).unwrap_or_default()
    }
}
