//! Steps in pieces, and the stages of a step.

use core::task::Poll;

use jostle::{Backward, Forward, Stage};
use jostle::{
    Config, Error, InstructionSet, Loss, Optimizer, Options, Pieces, Plan, Recipe, Report, Serial, Shape,
};

use crate::common::{Threads, bits};
use crate::session::Session;
use crate::{config, recipe, text};

/// A step in pieces, by a new trainer for each piece.
fn step_in_pieces(
    session: &mut Session,
    recipe: &Recipe,
    threads: usize,
    text: &[u8],
    step: u64,
) -> (Report, u64) {
    let (parallel, mut pieces) = (Threads(threads), Pieces::default());
    for polls in 1.. {
        let mut trainer = session.trainer(recipe, InstructionSet::detect(), &parallel);
        trainer.resume_at(step, 0);
        trainer.resume_pieces(pieces);
        let found = trainer.poll(text).unwrap();
        pieces = trainer.pieces();
        if let Poll::Ready(report) = found {
            assert_eq!((polls, trainer.steps(), pieces.done), (trainer.pieces_per_step(), step + 1, 0));
            return (report, polls);
        }
        assert_eq!((pieces.done, trainer.steps()), (polls, step));
    }
    unreachable!()
}

#[test]
fn a_step_in_pieces_has_the_bits_of_a_whole_one() {
    let momentum = Recipe { optimizer: Optimizer::Sgd { momentum: 0.9 }, clip: None, ..recipe() };
    let plain = Recipe { optimizer: Optimizer::Sgd { momentum: 0.0 }, ..recipe() };
    let untied = Config { tied: false, bias: false, hidden: 50, ..config() };
    // Several parts with several chunks each.
    let large = Config { hidden: 4096, ..Config::new(27, 8, 2, 3, 42) };
    let text = text(27);
    for (config, recipe, batch, threads) in [
        (config(), recipe(), 4, 1),
        (config(), Recipe { accumulate: 3, ..recipe() }, 2, 2),
        (config(), Recipe { accumulate: 4, ..momentum }, 1, 1),
        (untied, plain, 3, 3),
        (untied, recipe(), 1, 1),
        (large, recipe(), 1, 2),
    ] {
        let [mut whole, mut pieces] = [(); 2].map(|()| Session::new(&config, &recipe, batch, threads));
        whole.initialize(recipe.seed);
        pieces.initialize(recipe.seed);
        for step in 0..3 {
            let parallel = Threads(threads);
            let mut trainer = whole.trainer(&recipe, InstructionSet::detect(), &parallel);
            trainer.resume_at(step, 0);
            let expected = trainer.step(&text[..]).unwrap();
            let (found, polls) = step_in_pieces(&mut pieces, &recipe, threads, &text, step);
            assert_eq!(found, expected, "{config:?} {recipe:?}");
            let parts = pieces.plan.parameters().div_ceil(4096).min(64);
            let stages = 3 * config.layers + 5;
            assert_eq!(polls as usize, stages * recipe.accumulate + 2 * parts);
        }
        assert!(bits(&pieces.parameters) == bits(&whole.parameters), "{config:?} {recipe:?}");
        assert!(bits(&pieces.optimizer) == bits(&whole.optimizer), "{config:?} {recipe:?}");
    }
}

#[test]
fn a_pass_is_the_stages_of_the_figure_and_each_is_bounded() {
    use Stage::{Backward as B, Forward as F, Loss};
    let wanted = [
        F(Forward::Embedding),
        F(Forward::Block { layer: 0 }),
        F(Forward::Block { layer: 1 }),
        F(Forward::Logits),
        Loss,
        B(Backward::Logits),
        B(Backward::Mlp { layer: 1 }),
        B(Backward::Attention { layer: 1 }),
        B(Backward::Mlp { layer: 0 }),
        B(Backward::Attention { layer: 0 }),
        B(Backward::Embedding),
    ];
    let options = Options::new(1);
    let plan = |recompute| Plan::new(&config(), &Options { recompute, ..options }).unwrap();
    assert_eq!(Stage::all(&plan(false)).collect::<Vec<_>>(), wanted);
    assert_eq!(Stage::count(&plan(false)), wanted.len());
    let mut again = wanted.to_vec();
    again.insert(8, B(Backward::Recompute { layer: 0 }));
    assert_eq!(Stage::all(&plan(true)).collect::<Vec<_>>(), again);
    assert_eq!(Stage::count(&plan(true)), again.len());
    let largest = |config: Config, batch| Plan::new(&config, &Options::new(batch)).unwrap().largest_stage();
    // Width 16, context 8: half a block backward, 4 R C F, is the largest unless the vocabulary is large.
    let small = Config::new(27, 8, 1, 4, 16);
    assert_eq!(largest(small, 1), 8 * 4 * 16 * 64);
    assert_eq!(largest(small, 3), 3 * 8 * 4 * 16 * 64);
    assert_eq!(largest(Config { layers: 7, ..small }, 1), largest(small, 1));
    assert_eq!(largest(Config { vocab: 1000, ..small }, 1), 8 * 16 * 1000);
    assert_eq!(largest(Config { vocab: 1000, tied: false, ..small }, 1), 2 * 8 * 16 * 1000);
    assert_eq!(largest(Config { hidden: 16, context: 100, ..small }, 1), 100 * 16 * (8 * 16 + 5 * 100));
}

#[test]
fn nothing_else_is_done_within_a_step_in_pieces() {
    let (recipe, text) = (Recipe { accumulate: 2, ..recipe() }, text(27));
    let mut session = Session::new(&config(), &recipe, 1, 1);
    session.initialize(5);
    let before = bits(&session.parameters);
    let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
    let (tokens, shape) = ([1, 2, 3], Shape { sequences: 1, length: 3 });
    for done in 1..trainer.pieces_per_step() {
        assert_eq!(trainer.poll(&text[..]), Ok(Poll::Pending));
        assert_eq!(trainer.step(&text[..]), Err(Error::Unfinished));
        assert_eq!(trainer.evaluate(&text[..]), Err(Error::Unfinished));
        assert_eq!(trainer.accumulate(&tokens, &tokens, shape, 3), Err(Error::Unfinished));
        assert_eq!(trainer.update(Loss::default()), Err(Error::Unfinished));
        assert_eq!(trainer.pieces().done, done);
    }
    let Ok(Poll::Ready(report)) = trainer.poll(&text[..]) else { panic!("more pieces than told") };
    trainer.evaluate(&text[..]).unwrap();

    // A step that is abandoned before the update changes nothing.
    let mut other = Session::new(&config(), &recipe, 1, 1);
    other.initialize(5);
    let mut trainer = other.trainer(&recipe, InstructionSet::detect(), &Serial);
    for _ in 0..25 {
        assert_eq!(trainer.poll(&text[..]), Ok(Poll::Pending));
    }
    trainer.resume_at(0, 0);
    assert_eq!(trainer.step(&text[..]), Ok(report));
    assert!(bits(&other.parameters) == bits(&session.parameters));
    assert!(bits(&other.parameters) != before);
}

#[test]
fn errors_give_a_step_in_pieces_up_and_change_no_parameter() {
    let (recipe, text) = (recipe(), text(27));
    let mut session = Session::new(&config(), &recipe, 1, 1);
    session.initialize(5);
    let mut trainer = session.trainer(&recipe, InstructionSet::detect(), &Serial);
    assert_eq!(trainer.poll(&text[..3]), Err(Error::Data { given: 3, wanted: 36 }));
    // The caller changes a token between two pieces.
    assert_eq!(trainer.poll(&text[..]), Ok(Poll::Pending));
    trainer.buffers().batch[7] = 27;
    assert_eq!(trainer.poll(&text[..]), Err(Error::Token { index: 7, token: 27, vocab: 27 }));
    assert_eq!(trainer.pieces(), Pieces::default());

    let gradient_norm = Stage::count(trainer.plan()) as u64;
    while trainer.pieces().done < gradient_norm {
        assert_eq!(trainer.poll(&text[..]), Ok(Poll::Pending));
    }
    trainer.buffers().gradients[3] = f32::INFINITY;
    let parts = (trainer.pieces_per_step() - gradient_norm) / 2;
    for _ in 1..parts {
        assert_eq!(trainer.poll(&text[..]), Ok(Poll::Pending));
    }
    let (what, value) = ("gradient norm", f32::INFINITY);
    let refused = Error::Diverged { step: 0, what, value, tensor: Some(0) };
    assert_eq!(trainer.poll(&text[..]), Err(refused));

    trainer.buffers().parameters[40] = f32::INFINITY;
    let before = bits(trainer.buffers().parameters);
    let error = loop {
        match trainer.poll(&text[..]) {
            Ok(found) => assert_eq!(found, Poll::Pending),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Diverged { what: "loss", tensor: Some(0), .. }), "{error}");
    assert_eq!((trainer.pieces(), trainer.steps()), (Pieces::default(), 0));
    assert!(bits(trainer.buffers().parameters) == before);
}
