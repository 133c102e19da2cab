//! The training run of firmware, on each instruction set of this machine. It ends with the bits in
//! `golden/device_steps.txt`, with which `scripts/test/device/firmware.sh` and `scripts/test/device/rust.sh` compare
//! devices.

use std::{env, fs};

mod common;
#[path = "../device/src/run.rs"]
mod run;
#[path = "common/session.rs"]
mod session;

use common::{assert_same_bits, instruction_sets};
use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{InstructionSet, Serial};
use run::{CONFIG, LLAMAS, RECIPE, SEED, TEXT, checksum};
use session::Session;

/// The line that devices print.
fn line(step: u64, parameters: &[f32]) -> String {
    format!("step {step}: checksum {:016x}", checksum(parameters))
}

#[test]
fn every_instruction_set_has_the_bits_of_the_devices() {
    for simd in instruction_sets() {
        let mut session = Session::new(&CONFIG, &RECIPE, 1, 1);
        session.train(&RECIPE, simd, &Serial, TEXT.0, 0, 10);
        let early = line(10, &session.parameters);
        session.train(&RECIPE, simd, &Serial, TEXT.0, 10, 190);
        let found = format!("{early}\n{}\n", line(200, &session.parameters));
        assert_eq!(found, include_str!("golden/device_steps.txt"), "{}", simd.name());
        println!("{}:\n{found}", simd.name());
    }
}

#[test]
fn every_instruction_set_has_the_llamas_of_the_devices() {
    for simd in instruction_sets() {
        let lines = LLAMAS.map(|(name, config)| {
            let mut session = Session::new(&config, &RECIPE, 1, 1);
            session.train(&RECIPE, simd, &Serial, TEXT.0, 0, 10);
            format!("{name}, {}\n", line(10, &session.parameters))
        });
        assert_eq!(lines.concat(), include_str!("golden/device_llamas.txt"), "{}", simd.name());
    }
}

/// The checkpoint is this machine's, or the device's that `scripts/test/device/firmware.sh` names in the environment.
#[test]
fn a_checkpoint_goes_on_to_the_bits_of_the_devices() {
    let simd = InstructionSet::detect();
    let mut own = Session::new(&CONFIG, &RECIPE, 1, 1);
    own.train(&RECIPE, simd, &Serial, TEXT.0, 0, 10);
    let file = if let Some(path) = env::var_os("JOSTLE_DEVICE_CHECKPOINT") {
        fs::read(path).unwrap()
    } else {
        let mut file = vec![0; checkpoint::size(&own.plan, true, &[]).unwrap()];
        let progress = Progress { step: 10, seed: SEED };
        let Session { parameters, optimizer, .. } = &own;
        let contents =
            Contents { parameters, frozen: &[], optimizer: Some(optimizer), progress, metadata: &[] };
        checkpoint::write(&mut file, &own.plan, &contents).unwrap();
        file
    };

    let mut session = Session::new(&CONFIG, &RECIPE, 1, 1);
    let Session { plan, parameters, optimizer, .. } = &mut session;
    let progress = Checkpoint::new(&file).unwrap().read(plan, parameters, Some(optimizer)).unwrap();
    assert_eq!(progress, Progress { step: 10, seed: SEED });
    assert_same_bits(&session.parameters, &own.parameters, "parameters");
    assert_same_bits(&session.optimizer, &own.optimizer, "optimizer");
    session.train(&RECIPE, simd, &Serial, TEXT.0, 10, 190);
    let last = include_str!("golden/device_steps.txt").lines().last();
    assert_eq!(Some(line(200, &session.parameters).as_str()), last);
}
