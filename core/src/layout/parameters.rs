//! The parameters by name, those that are trained and those that are not.

use super::{Group, Plan, Tensor};

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

/// One block's parameters, by name.
pub(crate) struct Block<'a> {
    pub ln_1: Norm<'a>,
    /// Query, key and value at once: `[C, 3C]`.
    pub c_attn: Linear<'a>,
    /// `[C, C]`.
    pub attention_projection: Linear<'a>,
    pub ln_2: Norm<'a>,
    /// Into the hidden width: `[C, F]`.
    pub c_fc: Linear<'a>,
    /// Back to the residual stream: `[F, C]`.
    pub mlp_projection: Linear<'a>,
}

/// All parameters of a model, by name.
pub(crate) struct Parameters<'a> {
    trained: &'a [f32],
    frozen: &'a [f32],
    /// `wte`: `[V, C]`.
    pub token_embedding: &'a [f32],
    /// `wpe`: `[context, C]`.
    pub position_embedding: &'a [f32],
    /// Before the head.
    pub final_norm: Norm<'a>,
    /// The head's matrix, tied or not: `[V, C]`.
    pub head: &'a [f32],
}

impl<'a> Parameters<'a> {
    /// From slices of exactly [`Plan::parameters`] and [`Plan::frozen`] elements.
    pub fn new(trained: &'a [f32], frozen: &'a [f32], plan: &Plan) -> Parameters<'a> {
        let of = |tensor| values(trained, frozen, tensor);
        let [token_embedding, position_embedding, ..] = plan.group(Group::Embedding).map(of);
        let [weight, bias, head, ..] = plan.group(Group::Head).map(of);
        let head = if plan.config.tied { token_embedding } else { head };
        let final_norm = Norm { weight, bias };
        Parameters { trained, frozen, token_embedding, position_embedding, final_norm, head }
    }

    /// A block's.
    pub fn block(&self, plan: &Plan, layer: usize) -> Block<'a> {
        let of = |tensor| values(self.trained, self.frozen, tensor);
        let half = |group| {
            let [norm, norm_bias, first, first_bias, second, second_bias] = plan.group(group).map(of);
            let linear = |weight, bias| Linear { weight, bias };
            let norm = Norm { weight: norm, bias: norm_bias };
            (norm, linear(first, first_bias), linear(second, second_bias))
        };
        let (ln_1, c_attn, attention_projection) = half(Group::Attention { layer });
        let (ln_2, c_fc, mlp_projection) = half(Group::Mlp { layer });
        Block { ln_1, c_attn, attention_projection, ln_2, c_fc, mlp_projection }
    }
}

/// A tensor's values, wherever they lie; none of a tensor that the model has not.
fn values<'a>(trained: &'a [f32], frozen: &'a [f32], tensor: Option<Tensor>) -> &'a [f32] {
    let Some(tensor) = tensor else { return &[] };
    let all = if tensor.frozen { frozen } else { trained };
    all.get(tensor.offset..).and_then(|rest| rest.get(..tensor.len())).unwrap_or_default()
}
