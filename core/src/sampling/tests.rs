use std::vec;
use std::vec::Vec;

use super::*;
use crate::rng::{Stream, generator, uniform};
use crate::test_common::instruction_sets;

const LOGITS: [f32; 8] = [1.0, -2.0, 0.5, 3.0, 0.0, -0.0, 2.5, -1.5];

fn sample_with(sampling: Sampling, logits: &[f32], rng: &mut impl Rng) -> Result<usize, Error> {
    let mut order = vec![u32::MAX; logits.len()];
    sample(InstructionSet::PORTABLE, &sampling, &mut logits.to_vec(), &mut order, rng)
}

fn weights(simd: InstructionSet, sampling: Sampling, logits: &[f32]) -> Vec<f32> {
    let mut weights = logits.to_vec();
    let (_, greatest) = greatest(logits).unwrap();
    weigh(simd, &sampling, &mut weights, &mut vec![0; logits.len()], greatest).unwrap();
    weights
}

/// The probabilities of the kept tokens, in f64, with a full sort and the host's exp.
fn reference(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
    fn softmax(logits: &[f64]) -> Vec<f64> {
        let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exps: Vec<f64> = logits.iter().map(|logit| (logit - greatest).exp()).collect();
        let sum: f64 = exps.iter().sum();
        exps.iter().map(|exp| exp / sum).collect()
    }
    let mut logits: Vec<f64> =
        logits.iter().map(|logit| f64::from(*logit) / f64::from(sampling.temperature)).collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // A stable sort leaves the lower of two equal tokens first.
    order.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).unwrap());
    if let Some(k) = sampling.top_k {
        order.iter().skip(k).for_each(|token| logits[*token] = f64::NEG_INFINITY);
    }
    if let Some(p) = sampling.top_p.filter(|p| *p < 1.0) {
        let probabilities = softmax(&logits);
        let mut sum = 0.0;
        for token in &order {
            if sum >= f64::from(p) {
                logits[*token] = f64::NEG_INFINITY;
            }
            sum += probabilities[*token];
        }
    }
    if let Some(share) = sampling.min_p {
        let probabilities = softmax(&logits);
        let least = f64::from(share) * probabilities.iter().copied().fold(0.0, f64::max);
        for (logit, probability) in logits.iter_mut().zip(probabilities) {
            if probability < least {
                *logit = f64::NEG_INFINITY;
            }
        }
    }
    softmax(&logits)
}

/// Roughly normal logits. With `ties` they are rounded to halves, so that many are equal.
fn random_logits(seed: u64, vocab: usize, ties: bool) -> Vec<f32> {
    let mut rng = generator(seed, Stream::Batches, 0, 0);
    let mut logit = || (0..4).map(|_| uniform(&mut rng) * 4.0 - 2.0).sum::<f32>();
    (0..vocab).map(|_| if ties { (logit() * 2.0).round() / 2.0 } else { logit() }).collect()
}

/// All combinations of some values of each filter.
fn samplings() -> Vec<Sampling> {
    let mut all = vec![];
    for temperature in [0.7, 1.0, 1.9] {
        for top_k in [None, Some(1), Some(3), Some(50), Some(5000)] {
            for top_p in [None, Some(0.05), Some(0.503), Some(0.93), Some(0.9991), Some(1.0)] {
                for min_p in [None, Some(0.0), Some(0.0317), Some(0.41), Some(1.0)] {
                    all.push(Sampling { temperature, top_k, top_p, min_p });
                }
            }
        }
    }
    all
}

#[test]
fn greedy_takes_the_first_of_the_greatest_and_nothing_else() {
    let mut rng = generator(1, Stream::Sampling, 0, 0);
    let mut untouched = rng.clone();
    let mut order = [9; 4];
    for (mut logits, token) in [
        ([1.0, 3.0, 3.0, 2.0], 1),
        ([-0.0, 0.0, -1.0, -2.0], 0),
        ([f32::NEG_INFINITY, -1e38, -2.0, f32::MIN], 2),
    ] {
        let before = logits;
        let drawn = sample(InstructionSet::PORTABLE, &Sampling::GREEDY, &mut logits, &mut order, &mut rng);
        assert_eq!(drawn, Ok(token));
        assert_eq!((logits, order), (before, [9; 4]));
    }
    assert_eq!(rng.next_u64(), untouched.next_u64());
}

#[test]
fn the_tightest_filters_agree_with_greedy() {
    for ties in [false, true] {
        for seed in 0..50 {
            let logits = random_logits(seed, 257, ties);
            let mut rng = generator(seed, Stream::Sampling, 0, 0);
            let greedy = sample_with(Sampling::GREEDY, &logits, &mut rng);
            let one = [
                Sampling { top_k: Some(1), ..Sampling::new(1.0) },
                Sampling { top_p: Some(1e-9), ..Sampling::new(1.0) },
            ];
            for sampling in one {
                assert_eq!(sample_with(sampling, &logits, &mut rng), greedy, "{sampling:?}");
            }
            if !ties {
                let sampling = Sampling { min_p: Some(1.0), ..Sampling::new(1.0) };
                assert_eq!(sample_with(sampling, &logits, &mut rng), greedy);
                assert_eq!(sample_with(Sampling::new(1e-40), &logits, &mut rng), greedy);
            }
        }
    }
    // 0 and -0 are equal for the filters too.
    let sampling = Sampling { top_k: Some(1), ..Sampling::new(1.0) };
    let mut rng = generator(1, Stream::Sampling, 0, 0);
    assert_eq!(sample_with(sampling, &[-0.0, 0.0, -1.0], &mut rng), Ok(0));
}

#[test]
fn filters_keep_what_the_reference_keeps() {
    for (vocab, ties) in [(1, false), (2, true), (65, false), (65, true), (3001, false), (3001, true)] {
        let logits = random_logits(7, vocab, ties);
        for sampling in samplings() {
            let expected = reference(sampling, &logits);
            let given = weights(InstructionSet::detect(), sampling, &logits);
            let total: f64 = given.iter().copied().map(f64::from).sum();
            for (token, (given, expected)) in given.iter().zip(&expected).enumerate() {
                assert_eq!(*given > 0.0, *expected > 0.0, "V {vocab}, token {token}, {sampling:?}");
                // A few ulp of f32 from the division, exp and the sum; exponents reach 25 here.
                let error = (f64::from(*given) / total - expected).abs();
                assert!(error <= 4e-6 * expected, "V {vocab}, token {token}, {sampling:?}");
            }
        }
    }
}

#[test]
fn filters_that_keep_all_change_no_draw() {
    let logits = random_logits(3, 100, true);
    let open = Sampling { top_k: Some(100), top_p: Some(1.0), min_p: Some(0.0), ..Sampling::new(0.8) };
    let mut rngs = [(); 2].map(|()| generator(5, Stream::Sampling, 0, 0));
    let [a, b] = &mut rngs;
    for _ in 0..100 {
        assert_eq!(sample_with(open, &logits, a), sample_with(Sampling::new(0.8), &logits, b));
    }
}

/// Pearson's statistic of 100000 draws stays below the 99.9th percentile for its degrees of freedom.
#[test]
fn frequencies_follow_the_probabilities() {
    const DRAWS: u32 = 100_000;
    let percentiles = [(1, 10.83), (2, 13.82), (3, 16.27), (5, 20.52), (7, 24.32)];
    for (sampling, kept) in [
        (Sampling::new(1.0), 8),
        (Sampling::new(0.5), 8),
        (Sampling { top_k: Some(4), ..Sampling::new(1.3) }, 4),
        (Sampling { top_p: Some(0.8), ..Sampling::new(1.0) }, 2),
        (Sampling { min_p: Some(0.05), ..Sampling::new(1.1) }, 6),
        (Sampling { top_k: Some(5), top_p: Some(0.9), min_p: Some(0.01), ..Sampling::new(1.0) }, 3),
    ] {
        let expected = reference(sampling, &LOGITS);
        let mut counts = [0_u32; LOGITS.len()];
        for position in 0..u64::from(DRAWS) {
            let mut rng = generator(20, Stream::Sampling, 0, position);
            counts[sample_with(sampling, &LOGITS, &mut rng).unwrap()] += 1;
        }
        let possible = counts.iter().zip(&expected).filter(|(_, expected)| **expected > 0.0);
        let statistic: f64 = possible
            .clone()
            .map(|(count, share)| (share * f64::from(DRAWS), *count))
            .map(|(mean, count)| (f64::from(count) - mean).powi(2) / mean)
            .sum();
        assert_eq!(possible.clone().count(), kept, "{sampling:?}");
        assert_eq!(possible.map(|(count, _)| count).sum::<u32>(), DRAWS, "{sampling:?}");
        let (_, most) = percentiles.iter().find(|(freedom, _)| *freedom == kept - 1).unwrap();
        assert!(statistic < *most, "{sampling:?}: {statistic} against {most}");
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for vocab in [1, 15, 16, 65, 1000] {
        let logits = random_logits(11, vocab, false);
        for sampling in samplings() {
            let portable = weights(InstructionSet::PORTABLE, sampling, &logits);
            for simd in instruction_sets() {
                let given = weights(simd, sampling, &logits);
                let same = given.iter().zip(&portable).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{}, V {vocab}, {sampling:?}", simd.name());
            }
        }
    }
}

/// Fixed for ever: a change here changes the text of every seed.
#[test]
fn a_seed_writes_what_it_always_wrote() {
    let logits = random_logits(2, 65, false);
    let sampling = Sampling { top_k: Some(40), top_p: Some(0.95), ..Sampling::new(0.9) };
    let tokens: Vec<usize> = (0..12)
        .map(|position| {
            let mut rng = generator(1337, Stream::Sampling, 3, position);
            sample_with(sampling, &logits, &mut rng).unwrap()
        })
        .collect();
    assert_eq!(tokens, [46, 29, 33, 46, 19, 25, 19, 22, 46, 46, 25, 25]);
}

#[test]
fn extremes_are_drawn_from() {
    let mut rng = generator(1, Stream::Sampling, 0, 0);
    for _ in 0..50 {
        for temperature in [1e-45, 1.0, f32::MAX] {
            let barred = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, f32::NEG_INFINITY];
            assert_eq!(sample_with(Sampling::new(temperature), &barred, &mut rng), Ok(1));
        }
        assert_eq!(sample_with(Sampling::new(1e-45), &[1.0, 1.5, 1.0], &mut rng), Ok(1));
        assert_eq!(sample_with(Sampling::new(1.0), &[f32::MIN, f32::MAX], &mut rng), Ok(1));
    }
}

#[test]
fn logits_without_a_finite_greatest_are_refused_untouched() {
    let infinite = f32::INFINITY;
    for (given, what) in
        [([1.0, f32::NAN, 2.0], "logit"), ([1.0, infinite, 2.0], "logit"), ([-infinite; 3], "greatest logit")]
    {
        for temperature in [0.0, 1.0] {
            let mut rng = generator(1, Stream::Sampling, 0, 0);
            let mut untouched = rng.clone();
            let (mut logits, mut order) = (given, [9; 3]);
            let sampling = Sampling { top_p: Some(0.5), ..Sampling::new(temperature) };
            let error = sample(InstructionSet::PORTABLE, &sampling, &mut logits, &mut order, &mut rng);
            assert!(matches!(error, Err(Error::NotFinite { what: w, .. }) if w == what), "{error:?}");
            assert_eq!((logits.map(f32::to_bits), order), (given.map(f32::to_bits), [9; 3]));
            assert_eq!(rng.next_u64(), untouched.next_u64());
        }
    }
}

#[test]
fn every_wrong_value_is_named() {
    let mut rng = generator(1, Stream::Sampling, 0, 0);
    let mut error = |sampling: Sampling| sample_with(sampling, &LOGITS, &mut rng).unwrap_err();
    for given in [-0.1, f32::INFINITY, f32::NAN] {
        assert!(matches!(error(Sampling::new(given)), Error::Range { what: "temperature", .. }));
    }
    let zero = error(Sampling { top_k: Some(0), ..Sampling::new(1.0) });
    assert_eq!(zero, Error::Zero { what: "top_k" });
    for given in [-0.1, 0.0, 1.1, f32::NAN] {
        let sampling = Sampling { top_p: Some(given), ..Sampling::new(1.0) };
        assert!(matches!(error(sampling), Error::Range { what: "top_p", .. }));
    }
    for given in [-0.1, 1.1, f32::NAN] {
        let sampling = Sampling { min_p: Some(given), ..Sampling::new(1.0) };
        assert!(matches!(error(sampling), Error::Range { what: "min_p", .. }));
    }
    assert_eq!(sample_with(Sampling::GREEDY, &[], &mut rng), Err(Error::Zero { what: "logits" }));
    for given in [7, 9] {
        let (mut logits, mut order) = (LOGITS, vec![0; given]);
        let sampling = Sampling::GREEDY;
        assert_eq!(
            sample(InstructionSet::PORTABLE, &sampling, &mut logits, &mut order, &mut rng),
            Err(Error::Length { what: "order", given, wanted: 8 })
        );
    }
}
