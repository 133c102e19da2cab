//! The parameters by name, those that are trained and those that are not.

use super::{Group, Order, Plan, Site, SiteTensors, Tensor};

/// A slice from whose front pieces are taken.
pub(crate) trait Cut: Sized {
    /// Takes `len` elements off the front; an empty piece where there are not so many.
    fn cut(&mut self, len: usize) -> Self;
}

impl Cut for &[f32] {
    #[inline(never)]
    fn cut(&mut self, len: usize) -> Self {
        debug_assert!(self.len() >= len);
        self.split_off(..len).unwrap_or_default()
    }
}

impl Cut for &mut [f32] {
    #[inline(never)]
    fn cut(&mut self, len: usize) -> Self {
        debug_assert!(self.len() >= len);
        self.split_off_mut(..len).unwrap_or_default()
    }
}

/// A norm's parameters, each `[C]`; the bias is empty where the model has none.
pub(crate) struct Norm<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
}

/// A product's parameters: the matrix, which lies as `order` says, and the bias `[out]` or none.
#[derive(Clone, Copy)]
pub(crate) struct Linear<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub order: Order,
}

/// The parameters of one residual branch of a block.
pub(crate) struct Branch<'a> {
    pub norm: Norm<'a>,
    /// From the residual stream: to queries, keys and values, or to the hidden width.
    pub input: Linear<'a>,
    /// Back to the residual stream.
    pub output: Linear<'a>,
}

/// All parameters of a model, by site.
#[derive(Clone, Copy)]
pub(crate) struct Parameters<'a> {
    plan: &'a Plan,
    trained: &'a [f32],
    frozen: &'a [f32],
}

/// The parameters of one site; a tensor that the model lacks is empty.
#[derive(Clone, Copy)]
struct Values<'a> {
    site: Site,
    weight: &'a [f32],
    bias: &'a [f32],
}

impl<'a> Values<'a> {
    fn norm(self) -> Norm<'a> {
        Norm { weight: self.weight, bias: self.bias }
    }

    fn linear(self) -> Linear<'a> {
        Linear { weight: self.weight, bias: self.bias, order: self.site.order() }
    }
}

impl<'a> Parameters<'a> {
    /// From slices of exactly [`Plan::parameters`] and [`Plan::frozen`] elements.
    pub fn new(trained: &'a [f32], frozen: &'a [f32], plan: &'a Plan) -> Parameters<'a> {
        Parameters { plan, trained, frozen }
    }

    /// The embeddings of tokens `[V, C]` and of positions `[context, C]`.
    pub fn embeddings(&self) -> [&'a [f32]; 2] {
        let [tokens, positions, _] = self.group(Group::Embedding);
        [tokens.weight, positions.weight]
    }

    /// The final norm, and the head's product, whose matrix may be the embedding of tokens.
    pub fn head(&self) -> (Norm<'a>, Linear<'a>) {
        let [norm, mut head, _] = self.group(Group::Logits);
        if self.plan.config.tied {
            [head.weight, _] = self.embeddings();
        }
        (norm.norm(), head.linear())
    }

    pub fn attention(&self, layer: usize) -> Branch<'a> {
        self.branch(Group::Attention { layer })
    }

    pub fn mlp(&self, layer: usize) -> Branch<'a> {
        self.branch(Group::Mlp { layer })
    }

    #[inline(never)]
    fn branch(&self, group: Group) -> Branch<'a> {
        let [norm, input, output] = self.group(group);
        Branch { norm: norm.norm(), input: input.linear(), output: output.linear() }
    }

    #[inline(never)]
    fn group(&self, group: Group) -> [Values<'a>; Group::MOST_SITES] {
        let values = |tensor: Option<Tensor>| {
            let Some(tensor) = tensor else { return &[][..] };
            let all = if tensor.frozen { self.frozen } else { self.trained };
            all.get(tensor.offset..).and_then(|rest| rest.get(..tensor.len())).unwrap_or_default()
        };
        self.plan.group(group).map(|SiteTensors { site, weight, bias }| Values {
            site,
            weight: values(weight),
            bias: values(bias),
        })
    }
}
