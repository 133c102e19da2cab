use std::vec;
use std::vec::Vec;

use super::super::regions::{ChunkRows, NormedHeads, Region};
use super::*;
use crate::config::{Activation, Lora, LowRank, Norm, Positions};
use crate::layout::{Frozen, Group, OptimizerState};
use crate::test_common::Random;

/// Plans with random combinations of all options.
fn plans() -> impl Iterator<Item = Plan> {
    let mut random = Random::new(19);
    (0..400).map(move |_| {
        let heads = random.size(1, 4);
        let width = heads * random.size(1, 9);
        let [vocab, context, layers, hidden] =
            [(2, 40), (1, 12), (1, 5), (1, 50)].map(|(least, most)| random.size(least, most));
        let kv_heads = random.size(0, heads);
        let kv_heads = if heads.is_multiple_of(kv_heads.max(1)) { kv_heads } else { 0 };
        let head_width = 2 * random.size(0, 8);
        let mut flag = || random.size(0, 1) == 1;
        let (tied, bias, recompute, fused) = (flag(), flag(), flag(), flag());
        let target = if flag() { Target::Vectors } else { Target::Portable };
        let mut config = Config { hidden, tied, bias, ..Config::new(vocab, context, layers, heads, width) };
        if flag() {
            let norm = if flag() { Norm::Rms } else { Norm::Layer };
            let activation = if flag() { Activation::SwiGlu } else { Activation::Gelu };
            let even = !config.head_width().is_multiple_of(2) && head_width == 0;
            let positions = if flag() && !even { Positions::Rotary } else { Positions::Learned };
            let (qkv_bias, qk_norm) = (flag(), flag());
            let switches = Config { norm, positions, activation, qkv_bias, qk_norm, ..config };
            config = Config { kv_heads, head_width, ..switches };
        }
        let mut rank = || LowRank::new(random.size(0, 1), 8.0);
        let lora = Lora { o: rank(), up: rank(), down: rank(), ..Lora::NONE };
        let joined = if config.is_gpt2() { Lora { qkv: rank(), ..lora } } else { Lora { k: rank(), ..lora } };
        let mut flag = || random.size(0, 1) == 1;
        if flag() {
            config.lora = Lora { dropout: if flag() { 0.5 } else { 0.0 }, ..joined };
        }
        let mut frozen = Frozen::NONE;
        for number in 0..random.size(0, 20) {
            // The last tensor is always trained.
            if number + 1 < Plan::new(&config, &Options::new(1)).unwrap().tensors().count() {
                frozen.add(number).unwrap();
            }
        }
        let (batch, threads) = (random.size(1, 4), random.size(1, 3));
        let head_rows = random.size(0, 1) * random.size(1, 30);
        let optimizer = OptimizerState::AdamW;
        let options = Options { batch, threads, optimizer, recompute, fused, head_rows, frozen };
        Plan::on(target, &config, &options).unwrap()
    })
}

/// Checks that regions are adjacent, have the lengths of the list, and that sharing has a reason.
fn check(table: &[Region], regions: Vec<&mut [f32]>, rows: usize, per_row: usize) {
    assert_eq!(table.len(), regions.len());
    assert_eq!(table.iter().map(|region| region.elements).sum::<usize>(), per_row);
    let mut end = regions[0].as_ptr();
    for (number, (region, memory)) in table.iter().zip(&regions).enumerate() {
        assert_eq!(memory.as_ptr(), end, "{:?}", region.uses);
        end = memory.as_ptr_range().end;
        // The last region of a list gets the rest.
        let is_last = number + 1 == table.len();
        assert!(memory.len() == region.elements * rows || is_last && memory.len() > region.elements * rows);
        assert_eq!(region.uses.len() > 1, region.because.is_some(), "{:?}", region.uses);
    }
}

#[test]
fn regions_are_disjoint_and_add_up_to_the_plan() {
    for plan in plans() {
        let (sizes, full) =
            (plan.sizes(), Shape { sequences: plan.options.batch, length: plan.config.context });
        let mut memory = vec![0.0; plan.workspace()];
        let [activations, scratch] = per_row(&sizes);
        assert_eq!(activations.get() * full.rows(), plan.activations);
        let angles = Angles::per_row(&sizes).get() * plan.config.context;
        let some_logits = HeadRows::per_row(&sizes).get() * plan.head_rows();
        for length in [plan.config.context, 1] {
            let shape = Shape { length, ..full };
            let rows = shape.rows();
            let parts = WorkspaceParts::new(&mut memory, &plan, shape, |_| {}).unwrap();
            assert_eq!(parts.losses.len(), rows);
            assert_eq!(parts.rotation.cos.len() + parts.rotation.sin.len(), angles);
            assert_eq!(parts.some_logits.len(), some_logits);
            let others = angles + some_logits + parts.worker_scratch.len();
            assert_eq!(scratch.get() * full.rows() + others, plan.scratch);
            assert_eq!(parts.losses.len() + parts.rows.len() + others, plan.workspace());
            assert!(parts.rows.len() >= plan.per_row() * rows);

            let Workspace { mut regions, .. } = Workspace::cut(parts, &plan, shape);
            let kept = Activations::per_row(&sizes).get();
            check(&Activations::table(&sizes), regions.activations.each(), rows, kept);
            check(&Scratch::table(&sizes), regions.scratch.each(), rows, scratch.get());
            let (mut memory, context) = (vec![0.0; angles], plan.config.context);
            let mut rest = &mut memory[..];
            let mut all = Angles::cut(&mut rest, &sizes, context);
            check(&Angles::table(&sizes), all.each(), context, Angles::per_row(&sizes).get());
            let mut memory = vec![0.0; some_logits];
            let mut head = HeadRows::cut(&mut &mut memory[..], &sizes, plan.head_rows());
            check(&HeadRows::table(&sizes), head.each(), plan.head_rows(), sizes.vocab.get());
            let tables = [AttentionActivations::table(&sizes), MlpActivations::table(&sizes)];
            let per_row = [AttentionActivations::per_row(&sizes), MlpActivations::per_row(&sizes)];
            let mut ends = Vec::new();
            for layer in 0..plan.config.layers {
                let BlockActivations { mut attention, mut mlp } = regions.block_forward(layer).kept;
                ends.push(attention.mean.as_ptr());
                assert_eq!(attention.heads.as_ptr_range().end, mlp.mean.as_ptr());
                check(&tables[0], attention.each(), rows, per_row[0].get());
                check(&tables[1], mlp.each(), rows, per_row[1].get());
                if plan.config.has_qk_norm() {
                    let mut heads = attention.heads;
                    let mut normed = NormedHeads::cut(&mut heads, &sizes, rows);
                    check(
                        &NormedHeads::table(&sizes),
                        normed.each(),
                        rows,
                        NormedHeads::per_row(&sizes).get(),
                    );
                    assert!(heads.is_empty());
                }
            }
            // Each kept block has its own activations. The blocks before them share one place.
            ends.dedup();
            assert_eq!(ends.len(), sizes.kept);
        }

        // A generator runs on its plan's target only.
        let plan = Plan::new(&plan.config, &plan.options).unwrap();
        let mut memory = vec![0.0; plan.generation];
        let mut rest = &mut memory[..];
        let mut generation = Generation::cut(&mut rest, &sizes, 1);
        check(&Generation::table(&sizes), generation.each(), 1, Generation::per_row(&sizes).get());
        let mut chunk = generation.chunk;
        let mut rows = ChunkRows::cut(&mut chunk, &sizes, sizes.chunk);
        check(&ChunkRows::table(&sizes), rows.each(), sizes.chunk, ChunkRows::per_row(&sizes).get());
    }
}

/// Two uses of one region see the same memory: one reads the values that the other wrote.
#[test]
fn regions_share_memory_only_where_the_list_says_so() {
    let shared: Vec<_> = {
        let config = Config { tied: false, ..Config::new(9, 4, 2, 1, 8) };
        let sizes = Plan::new(&config, &Options { fused: true, ..Options::new(1) }).unwrap().sizes();
        let tables = [
            Activations::table(&sizes),
            AttentionActivations::table(&sizes),
            MlpActivations::table(&sizes),
            Scratch::table(&sizes),
            Generation::table(&sizes),
            ChunkRows::table(&sizes),
        ];
        tables
            .into_iter()
            .flatten()
            .filter(|region| region.uses.len() > 1)
            .map(|region| region.uses)
            .collect()
    };
    let wanted: [&[&str]; 5] = [
        &["hidden", "d_qkv"],
        &["last_x", "d_branch"],
        &["d_normed", "d_attended"],
        &["normed", "head_input", "fused_d_normed", "fused_d_attended"],
        &["activated", "logits", "fused_normed"],
    ];
    assert_eq!(shared, wanted);
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/memory.md");
    let document = std::fs::read_to_string(document).unwrap();
    for name in shared.into_iter().flatten() {
        assert!(document.contains(&std::format!("`{name}`")), "docs/memory.md does not name {name}");
    }

    for plan in plans().take(50) {
        let shape = Shape { sequences: 1, length: plan.config.context };
        let mut memory = vec![0.0; plan.workspace()];
        let mut regions = Workspace::new(&mut memory, &plan, shape).unwrap().regions;
        let layer = plan.config.layers - 1;
        let first = |x: &[f32]| x.as_ptr() as usize;
        let BlockForward { after, normed, activated, kept, .. } = regions.block_forward(layer);
        let [last_x, normed, activated, hidden] = [&*after, normed, activated, kept.mlp.hidden].map(first);
        let view = regions.block_backward(layer, InUse::Normed);
        let (d_branch, d_normed, again) = (first(view.d_branch), first(view.d_normed), first(view.normed));
        assert_eq!(d_branch, last_x);
        assert_eq!(first(view.kept.mlp.hidden), hidden);
        assert_eq!((d_normed == normed, again == activated), (plan.options.fused, plan.options.fused));
        let Head { input, logits, .. } = regions.head(InUse::Activated);
        let (input, logits) = (first(input), first(logits));
        let (untied, at_once) = (!plan.config.tied, !plan.options.chunks_head());
        assert_eq!((input == normed, logits == activated), (untied, untied && at_once));
    }
}

/// Attention's tiles fit into the activated columns or the worker's scratch, for sequences of any length.
#[test]
fn attention_finds_its_scratch_on_portable_targets() {
    let (mut in_activated, mut in_scratch) = (0, 0);
    for (context, width, hidden) in [(64, 64, 256), (12, 32, 128), (16, 16, 64), (40, 8, 8)] {
        for (vocab, fused, batch) in [(18, true, 1), (18, false, 2), (27, true, 1), (5, true, 2)] {
            let config = Config { hidden, tied: false, ..Config::new(vocab, context, 1, 1, width) };
            let options = Options { fused, ..Options::new(batch) };
            let plan = Plan::on(Target::Portable, &config, &options).unwrap();
            let mut memory = vec![0.0; plan.workspace()];
            for length in 1..=context {
                let shape = Shape { sequences: 1, length };
                let Workspace { worker_scratch, mut regions, .. } =
                    Workspace::new(&mut memory, &plan, shape).unwrap();
                let BlockForward { activated, .. } = regions.block_forward(0);
                let wanted = attention::worker_scratch(Target::Portable, length, width);
                assert!(worker_scratch.len().max(activated.len()) >= wanted, "{config:?} {length}");
                *if activated.len() > worker_scratch.len() { &mut in_activated } else { &mut in_scratch } +=
                    1;
            }
        }
    }
    assert!(in_activated > 0 && in_scratch > 0);
}

#[test]
fn the_table_of_tensors_adds_up_to_the_plan() {
    for plan in plans() {
        let (mut trained, mut frozen, mut names) = (0, 0, Vec::new());
        for tensor in plan.tensors() {
            let end = if tensor.frozen { &mut frozen } else { &mut trained };
            assert_eq!(tensor.offset, *end, "{}", tensor.name);
            *end += tensor.len();
            assert!(!names.contains(&tensor.name), "{} twice", tensor.name);
            names.push(tensor.name);
        }
        assert_eq!((trained, frozen), (plan.parameters, plan.frozen));
        let groups =
            (0..plan.config.layers).flat_map(|layer| [Group::Attention { layer }, Group::Mlp { layer }]);
        let groups = [Group::Embedding].into_iter().chain(groups);
        let of_groups = groups.chain([Group::Logits]).flat_map(|group| {
            plan.pairs(group).flat_map(|site| [site.weight, site.bias]).flatten().collect::<Vec<_>>()
        });
        assert!(of_groups.eq(plan.tensors()), "each tensor once, in its order");
    }
}
