//! Whole training steps of the two smaller configurations: `cargo bench --bench step`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jostle::InstructionSet;
use jostle_benches::session::{CONFIGURATIONS, Session};
use jostle_pool::Pool;

fn step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    for (name, sizes) in &CONFIGURATIONS[..2] {
        group.throughput(Throughput::Elements((sizes[1] * sizes[5]) as u64));
        for threads in [1, 2] {
            let pool = Pool::new(threads).expect("threads");
            for dropout in [0.0, 0.1] {
                let mut session = Session::new(*sizes, dropout, threads).expect("a model");
                let (mut trainer, text) =
                    session.trainer(InstructionSet::detect(), &pool).expect("a trainer");
                let id = BenchmarkId::new(*name, format!("{threads} threads, dropout {dropout}"));
                group.bench_function(id, |bencher| {
                    bencher.iter(|| trainer.step(text).expect("a finite loss"));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
