//! The parameters by name, those that are trained and those that are not.

use super::{Group, Plan};

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

/// A product's parameters: weight `[in, out]` as in Hugging Face GPT-2's `Conv1D`, bias `[out]` or empty.
pub(crate) struct Linear<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
}

impl<'a> Linear<'a> {
    pub fn parts(&self) -> (&'a [f32], &'a [f32]) {
        (self.weight, self.bias)
    }
}

/// The parameters of half a block, by name.
pub(crate) struct Half<'a> {
    pub norm: Norm<'a>,
    /// Query, key and value at once, `[C, 3C]`; or into the hidden width, `[C, F]`.
    pub first: Linear<'a>,
    /// Back to the residual stream: `[C, C]` or `[F, C]`.
    pub second: Linear<'a>,
}

/// All parameters of a model, by name.
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

    /// Those of tokens `[V, C]`, `wte`, and of positions `[context, C]`, `wpe`.
    pub fn embeddings(&self) -> (&'a [f32], &'a [f32]) {
        let [tokens, positions, ..] = self.group(Group::Embedding);
        (tokens, positions)
    }

    /// The norm before the head, and the head's matrix, tied or not: `[V, C]`.
    pub fn head(&self) -> (Norm<'a>, &'a [f32]) {
        let [weight, bias, head, ..] = self.group(Group::Head);
        (Norm { weight, bias }, if self.plan.config.tied { self.embeddings().0 } else { head })
    }

    /// A block's first half.
    pub fn attention(&self, layer: usize) -> Half<'a> {
        self.half(Group::Attention { layer })
    }

    /// A block's second half.
    pub fn mlp(&self, layer: usize) -> Half<'a> {
        self.half(Group::Mlp { layer })
    }

    #[inline(never)]
    fn half(&self, group: Group) -> Half<'a> {
        let [norm, norm_bias, first, first_bias, second, second_bias] = self.group(group);
        Half {
            norm: Norm { weight: norm, bias: norm_bias },
            first: Linear { weight: first, bias: first_bias },
            second: Linear { weight: second, bias: second_bias },
        }
    }

    /// The values of a group's tensors, wherever they lie; none of those that the model has not.
    #[inline(never)]
    fn group(&self, group: Group) -> [&'a [f32]; Group::MOST] {
        self.plan.group(group).map(|tensor| {
            let Some(tensor) = tensor else { return &[][..] };
            let all = if tensor.frozen { self.frozen } else { self.trained };
            all.get(tensor.offset..).and_then(|rest| rest.get(..tensor.len())).unwrap_or_default()
        })
    }
}
