//! The caller's memory for a model: parameters, gradients, optimiser state, workspace.

use jostle::Plan;

use core::mem::offset_of;

use crate::border::{Buffers, Structure};
use crate::status::Refused;

/// The caller's memory for a model. Each function says which of the buffers it uses; the others may be NULL. Buffers
/// that a function uses must not overlap. Trainers and generators keep using theirs: as long as they are used, the buffers
/// stay where they are, and nobody else writes them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_buffers {
    /// sizeof(jostle_buffers).
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// The parameters that are trained; see jostle_initialize. Passes without a trainer, generators and functions that
    /// write checkpoints only read them.
    pub parameters: *mut f32,
    /// Bytes; at least the plan's parameters_size.
    pub parameters_size: usize,
    /// The parameters that are frozen, which are only read. May be NULL if the plan's frozen_size is 0.
    pub frozen: *const f32,
    /// Bytes; at least the plan's frozen_size.
    pub frozen_size: usize,
    /// The gradients; need not be cleared.
    pub gradients: *mut f32,
    /// Bytes; at least the plan's gradients_size.
    pub gradients_size: usize,
    /// The optimiser's state; zero before the first step. May be NULL if the plan's optimizer_size is 0.
    pub optimizer: *mut f32,
    /// Bytes; at least the plan's optimizer_size.
    pub optimizer_size: usize,
    /// Activations and scratch; need not be cleared.
    pub workspace: *mut f32,
    /// Bytes; at least the plan's workspace_size.
    pub workspace_size: usize,
    /// Tokens and targets of a trainer's micro-batch; need not be cleared.
    pub batch: *mut i32,
    /// Bytes; at least the plan's batch_size.
    pub batch_size: usize,
}

// SAFETY: numbers and pointers without padding; `struct_size` comes first.
unsafe impl Structure for jostle_buffers {
    const FIRST_SIZE: usize = offset_of!(jostle_buffers, batch_size) + size_of::<usize>();
}

impl jostle_buffers {
    /// The parameters, and those that are frozen.
    ///
    /// # Safety
    /// Pointers other than NULL are readable for as many bytes as the struct says, while the slices are used.
    pub(crate) unsafe fn read<'a>(
        &self,
        plan: &Plan,
        buffers: &mut Buffers<'_>,
    ) -> Result<(&'a [f32], &'a [f32]), Refused> {
        // SAFETY: the caller's promise is the same.
        unsafe {
            let parameters =
                buffers.read("parameters", self.parameters, self.parameters_size, plan.parameters())?;
            Ok((parameters, buffers.read("frozen", self.frozen, self.frozen_size, plan.frozen())?))
        }
    }

    /// The parameters and, unless it is NULL, the optimiser's state, to be written.
    ///
    /// # Safety
    /// Pointers other than NULL are writable for as many bytes as the struct says, and nobody else uses them, while the
    /// slices are used.
    pub(crate) unsafe fn write<'a>(
        &self,
        plan: &Plan,
        buffers: &mut Buffers<'_>,
    ) -> Result<(&'a mut [f32], Option<&'a mut [f32]>), Refused> {
        let &jostle_buffers { parameters, parameters_size, optimizer, optimizer_size, .. } = self;
        // SAFETY: the caller's promise is the same.
        unsafe {
            let parameters = buffers.write("parameters", parameters, parameters_size, plan.parameters())?;
            let state = buffers.write_optional("optimizer", optimizer, optimizer_size, plan.optimizer())?;
            Ok((parameters, (!optimizer.is_null()).then_some(state)))
        }
    }
}
