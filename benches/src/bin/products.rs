//! The products of a training step on request, without the operations between them: each as often as in a step, on operands
//! that stay in place. Attention includes its softmax, because its products are parts of it. Threads are data-parallel or
//! work-sharing as in the step. Data-parallel threads add to gradients of their own, and never wait for each other. The
//! protocol is the same as for the binary `step`:
//!
//!     echo 20 | products --sizes 65,64,4,4,128,12
//!
//! A profile tells the kinds apart by the functions' names.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::sync::Mutex;

use clap::Parser;
use jostle::matmul::{Matrix, Size, Start, matmul, matmul_parallel, scratch};
use jostle::ops::attention::{self, Attention};
use jostle::{Compute, Config, InstructionSet, Options, Parallel, Plan, Serial, Shape};
use jostle_benches::floats::{Floats, random, zeros};
use jostle_benches::{operations, turns};
use jostle_pool::Pool;

#[derive(Parser)]
struct Arguments {
    /// Vocabulary, context, layers, heads, width and batch
    #[arg(long, value_name = "V,T,L,H,C,B", value_delimiter = ',', required = true)]
    sizes: Vec<usize>,
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { sizes, threads } = Arguments::parse();
    let [vocab, context, layers, heads, width, batch] = sizes.as_slice().try_into()?;
    let config = Config::new(vocab, context, layers, heads, width);
    let plan = Plan::new(&config, &Options { threads, ..Options::new(batch) })?;
    let pool = Pool::new(threads)?;
    turns::ready()?;
    let weight = random(width * vocab.max(config.hidden).max(3 * width));
    let simd = InstructionSet::detect();
    let teams: Vec<_> = if plan.shares_work(Shape { sequences: batch, length: context }, threads) {
        vec![Team::new(config, batch, &weight, Compute { simd, parallel: &pool })]
    } else {
        let workers = threads.min(batch);
        let compute = Compute { simd, parallel: &Serial };
        (0..workers).map(|i| Team::new(config, share(batch, workers, i).len(), &weight, compute)).collect()
    };
    let multiply_adds = BTreeMap::from(operations::multiply_adds(&plan));
    let about = serde_json::json!({ "multiply_adds": multiply_adds });
    turns::serve(&about, || {
        pool.run(teams.len(), &|i| teams[i].step());
        Ok(())
    })
}

/// The part of `0..units` that falls to one of `workers`.
fn share(units: usize, workers: usize, i: usize) -> Range<usize> {
    i * units / workers..(i + 1) * units / workers
}

/// The workers that compute some sequences' products: a single one, or all threads.
struct Team<'a> {
    config: Config,
    sequences: usize,
    compute: Compute<'a>,
    weight: &'a [f32],
    /// The input rows of a product, and the gradients of its output rows.
    x: Floats,
    d_y: Floats,
    d_logits: Floats,
    workers: Vec<Mutex<Worker>>,
    all: Mutex<All>,
}

/// The outputs of one worker.
struct Worker {
    output: Floats,
    stats: Floats,
    scratch: Floats,
}

/// The outputs that all workers share, and their scratch, this much for each.
struct All {
    output: Floats,
    scratch: Floats,
    each: usize,
}

const FITS: &str = "buffers of these sizes";

impl<'a> Team<'a> {
    fn new(config: Config, sequences: usize, weight: &'a [f32], compute: Compute<'a>) -> Team<'a> {
        let Config { vocab: v, context: t, heads: h, width: c, hidden: f, .. } = config;
        let rows = sequences * t;
        let widest = f.max(3 * c);
        let side = rows.max(widest).max(v);
        let most = scratch(Size { m: side, n: side, k: side }).max(attention::scratch(t, c));
        let worker = |_| {
            let output = zeros(weight.len().max(4 * t * c));
            Mutex::new(Worker { output, stats: zeros(2 * h * t), scratch: zeros(most) })
        };
        let [x, d_y] = [rows * widest; 2].map(random);
        let d_logits = random(rows * v);
        let workers: Vec<_> = (0..compute.parallel.threads()).map(worker).collect();
        let (output, scratch) = (zeros(rows * v.max(widest)), zeros(workers.len() * most));
        let all = Mutex::new(All { output, scratch, each: most });
        Team { config, sequences, compute, weight, x, d_y, d_logits, workers, all }
    }

    fn step(&self) {
        let Config { vocab, layers, width: c, hidden: f, .. } = self.config;
        let weights = [(c, 3 * c), (c, c), (c, f), (f, c)].repeat(layers);
        for weight in &weights {
            self.forward(*weight);
        }
        for weight in &weights {
            self.backward(*weight);
        }
        for weight in &weights {
            self.share(weight.0, |of_weight, worker| self.gradients(*weight, of_weight, worker));
        }
        for _ in 0..layers {
            self.share(self.sequences, |sequences, worker| self.attention(sequences, worker));
        }
        self.head();
        self.share(vocab, |of_weight, worker| self.head_gradients(of_weight, worker));
    }

    fn rows(&self) -> usize {
        self.sequences * self.config.context
    }

    /// Runs the task on all threads, each with its worker's share of the units.
    fn share(&self, units: usize, task: impl Fn(Range<usize>, &mut Worker) + Sync) {
        let workers = self.workers.len();
        self.compute.parallel.run(workers, &|i| {
            let worker = &mut self.workers[i].lock().expect("no panic");
            task(share(units, workers, i), worker);
        });
    }

    #[inline(never)]
    fn forward(&self, (k, n): (usize, usize)) {
        let size = Size { m: self.rows(), n, k };
        self.product(size, [Matrix::new(&self.x, k), Matrix::new(self.weight, n)]);
    }

    #[inline(never)]
    fn backward(&self, (k, n): (usize, usize)) {
        let size = Size { m: self.rows(), n: k, k: n };
        self.product(size, [Matrix::new(&self.d_y, n), Matrix::new(self.weight, n).transposed()]);
    }

    /// A product of all rows, whose work the workers share.
    fn product(&self, size: Size, [a, b]: [Matrix<'_>; 2]) {
        let All { output, scratch, each } = &mut *self.all.lock().expect("no panic");
        let (c, scratch) = ((&mut **output, size.n), (&mut **scratch, *each));
        matmul_parallel(self.compute, size, c, Start::Zero, a, b, scratch).expect(FITS);
    }

    /// A product that is added to a worker's gradients.
    fn add(&self, size: Size, c: &mut [f32], [a, b]: [Matrix<'_>; 2], scratch: &mut [f32]) {
        matmul(self.compute.simd, size, (c, size.n), Start::Accumulate, a, b, scratch).expect(FITS);
    }

    #[inline(never)]
    fn gradients(&self, (k, n): (usize, usize), of_weight: Range<usize>, worker: &mut Worker) {
        let x = Matrix::new(&self.x[of_weight.start..], k).transposed();
        let size = Size { m: of_weight.len(), n, k: self.rows() };
        let Worker { output, scratch, .. } = worker;
        self.add(size, output, [x, Matrix::new(&self.d_y, n)], scratch);
    }

    #[inline(never)]
    fn attention(&self, sequences: Range<usize>, Worker { output, stats, scratch }: &mut Worker) {
        let Config { context: t, heads, width: c, .. } = self.config;
        let simd = self.compute.simd;
        let (out, d_qkv) = output[..4 * t * c].split_at_mut(t * c);
        for sequence in sequences {
            let attention =
                Attention { heads, kv_heads: heads, width: c, mask: None, sequence: sequence as u64 };
            let qkv = &self.x[sequence * t * 3 * c..][..t * 3 * c];
            let d_out = &self.d_y[sequence * t * c..][..t * c];
            attention::forward(simd, out, stats, qkv, attention, scratch).expect(FITS);
            attention::backward(simd, d_qkv, d_out, qkv, out, stats, attention, scratch).expect(FITS);
        }
    }

    #[inline(never)]
    fn head(&self) {
        let Config { vocab: v, width: c, .. } = self.config;
        let (m, weight) = (self.rows(), Matrix::new(self.weight, c));
        self.product(Size { m, n: v, k: c }, [Matrix::new(&self.x, c), weight.transposed()]);
        self.product(Size { m, n: c, k: v }, [Matrix::new(&self.d_logits, v), weight]);
    }

    /// By blocks of the vocabulary, as in the step: sequence by sequence if each has tokens of a block, all at once if few
    /// have.
    #[inline(never)]
    fn head_gradients(&self, of_weight: Range<usize>, Worker { output, scratch, .. }: &mut Worker) {
        const BLOCK: usize = Plan::VOCABULARY_BLOCK;
        let Config { vocab: v, context: t, width: c, .. } = self.config;
        let k = if v > BLOCK { self.rows() } else { t };
        for (first, output) in of_weight.clone().step_by(BLOCK).zip(output.chunks_mut(BLOCK * c)) {
            let m = BLOCK.min(of_weight.end - first);
            for row in (0..self.rows()).step_by(k) {
                let d_logits = Matrix::new(&self.d_logits[row * v + first..], v).transposed();
                let operands = [d_logits, Matrix::new(&self.x[row * c..], c)];
                self.add(Size { m, n: c, k }, output, operands, scratch);
            }
        }
    }
}
