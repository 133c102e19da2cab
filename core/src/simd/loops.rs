//! Loops over whole slices that an instruction set may have of its own, where compilers make them twice as long.

/// AdamW's numbers for one tensor at one step. The order of the fields is part of the loops.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct AdamW {
    /// What weight decay leaves.
    pub keep: f32,
    /// That of clipping.
    pub factor: f32,
    pub beta1: f32,
    /// 1 - `beta1`.
    pub fresh1: f32,
    pub beta2: f32,
    /// 1 - `beta2`.
    pub fresh2: f32,
    pub step_size: f32,
    pub second_scale: f32,
    pub epsilon: f32,
}

/// Takes AdamW's step of parameters, first and second moments; whether there is a loop for it. All slices have one
/// length.
#[allow(dead_code, reason = "Cortex-M has its own")]
#[inline(always)]
pub(crate) fn adamw(_: [&mut [f32]; 3], _: &[f32], _: &AdamW) -> bool {
    false
}
