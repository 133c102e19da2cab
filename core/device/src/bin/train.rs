//! Firmware that trains on a text in flash. It takes steps in pieces, as for a watchdog, and saves into two slots of flash
//! memory. The power fails during some saves. Each time training resumes from the newest complete checkpoint, with the
//! same bits.
#![no_std]
#![no_main]

#[path = "../run.rs"]
mod run;

use core::fmt::Write;
use core::task::Poll;

use device::board::{Console, stop};
use jostle::checkpoint::slots::{Flash, Slots};
use jostle::checkpoint::{Contents, Progress};
use jostle::initialize;
use jostle::{Buffers, Compute, Error, Generator, InstructionSet, Options, Plan, Sampling, Trainer};
use run::{CONFIG, RECIPE, SEED, TEXT, checksum};

const PLAN: Plan = match Plan::new(&CONFIG, &Options::new(1)) {
    Ok(plan) => plan,
    Err(_) => panic!("not a model"),
};
const SAVE_EVERY: u64 = 50;

/// The model's buffers, and a block for saving.
struct Memory {
    parameters: [f32; PLAN.parameters()],
    gradients: [f32; PLAN.gradients()],
    optimizer: [f32; PLAN.optimizer()],
    workspace: [f32; PLAN.workspace()],
    batch: [i32; PLAN.batch()],
    generation: [f32; PLAN.generation()],
    window: [i32; CONFIG.context],
    order: [u32; CONFIG.vocab],
    block: [u8; 8192],
}

static mut MEMORY: Memory = Memory {
    parameters: [0.0; _],
    gradients: [0.0; _],
    optimizer: [0.0; _],
    workspace: [0.0; _],
    batch: [0; _],
    generation: [0.0; _],
    window: [0; _],
    order: [0; _],
    block: [0; _],
};

const SLOT: usize = 65536;
const SECTOR: usize = 2048;
const WORD: usize = 8;
const NO_POWER: i32 = -1;

/// A simulation of flash memory: words can be programmed once after each erasure.
struct Simulated {
    slots: [[u8; SLOT]; 2],
    /// Changed words and sectors, and the number of changes until the power fails.
    changes: usize,
    most: usize,
}

static mut FLASH: Simulated = Simulated { slots: [[0xFF; SLOT]; 2], changes: 0, most: usize::MAX };

impl Simulated {
    /// Changes a word or sector, or half of it if the power fails.
    fn change(&mut self, slot: usize, at: usize, bytes: &[u8]) -> Result<(), i32> {
        let power = self.changes < self.most;
        let place = self.slots.get_mut(slot).and_then(|slot| slot.get_mut(at..)).unwrap_or_default();
        let size = if power { bytes.len() } else { bytes.len() / 2 };
        place.iter_mut().zip(bytes).take(size).for_each(|(place, byte)| *place = *byte);
        self.changes += 1;
        if power { Ok(()) } else { Err(NO_POWER) }
    }
}

impl Flash for Simulated {
    fn slot_size(&self) -> usize {
        SLOT
    }

    fn write_size(&self) -> usize {
        WORD
    }

    fn erase(&mut self, slot: usize) -> Result<(), i32> {
        (0..SLOT).step_by(SECTOR).try_for_each(|at| self.change(slot, at, &[0xFF; SECTOR]))
    }

    fn program(&mut self, slot: usize, at: usize, bytes: &[u8]) -> Result<(), i32> {
        let erased = self.slots[slot].iter().skip(at).take(bytes.len()).all(|byte| *byte == 0xFF);
        if !erased || !at.is_multiple_of(WORD) || !bytes.len().is_multiple_of(WORD) {
            return Err(-2);
        }
        let mut words = bytes.chunks(WORD).zip((at..).step_by(WORD));
        words.try_for_each(|(word, at)| self.change(slot, at, word))
    }

    fn read(&mut self, slot: usize, at: usize, bytes: &mut [u8]) -> Result<(), i32> {
        let place = self.slots.get(slot).and_then(|slot| slot.get(at..)).unwrap_or_default();
        bytes.iter_mut().zip(place).for_each(|(byte, place)| *byte = *place);
        Ok(())
    }
}

/// With three decimals: printing floats needs much code.
fn print_loss(step: u64, what: &str, loss: f32) {
    let thousandths = (loss * 1000.0 + 0.5) as u32;
    let _ = writeln!(Console, "step {step}: {what} {}.{:03}", thousandths / 1000, thousandths % 1000);
}

/// Trains to the last step, from the checkpoint in flash memory or from the beginning.
fn train(memory: &mut Memory, flash: &mut Simulated) -> Result<(), Error> {
    let Memory { parameters, gradients, optimizer, workspace, batch, block, .. } = memory;
    let mut step = match Slots::new(flash, block)?.load(&PLAN, parameters, Some(optimizer))? {
        Some(progress) => progress.step,
        None => {
            initialize(InstructionSet::detect(), &PLAN, parameters, SEED)?;
            optimizer.fill(0.0);
            0
        }
    };
    let _ = writeln!(Console, "from step {step}");
    while step < RECIPE.schedule.steps {
        let buffers = Buffers { parameters, frozen: &[], gradients, optimizer, workspace, batch };
        let mut trainer = Trainer::new(&PLAN, &RECIPE, buffers, Compute::serial())?;
        trainer.resume_at(step, 0);
        let report = loop {
            // Firmware would reset a watchdog here, or serve a radio.
            if let Poll::Ready(report) = trainer.poll(TEXT.0)? {
                break report;
            }
        };
        step += 1;
        if step % 20 == 0 {
            print_loss(step, "loss", report.loss);
        }
        if step % RECIPE.schedule.steps == 0 {
            let loss = trainer.evaluate(TEXT.1)?;
            print_loss(step, "evaluation loss", (loss.sum / loss.counted as f64) as f32);
        }
        if step == 10 || step == RECIPE.schedule.steps {
            let _ = writeln!(Console, "step {step}: checksum {:016x}", checksum(parameters));
        }
        if step % SAVE_EVERY == 0 {
            let progress = Progress { step, seed: SEED };
            let contents =
                Contents { parameters, frozen: &[], optimizer: Some(optimizer), progress, metadata: &[] };
            let slot = Slots::new(flash, block)?.save(&PLAN, &contents)?;
            let _ = writeln!(Console, "step {step}: saved, {} bytes in slot {}", slot.length, slot.index);
        }
    }
    Ok(())
}

fn generate(memory: &mut Memory) -> Result<(), Error> {
    let Memory { parameters, generation, window, order, .. } = memory;
    let mut generator = Generator::new(&PLAN, InstructionSet::detect(), parameters, &[], generation, window)?;
    let mut token = 26;
    for i in 0..64 {
        generator.feed(&[token])?;
        token = generator.draw(&Sampling::new(0.5), order, SEED, i)?;
        let letter = if token == 26 { ' ' } else { char::from(b'a' + token as u8) };
        let _ = Console.write_char(letter);
    }
    let _ = Console.write_char('\n');
    Ok(())
}

fn check<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| {
        let _ = writeln!(Console, "FAILED: {error}");
        stop(1)
    })
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // SAFETY: the only thread, and no other borrow.
    let (memory, flash) = unsafe { (&mut *&raw mut MEMORY, &mut *&raw mut FLASH) };
    // While the first slot is erased, while the other is erased, and in the middle of a checkpoint.
    for most in [3, 6700, 3000] {
        (flash.changes, flash.most) = (0, most);
        match train(memory, flash) {
            Err(Error::Flash { code: NO_POWER, .. }) => {
                let _ = writeln!(Console, "the power has failed");
            }
            _ => {
                let _ = writeln!(Console, "FAILED: the power has not failed");
                stop(1)
            }
        }
        memory.parameters.fill(f32::NAN);
        memory.optimizer.fill(f32::NAN);
        memory.workspace.fill(f32::NAN);
    }
    flash.most = usize::MAX;
    check(train(memory, flash));
    check(generate(memory));
    stop(0)
}
