//! Slots of flash: arbitrary contents, right and wrong records, errors of the driver at any call.

#![no_main]

use std::ffi::c_void;
use std::mem::{size_of, zeroed};
use std::ptr;

use fuzz::Input;
use jostle_ffi::buffers::jostle_buffers;
use jostle_ffi::checkpoint::jostle_progress;
use jostle_ffi::config::*;
use jostle_ffi::plan::*;
use jostle_ffi::slots::*;
use libfuzzer_sys::fuzz_target;

/// Two slots, whose driver fails once, after some calls, or not at all.
struct Memory {
    slots: [Box<[u8]>; 2],
    unit: usize,
    calls_until_error: u32,
}

impl Memory {
    /// Counts a call. Returns 0, or -5 for the call that fails.
    fn call(&mut self) -> i32 {
        self.calls_until_error = self.calls_until_error.wrapping_sub(1);
        if self.calls_until_error == 0 { -5 } else { 0 }
    }
}

unsafe extern "C" fn erase(context: *mut c_void, slot: usize) -> i32 {
    // SAFETY: the context that the test has given.
    let memory = unsafe { &mut *context.cast::<Memory>() };
    let result = memory.call();
    let whole = &mut memory.slots[slot];
    let erased = if result == 0 { whole.len() } else { whole.len() / 2 };
    whole[..erased].fill(0xff);
    result
}

unsafe extern "C" fn program(
    context: *mut c_void,
    slot: usize,
    at: usize,
    bytes: *const u8,
    size: usize,
) -> i32 {
    // SAFETY: as above.
    let memory = unsafe { &mut *context.cast::<Memory>() };
    assert!(at.is_multiple_of(memory.unit) && size.is_multiple_of(memory.unit), "not whole units");
    let result = memory.call();
    let size = if result == 0 { size } else { size / 2 };
    // SAFETY: readable for so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(bytes, size) };
    for (place, byte) in memory.slots[slot][at..at + size].iter_mut().zip(bytes) {
        *place &= byte;
    }
    result
}

unsafe extern "C" fn read(context: *mut c_void, slot: usize, at: usize, bytes: *mut u8, size: usize) -> i32 {
    // SAFETY: as above.
    let memory = unsafe { &mut *context.cast::<Memory>() };
    let result = memory.call();
    if result == 0 {
        // SAFETY: writable for so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(bytes, size) };
        bytes.copy_from_slice(&memory.slots[slot][at..at + size]);
    }
    result
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    // SAFETY of all calls: each pointer has the memory behind it that the call is told.
    unsafe { keep(&mut input) }
});

unsafe fn keep(input: &mut Input) {
    unsafe {
        let mut config: jostle_config = zeroed();
        jostle_config_init(&mut config, size_of::<jostle_config>(), 3, 2, 1, 1, 2);
        let mut options: jostle_options = zeroed();
        jostle_options_init(&mut options, size_of::<jostle_options>(), 1);
        let mut plan: jostle_plan = zeroed();
        assert!(input.call(|error| jostle_plan_init(&mut plan, &config, &options, error)));
        let mut parameters = vec![0.5_f32; plan.parameter_count].into_boxed_slice();
        let mut state = vec![0.25_f32; plan.optimizer_size / 4].into_boxed_slice();
        let mut buffers: jostle_buffers = zeroed();
        buffers.struct_size = size_of::<jostle_buffers>() as u32;
        (buffers.parameters, buffers.parameters_size) = (parameters.as_mut_ptr(), plan.parameters_size);
        (buffers.optimizer, buffers.optimizer_size) = (state.as_mut_ptr(), plan.optimizer_size);

        let unit = if input.seldom(16) { input.size() } else { 1 << input.below(6) };
        // At least a record.
        let slot_size = if input.seldom(8) { input.size().min(8192) } else { 8192 };
        let mut memory = Memory {
            slots: [(); 2].map(|()| vec![input.byte(); slot_size].into_boxed_slice()),
            unit,
            calls_until_error: 0,
        };
        let flash = jostle_flash {
            struct_size: input.struct_size::<jostle_flash>(),
            write_size: unit as u32,
            slot_size,
            erase: Some(erase),
            program: Some(program),
            read: Some(read),
            context: (&raw mut memory).cast(),
        };
        let block_size = if input.seldom(8) { input.size().min(8192) } else { 4096 };
        let mut block = vec![0; block_size].into_boxed_slice();
        // The step of the newest checkpoint, while every call has succeeded and nobody has changed a byte.
        let mut newest = None::<u64>;
        for step in 1..=u64::from(input.byte() % 8) {
            memory.calls_until_error = if input.seldom(2) { input.byte().into() } else { 0 };
            let mut progress = jostle_progress { step, seed: 7 };
            match input.byte() % 4 {
                0 | 1 => {
                    let fine = input.call(|error| {
                        jostle_slots_save(
                            &flash,
                            &plan,
                            &buffers,
                            &progress,
                            ptr::null(),
                            0,
                            block.as_mut_ptr(),
                            block_size,
                            error,
                        )
                    });
                    newest = fine.then_some(step);
                }
                2 => {
                    let fine = input.call(|error| {
                        jostle_slots_load(
                            &flash,
                            &plan,
                            &buffers,
                            block.as_mut_ptr(),
                            block_size,
                            &mut progress,
                            error,
                        )
                    });
                    if fine && newest.is_some() && memory.calls_until_error > u32::MAX / 2 {
                        // No call has failed.
                        assert_eq!(Some(progress.step), newest);
                    }
                    let mut slot: jostle_slot = zeroed();
                    let found = input.call(|error| {
                        jostle_slots_newest(&flash, block.as_mut_ptr(), block_size, &mut slot, error)
                    });
                    if found {
                        assert!(slot.index < 2 && slot.offset + slot.size <= slot_size);
                    }
                }
                _ => {
                    newest = None;
                    let slot = &mut memory.slots[input.below(2)];
                    let at = input.u32() as usize % (slot.len() + 1);
                    for (place, byte) in slot[at..].iter_mut().zip(input.take(40)) {
                        *place = *byte;
                    }
                }
            }
        }
    }
}
