//! Checkpoints in flash memory through power failures, at every programmed word and every erased sector of a save. The
//! word or sector is left unchanged or in any state. The next read returns the old checkpoint or the new one, bit for
//! bit. Training that resumes from it ends with the bits of uninterrupted training.

#[path = "common/session.rs"]
mod session;

use jostle::checkpoint::slots::{self, Flash, Slot, Slots};
use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{
    CheckpointError, Config, Decay, Dropout, Error, InstructionSet, Plan, Recipe, Schedule, Serial,
};
use session::Session;

const SECTOR: usize = 512;
const SLOT: usize = 16 * SECTOR;
const SEED: u64 = 7;
/// The steps at which checkpoints are saved.
const SAVED: [u64; 4] = [2, 4, 6, 8];

/// The driver's errors.
const NO_POWER: i32 = -1;
const UNREADABLE: i32 = -2;

/// The state of a word or sector whose change a power failure interrupts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    /// Unchanged.
    Clean,
    /// Arbitrary bits.
    Torn,
    /// Arbitrary bits, and reading them is an error, as in memory with error correction.
    Unreadable,
}

/// Flash memory with the strictest rules of real devices.
#[derive(Clone)]
struct Memory {
    slots: [[u8; SLOT]; 2],
    unreadable: Vec<(usize, usize)>,
    write_size: usize,
    /// The number of words and sectors that may still change before the power fails.
    power: usize,
    cut: Cut,
    changed: usize,
}

impl Memory {
    fn new(write_size: usize) -> Memory {
        let slots = [[0xFF; SLOT]; 2];
        Memory { slots, unreadable: vec![], write_size, power: usize::MAX, cut: Cut::Clean, changed: 0 }
    }

    /// Changes the bytes of one word or sector, if there is power.
    fn change(&mut self, slot: usize, at: usize, bytes: &[u8]) -> Result<(), i32> {
        let place = &mut self.slots[slot][at..][..bytes.len()];
        if self.power > 0 {
            self.power -= 1;
            self.changed += 1;
            self.unreadable.retain(|(s, a)| *s != slot || !(at..at + bytes.len()).contains(a));
            place.copy_from_slice(bytes);
            return Ok(());
        }
        if self.cut != Cut::Clean {
            for (i, (place, byte)) in place.iter_mut().zip(bytes).enumerate() {
                let noise = (self.changed * 31 + i).wrapping_mul(0x9E37_79B1) >> 11;
                *place ^= (*place ^ byte) & noise as u8;
            }
            if self.cut == Cut::Unreadable {
                self.unreadable.push((slot, at));
            }
            // Once.
            self.cut = Cut::Clean;
        }
        Err(NO_POWER)
    }

    /// Restores the power.
    fn restarted(mut self) -> Memory {
        (self.power, self.changed) = (usize::MAX, 0);
        self
    }
}

impl Flash for Memory {
    fn slot_size(&self) -> usize {
        SLOT
    }

    fn write_size(&self) -> usize {
        self.write_size
    }

    fn erase(&mut self, slot: usize) -> Result<(), i32> {
        (0..SLOT).step_by(SECTOR).try_for_each(|at| self.change(slot, at, &[0xFF; SECTOR]))
    }

    fn program(&mut self, slot: usize, at: usize, bytes: &[u8]) -> Result<(), i32> {
        assert!(at.is_multiple_of(self.write_size) && bytes.len().is_multiple_of(self.write_size));
        let erased = self.slots[slot][at..][..bytes.len()].iter().all(|byte| *byte == 0xFF);
        assert!(erased, "programs what is not erased: slot {slot}, {at}");
        bytes
            .chunks(self.write_size)
            .enumerate()
            .try_for_each(|(i, word)| self.change(slot, at + i * self.write_size, word))
    }

    fn read(&mut self, slot: usize, at: usize, bytes: &mut [u8]) -> Result<(), i32> {
        if self.unreadable.iter().any(|(s, a)| *s == slot && (at..at + bytes.len()).contains(a)) {
            return Err(UNREADABLE);
        }
        bytes.copy_from_slice(&self.slots[slot][at..][..bytes.len()]);
        Ok(())
    }
}

fn config() -> Config {
    Config { dropout: Dropout::all(0.2), bias: false, ..Config::new(5, 3, 1, 1, 2) }
}

fn recipe() -> Recipe {
    let schedule = Schedule { peak: 1e-2, warmup: 2, steps: 8, decay: Decay::Cosine { last: 1e-3 } };
    Recipe { schedule, ..session::recipe(1e-2, SEED) }
}

/// A model in training, and its next step.
struct Run {
    session: Session,
    step: u64,
}

impl Run {
    fn new() -> Run {
        let mut session = Session::new(&config(), &recipe(), 1, 1);
        session.initialize(SEED);
        Run { session, step: 0 }
    }

    /// Loads the state from flash memory alone, as after a restart.
    fn load(memory: &mut Memory) -> Option<Run> {
        let mut session = Session::new(&config(), &recipe(), 1, 1);
        let (plan, mut block) = (session.plan, [0; SLOT]);
        let mut slots = Slots::new(memory, &mut block).unwrap();
        let progress = slots.load(&plan, &mut session.parameters, Some(&mut session.optimizer)).unwrap();
        progress.map(|Progress { step, seed }| {
            assert_eq!(seed, SEED);
            Run { session, step }
        })
    }

    fn train(&mut self, step: u64) {
        let text: Vec<u8> = (0..40_u32).map(|i| ((i * i + i / 3) % 5) as u8).collect();
        let (recipe, count) = (recipe(), step - self.step);
        let mut trainer = self.session.trainer(&recipe, InstructionSet::detect(), &Serial);
        trainer.resume_at(self.step, 0);
        (0..count).for_each(|_| _ = trainer.step(&text[..]).unwrap());
        self.step = step;
    }

    fn contents(&self) -> Contents<'_> {
        let Session { parameters, optimizer, .. } = &self.session;
        let progress = Progress { step: self.step, seed: SEED };
        Contents {
            parameters,
            frozen: &[],
            optimizer: Some(optimizer),
            progress,
            metadata: &[("note", "\"äöü\"")],
        }
    }

    fn save(&self, memory: &mut Memory, block: usize) -> Result<Slot, Error> {
        let mut block = vec![0xAA; block];
        Slots::new(memory, &mut block)?.save(&self.session.plan, &self.contents())
    }

    /// The step and every bit of the state.
    fn bits(&self) -> (u64, Vec<u32>) {
        let numbers = self.session.parameters.iter().chain(&self.session.optimizer);
        (self.step, numbers.map(|x| x.to_bits()).collect())
    }
}

/// Memory after that many saves, the last one's bits, and the run at the step of the next save.
fn saved(write_size: usize, saves: usize) -> (Memory, Option<(u64, Vec<u32>)>, Run) {
    let (mut memory, mut run, mut last) = (Memory::new(write_size), Run::new(), None);
    for step in &SAVED[..saves] {
        run.train(*step);
        run.save(&mut memory, 256).unwrap();
        last = Some(run.bits());
    }
    run.train(SAVED[saves]);
    (memory, last, run)
}

/// The words and sectors that a save changes.
fn changes(memory: &Memory, run: &Run) -> usize {
    let mut memory = memory.clone().restarted();
    run.save(&mut memory, 256).unwrap();
    memory.changed
}

/// Saves, with power for that many changes.
fn cut_off(memory: &Memory, run: &Run, power: usize, cut: Cut) -> Memory {
    let mut memory = Memory { power, cut, ..memory.clone() };
    let error = run.save(&mut memory, 256).unwrap_err();
    assert!(matches!(error, Error::Flash { operation: "erase" | "program", code: NO_POWER, .. }), "{error}");
    memory.restarted()
}

#[test]
fn wherever_a_save_is_cut_off_training_ends_in_the_same_bits() {
    let mut uncut = Run::new();
    uncut.train(10);
    let last = uncut.bits();
    for (write_size, saves) in [(8, 0), (8, 1), (8, 2), (4, 2)] {
        let (memory, old, run) = saved(write_size, saves);
        let new = run.bits();
        let count = changes(&memory, &run);
        assert!(count > SLOT / SECTOR + 3000 / write_size);
        let (mut old_read, mut new_read) = (0, 0);
        for cut in [Cut::Clean, Cut::Torn, Cut::Unreadable] {
            for power in 0..count {
                let mut memory = cut_off(&memory, &run, power, cut);
                let mut resumed = Run::load(&mut memory).unwrap_or_else(Run::new);
                let read = (resumed.step > 0).then(|| resumed.bits());
                if read.as_ref() == Some(&new) {
                    new_read += 1;
                } else {
                    assert!(read == old, "write size {write_size}, {cut:?} after {power} of {count}");
                    old_read += 1;
                }
                for step in SAVED.into_iter().filter(|step| *step > resumed.step).collect::<Vec<_>>() {
                    resumed.train(step);
                    resumed.save(&mut memory, 100).unwrap();
                }
                let mut resumed = Run::load(&mut memory).unwrap();
                assert_eq!(resumed.step, 8);
                resumed.train(10);
                assert!(resumed.bits() == last, "write size {write_size}, {cut:?} after {power} of {count}");
            }
        }
        println!("write size {write_size}, {saves} saves before: {count} cut points, three ways each:");
        println!("    the old checkpoint {old_read} times, the new one {new_read} times");
    }
}

#[test]
fn saves_that_are_cut_off_in_a_row_leave_the_last_whole_one() {
    let (memory, old, run) = saved(4, 2);
    let count = changes(&memory, &run);
    for cut in [Cut::Torn, Cut::Unreadable] {
        for first in (0..count).step_by(97) {
            let once = cut_off(&memory, &run, first, cut);
            for second in (0..count).step_by(89) {
                let mut twice = cut_off(&once, &run, second, cut);
                assert!(
                    Run::load(&mut twice).map(|run| run.bits()) == old,
                    "{cut:?} after {first} and {second}"
                );
            }
        }
    }
}

#[test]
fn a_slot_holds_the_file_that_write_writes() {
    let run = Run::new();
    let (plan, contents) = (run.session.plan, run.contents());
    let mut file = vec![0; checkpoint::size(&plan, true, contents.metadata).unwrap()];
    checkpoint::write(&mut file, &plan, &contents).unwrap();
    for write_size in [1, 2, 3, 8, 16, 32, 48, 256] {
        for block in [256, 257, 1000, SLOT] {
            let mut memory = Memory::new(write_size);
            let slot = run.save(&mut memory, block).unwrap();
            assert_eq!((slot.index, slot.sequence, slot.length), (0, 1, file.len()));
            assert_eq!(slot.offset, 32_usize.next_multiple_of(write_size));
            let mapped = &memory.slots[0][slot.offset..][..slot.length];
            assert!(mapped == file);
            assert_eq!(Checkpoint::new(mapped).unwrap().progress(), Ok(contents.progress));
            assert!(Run::load(&mut memory).unwrap().bits() == (0, run.bits().1));
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (mut memory, old, run) = saved(8, 1);
    let slot = run.save(&mut memory, 256).unwrap();
    assert_eq!((slot.index, slot.sequence), (1, 2));
    let mut block = [0; 1024];
    for bit in 0..(slot.offset + slot.length) * 8 {
        // Bytes between the record's fields and the checkpoint have no meaning.
        if (20..slot.offset).contains(&(bit / 8)) {
            continue;
        }
        memory.slots[1][bit / 8] ^= 1 << (bit % 8);
        let newest = Slots::new(&mut memory, &mut block).unwrap().newest().unwrap().unwrap();
        assert_eq!((newest.index, newest.sequence), (0, 1), "bit {bit}");
        memory.slots[1][bit / 8] ^= 1 << (bit % 8);
    }
    assert!(Run::load(&mut memory).unwrap().bits() == run.bits());
    memory.slots[1][0] ^= 1;
    assert!(Run::load(&mut memory).map(|run| run.bits()) == old);
    memory.slots[0].fill(0);
    assert!(Run::load(&mut memory).is_none());
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_erased() {
    let (memory, _, run) = saved(8, 2);
    let plan = run.session.plan;
    let length = checkpoint::size(&plan, true, run.contents().metadata).unwrap();
    let wanted = (length + 32).next_multiple_of(8);
    assert_eq!(slots::size(length, 8), Ok(wanted));
    assert_eq!(slots::size(usize::MAX - 10, 8), Err(Error::TooLarge { what: "slot" }));
    assert_eq!(slots::size(length, usize::MAX), Err(Error::TooLarge { what: "slot" }));
    assert_eq!(slots::size(length, 0), Err(Error::Zero { what: "write_size" }));

    struct Short(Memory, usize);
    impl Flash for Short {
        fn slot_size(&self) -> usize {
            self.1
        }
        fn write_size(&self) -> usize {
            self.0.write_size
        }
        fn erase(&mut self, slot: usize) -> Result<(), i32> {
            self.0.erase(slot)
        }
        fn program(&mut self, slot: usize, at: usize, bytes: &[u8]) -> Result<(), i32> {
            self.0.program(slot, at, bytes)
        }
        fn read(&mut self, slot: usize, at: usize, bytes: &mut [u8]) -> Result<(), i32> {
            assert!(at + bytes.len() <= self.1);
            self.0.read(slot, at, bytes)
        }
    }
    for size in [0, 31] {
        let (mut short, mut block) = (Short(memory.clone().restarted(), size), [0; 64]);
        let error = Slots::new(&mut short, &mut block).err();
        assert_eq!(error, Some(Error::Buffer { what: "slot", given: size, wanted: 32 }));
    }
    for size in [32, wanted - 1, wanted] {
        let mut short = Short(memory.clone().restarted(), size);
        let mut block = [0; 64];
        let result = Slots::new(&mut short, &mut block).unwrap().save(&plan, &run.contents());
        if size == wanted {
            assert_eq!(result.unwrap().sequence, 3);
        } else {
            assert_eq!(result, Err(Error::Buffer { what: "slot", given: size, wanted }));
            assert_eq!(short.0.changed, 0);
        }
    }

    let mut memory = memory.restarted();
    let short = |given, wanted| Error::Buffer { what: "block", given, wanted };
    assert_eq!(run.save(&mut memory, 31), Err(short(31, 32)));
    memory.write_size = 48;
    assert_eq!(run.save(&mut memory, 47), Err(short(47, 48)));
    memory.write_size = 0;
    assert_eq!(run.save(&mut memory, 47), Err(Error::Zero { what: "write_size" }));
    memory.write_size = 8;
    let contents = Contents { metadata: &[("format", "")], ..run.contents() };
    let reserved = Slots::new(&mut memory, &mut [0; 64]).unwrap().save(&plan, &contents);
    assert_eq!(reserved, Err(CheckpointError::Key { index: 0 }.into()));
    let contents = Contents { parameters: &[], ..run.contents() };
    let length = Slots::new(&mut memory, &mut [0; 64]).unwrap().save(&plan, &contents);
    assert!(matches!(length, Err(Error::Length { what: "parameters", .. })));
    assert_eq!(memory.changed, 0);
}

#[test]
fn what_cannot_be_read_is_refused_and_nothing_written() {
    let (mut memory, old, run) = saved(8, 1);
    let slot = memory.slots[0];
    let header = u64::from_le_bytes(slot[32..40].try_into().unwrap()) as usize;
    let load = |memory: &mut Memory, config: &Config, block: usize| {
        let plan = Plan::new(config, run.session.plan.options()).unwrap();
        let (mut parameters, mut state) = (vec![-9.0; plan.parameters()], vec![-9.0; plan.optimizer()]);
        let mut block = vec![0; block];
        let result = Slots::new(memory, &mut block)
            .unwrap()
            .load(&plan, &mut parameters, Some(&mut state))
            .unwrap_err();
        assert!(parameters.iter().chain(&state).all(|x| *x == -9.0));
        result
    };
    let error = load(&mut memory, &config(), header - 1);
    assert_eq!(error, Error::Buffer { what: "block", given: header - 1, wanted: header });
    let error = load(&mut memory, &Config { vocab: 6, ..config() }, header);
    assert_eq!(error, CheckpointError::Configuration { key: "jostle.vocab" }.into());
    assert!(Run::load(&mut memory).map(|run| run.bits()) == old);

    // If possible, a save does not erase a slot that cannot be read: its checkpoint may be complete.
    memory.unreadable = vec![(0, 100)];
    assert!(Run::load(&mut memory).is_none());
    let mut spared = memory.clone();
    assert_eq!(run.save(&mut spared, 64).map(|slot| slot.index), Ok(1));
    assert!(spared.slots[0] == slot);
    // A failing driver is not the same as an absent checkpoint.
    memory.unreadable.push((1, 0));
    let unreadable = Error::Flash { operation: "read", slot: 0, code: UNREADABLE };
    assert_eq!(load(&mut memory, &config(), header), unreadable);
    assert_eq!(run.save(&mut memory, 64), Err(unreadable));
    assert!(memory.slots[0] == slot);
}

#[test]
fn a_slot_that_does_not_keep_what_was_programmed_is_noticed() {
    /// Memory with a bit that is stuck at 1.
    struct Worn(Memory);
    impl Flash for Worn {
        fn slot_size(&self) -> usize {
            SLOT
        }
        fn write_size(&self) -> usize {
            self.0.write_size
        }
        fn erase(&mut self, slot: usize) -> Result<(), i32> {
            self.0.erase(slot)
        }
        fn program(&mut self, slot: usize, at: usize, bytes: &[u8]) -> Result<(), i32> {
            self.0.program(slot, at, bytes)
        }
        fn read(&mut self, slot: usize, at: usize, bytes: &mut [u8]) -> Result<(), i32> {
            self.0.slots[1][3000] |= 1;
            self.0.read(slot, at, bytes)
        }
    }
    let (memory, old, run) = saved(8, 1);
    let mut worn = Worn(memory);
    let mut block = [0; 64];
    let result = Slots::new(&mut worn, &mut block).unwrap().save(&run.session.plan, &run.contents());
    assert_eq!(result, Err(Error::FlashContents { slot: 1 }));
    assert!(Run::load(&mut worn.0).map(|run| run.bits()) == old);
}
