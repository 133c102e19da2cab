//! Products of three libraries at the shapes of training, one thread each: `cargo bench --bench sgemm`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jostle::InstructionSet;
use jostle_benches::product::{Library, Operands, SHAPES};

fn sgemm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sgemm");
    for shape in SHAPES {
        group.throughput(Throughput::Elements(shape.operations()));
        let mut operands = Operands::new(*shape, InstructionSet::detect());
        for library in Library::ALL {
            group.bench_function(BenchmarkId::new(library.name(), shape.name()), |bencher| {
                bencher.iter(|| operands.compute(library));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, sgemm);
criterion_main!(benches);
