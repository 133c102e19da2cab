//! Files: arbitrary bytes, and headers whose length, data and checksum are right but for what the fuzzer changed.

#![no_main]

use std::mem::{size_of, zeroed};
use std::ptr;

use fuzz::{Input, checksum};
use jostle::checkpoint::Checkpoint;
use jostle::llama2c::Model;
use jostle::{Options, Plan};
use jostle_ffi::buffers::jostle_buffers;
use jostle_ffi::checkpoint::*;
use jostle_ffi::config::*;
use jostle_ffi::plan::*;
use libfuzzer_sys::fuzz_target;

/// The most parameters that are read.
const MOST: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let mut file = match mode % 4 {
        0 => rest.to_vec(),
        // A header alone: its length, and data as long as its offsets say.
        _ => {
            let data = largest_number(rest);
            let mut file = (rest.len() as u64).to_le_bytes().to_vec();
            file.extend_from_slice(rest);
            file.extend((0..data).map(|i| i as u8));
            file
        }
    };
    if mode % 4 > 1 {
        mend_checksum(&mut file);
    }
    // SAFETY of all calls: each pointer has the memory behind it that the call is told.
    unsafe { read(&file.into_boxed_slice(), &mut Input::new(&[])) }
});

/// The largest number in a text, if that is not too large.
fn largest_number(text: &[u8]) -> usize {
    let numbers = text.split(|byte| !byte.is_ascii_digit());
    let numbers = numbers.filter_map(|digits| str::from_utf8(digits).ok()?.parse::<usize>().ok());
    numbers.filter(|number| *number <= 1 << 16).max().unwrap_or(0)
}

/// Writes the right checksum where the file has one.
fn mend_checksum(file: &mut [u8]) {
    const KEY: &[u8] = b"\"jostle.checksum\":\"";
    let Some(place) = file.windows(KEY.len()).position(|bytes| bytes == KEY) else { return };
    let at = place + KEY.len();
    if let Some(digits) = file.get_mut(at..at + 8) {
        digits.copy_from_slice(b"00000000");
        let right = format!("{:08x}", checksum(file));
        file[at..at + 8].copy_from_slice(right.as_bytes());
    }
}

/// Reads a model of llama2.c, and writes it again.
fn read_llama2c(file: &[u8]) {
    let Ok(model) = Model::new(file) else { return };
    let Ok(plan) = Plan::new(model.config(), &Options::new(1)) else { return };
    let mut parameters = vec![0.0; plan.parameters()].into_boxed_slice();
    model.read(&plan, &mut parameters).unwrap();
    let mut again = vec![7; file.len()].into_boxed_slice();
    assert_eq!(Model::write(&plan, &parameters, &[], model.version(), &mut again), Ok(file.len()));
}

unsafe fn read(file: &[u8], input: &mut Input) {
    read_llama2c(file);
    let valid = Checkpoint::new(file);
    if let Ok(checkpoint) = &valid {
        let pairs = checkpoint.pairs();
        for (key, value) in pairs {
            let key: String = key.chars().collect();
            let found = checkpoint.metadata(&key).expect("a key that the file has");
            assert_eq!(found.chars().count(), value.chars().count());
        }
        let _ = checkpoint.progress();
    }
    unsafe {
        let mut config: jostle_config = zeroed();
        let known = input.call(|error| {
            jostle_checkpoint_config(
                file.as_ptr(),
                file.len(),
                &mut config,
                size_of::<jostle_config>(),
                error,
            )
        });
        assert!(!known || valid.is_ok());
        let mut text = [0; 64];
        let mut length = 0;
        input.call(|error| {
            let key = c"jostle.layers".as_ptr();
            let text_size = text.len();
            jostle_checkpoint_metadata(
                file.as_ptr(),
                file.len(),
                key,
                text.as_mut_ptr(),
                text_size,
                &mut length,
                error,
            )
        });
        if !known {
            jostle_config_init(&mut config, size_of::<jostle_config>(), 3, 2, 1, 1, 2);
        }
        for optimizer in 0..3 {
            let mut options: jostle_options = zeroed();
            jostle_options_init(&mut options, size_of::<jostle_options>(), 1);
            options.optimizer = optimizer;
            let mut plan: jostle_plan = zeroed();
            if !input.call(|error| jostle_plan_init(&mut plan, &config, &options, error))
                || plan.parameter_count > MOST
            {
                return;
            }
            let mut parameters = vec![0.5_f32; plan.parameter_count].into_boxed_slice();
            let mut state = vec![0.5_f32; plan.optimizer_size / 4].into_boxed_slice();
            let mut buffers: jostle_buffers = zeroed();
            buffers.struct_size = size_of::<jostle_buffers>() as u32;
            (buffers.parameters, buffers.parameters_size) = (parameters.as_mut_ptr(), plan.parameters_size);
            (buffers.optimizer, buffers.optimizer_size) = (state.as_mut_ptr(), plan.optimizer_size);
            if plan.optimizer_size == 0 {
                buffers.optimizer = ptr::null_mut();
            }
            let mut progress: jostle_progress = zeroed();
            let fine = input.call(|error| {
                jostle_checkpoint_read(file.as_ptr(), file.len(), &plan, &buffers, &mut progress, error)
            });
            let unchanged = parameters.iter().chain(&state).all(|number| *number == 0.5);
            assert!(fine || unchanged, "a refused file has been read in part");
            input.call(|error| {
                jostle_checkpoint_read_parameters(
                    file.as_ptr(),
                    file.len(),
                    &plan,
                    buffers.parameters,
                    buffers.parameters_size,
                    error,
                )
            });
        }
    }
}
