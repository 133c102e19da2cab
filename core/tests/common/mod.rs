//! Shared by all tests: the instruction sets to try, random numbers, threads, and comparison by bits.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::vec::Vec;

use jostle::{Compute, InstructionSet, Parallel};

/// The instruction sets that `JOSTLE_INSTRUCTION_SETS` names, separated by commas. This machine must have each of them.
/// Without the variable, every set that this machine has.
pub fn instruction_sets() -> Vec<InstructionSet> {
    let found = |name: &str| InstructionSet::named(name);
    match std::env::var("JOSTLE_INSTRUCTION_SETS") {
        Ok(names) => {
            let sets = names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(|name| {
                found(name)
                    .unwrap_or_else(|_| panic!("instruction set {name:?} was to be tested and is absent"))
            });
            let sets: Vec<_> = sets.collect();
            assert!(!sets.is_empty(), "JOSTLE_INSTRUCTION_SETS names no instruction set");
            sets
        }
        Err(_) => InstructionSet::NAMES.iter().filter_map(|name| found(name).ok()).collect(),
    }
}

/// Steele, Lea & Flood's SplitMix64, independent of the crate's own random numbers.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In `low..=high`.
    pub fn size(&mut self, low: usize, high: usize) -> usize {
        low + (self.bits() % (high - low + 1) as u64) as usize
    }

    /// In `[-1, 1)`.
    pub fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }

    /// Any float but NaN. Each bit pattern is equally likely, so many are denormal.
    pub fn any(&mut self) -> f32 {
        loop {
            let x = f32::from_bits(self.bits() as u32);
            if !x.is_nan() {
                return x;
            }
        }
    }
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Refuses any difference in a single bit, and shows the first.
#[track_caller]
pub fn assert_same_bits(got: &[f32], wanted: &[f32], what: impl std::fmt::Display) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        assert!(got.to_bits() == wanted.to_bits(), "{what}: element {i} is {got:e}, not {wanted:e}");
    }
}

/// Starts a thread of the standard library for each task.
pub struct Threads(pub usize);

// SAFETY: a thread for each index, joined before `run` returns.
unsafe impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for i in 0..tasks {
                scope.spawn(move || task(i));
            }
        });
    }
}

pub fn compute(simd: InstructionSet, threads: &Threads) -> Compute<'_> {
    Compute { simd, parallel: threads }
}
