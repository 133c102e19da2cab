//! Every operation, forward and backward, at the sizes of the small and the medium model, on one thread:
//! `cargo bench --bench operations`.
//!
//! The throughput of products is in floating-point operations, as if nothing were computed twice. All other throughput is
//! in bytes, with each operand read or written once.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jostle::gradient_norm;
use jostle::matmul::{Size, scratch};
use jostle::ops::attention::{self, Attention};
use jostle::ops::dropout::{self, Mask};
use jostle::ops::{cross_entropy, embedding, gelu, layer_norm, linear, softmax};
use jostle::rng::Stream;
use jostle::{Activation, Compute, Config, InstructionSet, Optimizer, Options, Plan};
use jostle_benches::floats::{random, zeros};
use jostle_benches::session::CONFIGURATIONS;

/// One configuration's sizes: rows, vocabulary, context, heads and width.
#[derive(Clone, Copy)]
struct Sizes {
    name: &'static str,
    rows: usize,
    vocab: usize,
    context: usize,
    heads: usize,
    width: usize,
}

/// A throughput of reading and writing this many f32 or i32.
fn elements(count: usize) -> Throughput {
    Throughput::Bytes(4 * count as u64)
}

/// A throughput of this many fused multiply-adds.
fn multiply_adds(count: usize) -> Throughput {
    Throughput::Elements(2 * count as u64)
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn bench(group: &mut Group<'_>, sizes: Sizes, name: &str, throughput: Throughput, mut work: impl FnMut()) {
    group.throughput(throughput);
    group.bench_function(BenchmarkId::new(name, sizes.name), |bencher| bencher.iter(&mut work));
}

const FITS: &str = "buffers of these sizes";

fn embedding(group: &mut Group<'_>, simd: InstructionSet, sizes: Sizes) {
    let Sizes { rows, vocab, context, width: c, .. } = sizes;
    let tokens: Vec<i32> = (0..rows).map(|row| (row * 31 % vocab) as i32).collect();
    let (wte, wpe, d_x) = (random(vocab * c), random(context * c), random(rows * c));
    let (mut x, mut d_wte, mut d_wpe) = (zeros(rows * c), zeros(vocab * c), zeros(context * c));
    bench(group, sizes, "embedding forward", elements(3 * rows * c + rows), || {
        embedding::forward(simd, &mut x, &tokens, &wte, &wpe, c, context).expect(FITS);
    });
    bench(group, sizes, "embedding backward", elements(5 * rows * c + rows), || {
        embedding::backward(simd, &mut d_wte, &mut d_wpe, &d_x, &tokens, c, context).expect(FITS);
    });
}

fn norm(group: &mut Group<'_>, simd: InstructionSet, sizes: Sizes) {
    let Sizes { rows, width: c, .. } = sizes;
    let (x, weight, bias, d_y) = (random(rows * c), random(c), random(c), random(rows * c));
    let (mut y, mut mean, mut rstd) = (zeros(rows * c), zeros(rows), zeros(rows));
    let (mut d_x, mut d_weight, mut d_bias) = (zeros(rows * c), zeros(c), zeros(c));
    bench(group, sizes, "layer_norm forward", elements(2 * rows * c), || {
        layer_norm::forward(simd, &mut y, &mut mean, &mut rstd, &x, &weight, &bias, 1e-5).expect(FITS);
    });
    bench(group, sizes, "layer_norm backward", elements(4 * rows * c), || {
        layer_norm::backward(simd, &mut d_x, &d_y, &x, &mean, &rstd, &weight).expect(FITS);
    });
    bench(group, sizes, "layer_norm backward_parameters", elements(2 * rows * c), || {
        layer_norm::backward_parameters(simd, &mut d_weight, &mut d_bias, &d_y, &x, &mean, &rstd)
            .expect(FITS);
    });
}

/// The product into the hidden width.
fn linear(group: &mut Group<'_>, simd: InstructionSet, sizes: Sizes) {
    let Sizes { rows, width: c, .. } = sizes;
    let f = 4 * c;
    let (x, weight, bias, d_y) = (random(rows * c), random(c * f), random(f), random(rows * f));
    let (mut y, mut d_x, mut d_weight, mut d_bias) =
        (zeros(rows * f), zeros(rows * c), zeros(c * f), zeros(f));
    // For each of the three products.
    let mut scratch = zeros(scratch(Size { m: rows.max(c), n: f, k: rows.max(f) }));
    let throughput = multiply_adds(rows * c * f);
    bench(group, sizes, "linear forward", throughput.clone(), || {
        linear::forward(simd, &mut y, &x, &weight, &bias, c, &mut scratch).expect(FITS);
    });
    bench(group, sizes, "linear backward", throughput.clone(), || {
        linear::backward(simd, &mut d_x, &d_y, &weight, c, &mut scratch).expect(FITS);
    });
    bench(group, sizes, "linear backward_parameters", throughput, || {
        linear::backward_parameters(simd, &mut d_weight, &mut d_bias, &x, &d_y, c, &mut scratch).expect(FITS);
    });
}

/// One sequence, with dropout and without.
fn attention(group: &mut Group<'_>, simd: InstructionSet, sizes: Sizes) {
    let Sizes { context: t, heads, width: c, .. } = sizes;
    let (qkv, d_out) = (random(t * 3 * c), random(t * c));
    let (mut out, mut stats, mut d_qkv) = (zeros(t * c), zeros(heads * t * 2), zeros(t * 3 * c));
    let mut scratch = zeros(attention::scratch(t, c));
    // One product forward for the scores and one for the values, each with the triangle under the diagonal; twice
    // as many backward.
    let triangle = t * (t + 1) / 2 * c;
    for (suffix, rate) in [("", 0.0), (", dropout", 0.1)] {
        let mask = Mask::new(rate, 1, Stream::AttentionDropout, 0, 0).expect("a rate");
        let attention = Attention { heads, kv_heads: heads, width: c, mask, sequence: 0 };
        bench(group, sizes, &format!("attention forward{suffix}"), multiply_adds(2 * triangle), || {
            attention::forward(simd, &mut out, &mut stats, &qkv, attention, &mut scratch).expect(FITS);
        });
        bench(group, sizes, &format!("attention backward{suffix}"), multiply_adds(4 * triangle), || {
            attention::backward(simd, &mut d_qkv, &d_out, &qkv, &out, &stats, attention, &mut scratch)
                .expect(FITS);
        });
    }
}

fn elementwise(group: &mut Group<'_>, simd: InstructionSet, sizes: Sizes) {
    let Sizes { rows, width: c, .. } = sizes;
    let hidden = rows * 4 * c;
    let (x, d_y, mut y) = (random(hidden), random(hidden), zeros(hidden));
    for (name, activation) in [("gelu", Activation::Gelu), ("gelu_tanh", Activation::GeluTanh)] {
        bench(group, sizes, &format!("{name} forward"), elements(2 * hidden), || {
            gelu::forward(simd, &mut y, &x, activation).expect(FITS);
        });
        bench(group, sizes, &format!("{name} backward"), elements(3 * hidden), || {
            gelu::backward(simd, &mut y, &d_y, &x, activation).expect(FITS);
        });
    }
    let mask = Mask::new(0.1, 1, Stream::EmbeddingDropout, 0, 0).expect("a rate");
    let (x, y) = (&x[..rows * c], &mut y[..rows * c]);
    bench(group, sizes, "dropout forward", elements(2 * rows * c), || {
        dropout::forward(simd, y, x, c, mask, 0).expect(FITS);
    });
    bench(group, sizes, "dropout backward", elements(2 * rows * c), || {
        dropout::backward(simd, y, x, c, mask, 0).expect(FITS);
    });
}

fn rows_of_logits(group: &mut Group<'_>, simd: InstructionSet, sizes: Sizes) {
    let Sizes { rows, vocab, context, .. } = sizes;
    let targets: Vec<i32> = (0..rows).map(|row| (row * 31 % vocab) as i32).collect();
    let (mut logits, mut losses) = (random(rows * vocab), zeros(rows));
    bench(group, sizes, "cross_entropy forward", elements(rows * vocab), || {
        cross_entropy::forward(simd, &mut losses, &logits, &targets, vocab).expect(FITS);
    });
    // In place: gradients are logits as good as any.
    bench(group, sizes, "cross_entropy backward", elements(2 * rows * vocab), || {
        cross_entropy::backward(simd, &mut losses, &mut logits, &targets, vocab, rows).expect(FITS);
    });
    let square = context * context;
    let (mut y, d_y, mut d_x) = (random(square), random(square), zeros(square));
    bench(group, sizes, "softmax forward", elements(2 * square), || {
        softmax::forward(simd, &mut y, context).expect(FITS);
    });
    bench(group, sizes, "softmax backward", elements(3 * square), || {
        softmax::backward(simd, &mut d_x, &d_y, &y, context).expect(FITS);
    });
}

/// All parameters of the model.
fn update(group: &mut Group<'_>, sizes: Sizes, plan: &Plan) {
    let n = plan.parameters();
    let (mut parameters, gradients, mut state) = (random(n), random(n), zeros(plan.optimizer()));
    let compute = Compute::serial();
    let mut step = 0;
    bench(group, sizes, "AdamW", elements(7 * n), || {
        Optimizer::ADAMW
            .update(compute, plan, &mut parameters, &gradients, &mut state, step, 1e-3, 1.0)
            .expect(FITS);
        step += 1;
    });
    bench(group, sizes, "gradient_norm", elements(n), || {
        std::hint::black_box(gradient_norm(compute, &gradients));
    });
}

fn operations(criterion: &mut Criterion) {
    let simd = InstructionSet::detect();
    let mut group = criterion.benchmark_group("operations");
    for (name, [vocab, context, layers, heads, width, batch]) in &CONFIGURATIONS[1..3] {
        let sizes = Sizes {
            name,
            rows: batch * context,
            vocab: *vocab,
            context: *context,
            heads: *heads,
            width: *width,
        };
        let config = Config::new(*vocab, *context, *layers, *heads, *width);
        let plan = Plan::new(&config, &Options::new(*batch)).expect("a model");
        embedding(&mut group, simd, sizes);
        norm(&mut group, simd, sizes);
        linear(&mut group, simd, sizes);
        attention(&mut group, simd, sizes);
        elementwise(&mut group, simd, sizes);
        rows_of_logits(&mut group, simd, sizes);
        update(&mut group, sizes, &plan);
    }
    group.finish();
}

criterion_group!(benches, operations);
criterion_main!(benches);
