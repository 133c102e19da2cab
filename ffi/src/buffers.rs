//! The caller's memory for a model: parameters, gradients, optimiser state, workspace.

use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::null_mut;

use jostle::Plan;

use crate::border::{self, Buffers, Structure, apart, open};
use crate::plan::jostle_plan;
use crate::status::{Refused, call, jostle_error, jostle_status};

/// The caller's memory for a model. jostle_buffers_init takes it all from one block; firmware fills the struct in with its
/// static arrays. Each function says which of the buffers it uses; the others may be NULL. Buffers that a function uses
/// must not overlap. Trainers and generators keep using theirs: as long as they are used, the buffers stay where they are,
/// and nobody else writes them.
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

/// The alignment of buffers in one block: a cache line on machines with caches.
const BLOCK_ALIGNMENT: usize = if cfg!(target_pointer_width = "64") { 64 } else { 8 };

/// The sizes in bytes of the buffers that a trainer writes: parameters, gradients, optimizer, workspace, batch.
fn sizes(plan: &Plan) -> [usize; 5] {
    let lengths = [plan.parameters(), plan.gradients(), plan.optimizer(), plan.workspace(), plan.batch()];
    // The core has checked that every buffer has at most isize::MAX bytes.
    lengths.map(|length| length.wrapping_mul(size_of::<f32>()))
}

/// The size up to the next buffer.
fn stride(size: usize) -> usize {
    size.saturating_add(BLOCK_ALIGNMENT - 1) & !(BLOCK_ALIGNMENT - 1)
}

/// The size of a block of these buffers, wherever it begins.
fn block_size(plan: &Plan) -> usize {
    sizes(plan).iter().fold(BLOCK_ALIGNMENT - 1, |sum, size| sum.saturating_add(stride(*size)))
}

/// The bytes of memory that jostle_buffers_init needs for a plan; 0 if the plan is not initialised.
///
/// # Safety
/// `plan` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_buffers_size(plan: *const jostle_plan) -> usize {
    let mut size = 0;
    // SAFETY: the caller keeps to `# Safety` above, and the error to be written is NULL.
    unsafe {
        call(null_mut(), |call| {
            size = block_size(open(call, plan)?);
            Ok(())
        })
    };
    size
}

/// Takes all buffers of a trainer from one block of memory with any alignment, of at least jostle_buffers_size bytes. Sets
/// the optimiser's state to zero, as the first step needs it; the other buffers are not written. `frozen` is NULL: if the plan has
/// frozen tensors, the caller sets it afterwards.
///
/// # Safety
/// `buffers` is writable for `struct_size` bytes, which is sizeof(jostle_buffers) in the caller's header. `plan` is
/// readable, `memory` writable for `memory_size` bytes, `error` NULL or writable. The block stays the caller's, and in its
/// place as long as the buffers are used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_buffers_init(
    buffers: *mut jostle_buffers,
    struct_size: usize,
    plan: *const jostle_plan,
    memory: *mut c_void,
    memory_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let memory: *mut u8 = memory.cast();
            let handle = plan;
            let plan = open(call, plan)?;
            let size = block_size(plan);
            Buffers::new(call).write("memory", memory, memory_size, size)?;
            apart(call, "memory", (memory.addr(), size), (handle.addr(), size_of::<jostle_plan>()))?;
            apart(call, "buffers", (buffers.addr(), struct_size), (memory.addr(), size))?;
            apart(call, "buffers", (buffers.addr(), struct_size), (handle.addr(), size_of::<jostle_plan>()))?;
            // The block has room for a gap before each buffer.
            let mut rest = memory.wrapping_add(memory.addr().wrapping_neg() & (BLOCK_ALIGNMENT - 1));
            let [parameters, gradients, optimizer, workspace, batch] = sizes(plan).map(|size| {
                let place = rest;
                rest = rest.wrapping_add(stride(size));
                (place, size)
            });
            let value = jostle_buffers {
                struct_size: size_of::<jostle_buffers>() as u32,
                reserved: 0,
                parameters: parameters.0.cast(),
                parameters_size: parameters.1,
                frozen: core::ptr::null(),
                frozen_size: 0,
                gradients: gradients.0.cast(),
                gradients_size: gradients.1,
                optimizer: optimizer.0.cast(),
                optimizer_size: optimizer.1,
                workspace: workspace.0.cast(),
                workspace_size: workspace.1,
                batch: batch.0.cast(),
                batch_size: batch.1,
            };
            border::fill(call, "buffers", buffers, struct_size, &value)?;
            optimizer.0.write_bytes(0, optimizer.1);
            Ok(())
        })
    }
}
