//! Loops over whole slices with any [`Vector`]: element by element, and sums. The last vector is padded with zeros.

use super::{LANES, Lanes, Loop, Reduction, Vector, add_columns, vectorized};
use crate::fault;

/// A sum of sixteen partial sums, each over every sixteenth element, and the fixed tree over them.
pub(crate) struct Sum<V>([V; LANES]);

impl<V: Vector> Sum<V> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Sum(V::no_sums())
    }

    /// Adds the vector with this number.
    #[inline(always)]
    pub(crate) fn add(&mut self, number: usize, x: V) {
        let partial = &mut self.0[number % (LANES / V::LANES)];
        *partial = partial.add(x);
    }

    #[inline(always)]
    pub(crate) fn total(self) -> f32 {
        V::total(self.0)
    }
}

/// The tree of [`Vector::total`], over vectors and lane by lane.
#[inline(always)]
pub(crate) fn tree<V: Vector>([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [V; LANES]) -> V {
    let even = a.add(i).add(e.add(m)).add(c.add(k).add(g.add(o)));
    let odd = b.add(j).add(f.add(n)).add(d.add(l).add(h.add(p)));
    even.add(odd)
}

/// `out[i] = f(i / LANES, in[i]...)` in vectors. The last one is padded with zeros.
#[inline(always)]
pub(crate) fn map<V: Vector, const N: usize>(
    out: &mut [f32],
    inputs: [&[f32]; N],
    mut f: impl FnMut(usize, [V; N]) -> V,
) {
    update_all(
        [out],
        inputs,
        #[inline(always)]
        |i, _, inputs| [f(i, inputs)],
    );
}

/// `x[i] = f(i / LANES, x[i], in[i]...)` in vectors, in place.
#[inline(always)]
pub(crate) fn update<V: Vector, const N: usize>(
    x: &mut [f32],
    inputs: [&[f32]; N],
    mut f: impl FnMut(usize, V, [V; N]) -> V,
) {
    update_all(
        [x],
        inputs,
        #[inline(always)]
        |i, [x], inputs| [f(i, x, inputs)],
    );
}

/// As [`update`], for several slices at once.
#[inline(always)]
pub(crate) fn update_all<V: Vector, const M: usize, const N: usize>(
    mut xs: [&mut [f32]; M],
    inputs: [&[f32]; N],
    mut f: impl FnMut(usize, [V; M], [V; N]) -> [V; M],
) {
    let length = xs.first().map_or(0, |x| x.len());
    if xs.iter().any(|x| x.len() != length) || inputs.iter().any(|input| input.len() != length) {
        fault::report(&"an elementwise operation");
        return;
    }
    let full = length / V::LANES;
    let pointers = xs.each_mut().map(|x| x.as_mut_ptr());
    let (old, inputs_at) = (pointers.map(<*mut f32>::cast_const), inputs.map(<[f32]>::as_ptr));
    let mut i = 0;
    while i < full {
        V::stay_rolled();
        // SAFETY: all slices contain these vectors.
        unsafe {
            // Two vectors side by side, so that the chain of operations of one fills the gaps of the other: 1 % of a
            // `tiny` step.
            if V::LANES > 1 && i + 1 < full {
                let (old_a, old_b) = (load_each(old, i), load_each(old, i + 1));
                let (in_a, in_b) = (load_each(inputs_at, i), load_each(inputs_at, i + 1));
                let (a, b) = (f(i, old_a, in_a), f(i + 1, old_b, in_b));
                store_each(a, pointers, i);
                store_each(b, pointers, i + 1);
                i += 2;
            } else {
                store_each(f(i, load_each(old, i), load_each(inputs_at, i)), pointers, i);
                i += 1;
            }
        }
    }
    if !length.is_multiple_of(V::LANES) {
        let first = full * V::LANES;
        let (mut old, mut values) = ([V::zero(); M], [V::zero(); N]);
        for (old, x) in old.iter_mut().zip(&xs) {
            *old = V::load_partial(x.get(first..).unwrap_or_default());
        }
        for (value, input) in values.iter_mut().zip(inputs) {
            *value = V::load_partial(input.get(first..).unwrap_or_default());
        }
        for (new, x) in f(full, old, values).into_iter().zip(xs) {
            new.store_partial(x.get_mut(first..).unwrap_or_default());
        }
    }
}

/// The vectors with number `i`.
///
/// # Safety
/// All must be readable.
#[inline(always)]
pub(super) unsafe fn load_each<V: Vector, const N: usize>(from: [*const f32; N], i: usize) -> [V; N] {
    let mut vectors = [V::zero(); N];
    for (vector, from) in vectors.iter_mut().zip(from) {
        // SAFETY: the caller's promise.
        *vector = V::load(unsafe { &*from.cast::<V::Array>().add(i) });
    }
    vectors
}

/// Writes the vectors with number `i`.
///
/// # Safety
/// All must be writable.
#[inline(always)]
unsafe fn store_each<V: Vector, const M: usize>(vectors: [V; M], to: [*mut f32; M], i: usize) {
    for (vector, to) in vectors.into_iter().zip(to) {
        // SAFETY: the caller's promise.
        vector.store(unsafe { &mut *to.cast::<V::Array>().add(i) });
    }
}

/// The sum of `f(in[i]...)`. If the last vector is not full, its missing lanes count as zero, even if `f` of zeros is
/// not zero.
#[inline(always)]
pub(crate) fn sum<V: Vector, const N: usize>(inputs: [&[f32]; N], mut f: impl FnMut([V; N]) -> V) -> f32 {
    let length = inputs.first().map_or(0, |input| input.len());
    if inputs.iter().any(|input| input.len() != length) {
        fault::report(&"a sum over slices");
        return 0.0;
    }
    let full = length / V::LANES;
    let mut sum = Sum::new();
    for i in 0..full {
        V::stay_rolled();
        // SAFETY: all slices contain this vector.
        sum.add(i, f(unsafe { load_each(inputs.map(<[f32]>::as_ptr), i) }));
    }
    let rest = length % V::LANES;
    if rest > 0 {
        let mut values = [V::zero(); N];
        for (value, input) in values.iter_mut().zip(inputs) {
            *value = V::load_partial(input.get(full * V::LANES..).unwrap_or_default());
        }
        sum.add(full, V::select(V::first_lanes(rest), f(values), V::zero()));
    }
    sum.total()
}

/// `x += y`, element by element.
#[inline(always)]
pub(crate) fn add<V: Vector>(x: &mut [f32], y: &[f32]) {
    if !V::run(Loop::Add { x: &mut *x, y }) {
        update(
            x,
            [y],
            #[inline(always)]
            |_, x: V, [y]| x.add(y),
        );
    }
}

/// `y = a + b`, element by element.
#[inline(always)]
pub(crate) fn sum_of_two<V: Vector>(y: &mut [f32], a: &[f32], b: &[f32]) {
    if V::run(Loop::Copy { y: &mut *y, x: a }) {
        return add::<V>(y, b);
    }
    map(
        y,
        [a, b],
        #[inline(always)]
        |_, [a, b]: [V; 2]| a.add(b),
    );
}

/// Adds the columns of x from `column` on to the sums, row after row. Rows have `width` columns.
#[inline(always)]
pub(crate) fn add_rows<V: Vector>(sums: &mut [f32], column: usize, width: usize, x: &[f32]) {
    if !V::run(Loop::AddColumns { sums: &mut *sums, column, width, x }) {
        add_columns(
            sums,
            column,
            width,
            [x],
            #[inline(always)]
            |_, [x]: [V; 1]| x,
        );
    }
}

/// The sum of all elements.
#[inline(always)]
pub(crate) fn total<V: Vector>(x: &[f32]) -> f32 {
    if let Some(total) = V::reduce(Reduction::Sum { x }) {
        return total;
    }
    sum(
        [x],
        #[inline(always)]
        |[x]: [V; 1]| x,
    )
}

/// The sum of the products of elements.
#[inline(always)]
pub(crate) fn dot<V: Vector>(x: &[f32], y: &[f32]) -> f32 {
    if let Some(total) = V::reduce(Reduction::Dot { x, y }) {
        return total;
    }
    sum(
        [x, y],
        #[inline(always)]
        |[x, y]: [V; 2]| x.mul(y),
    )
}

/// The greatest element, or minus infinity without elements. The sign of a zero, and whether NaN wins, depend on the
/// vectors. That does not show in a softmax: its exponentials are the same, or their sum is NaN.
#[inline(always)]
pub(crate) fn maximum<V: Vector>(x: &[f32]) -> f32 {
    let (vectors, tail) = V::Array::cut(x);
    let mut most = V::splat(f32::NEG_INFINITY);
    for vector in vectors {
        V::stay_rolled();
        most = V::load(vector).max(most);
    }
    tail.iter().fold(most.reduce_max(), |a, b| if *b > a { *b } else { a })
}

vectorized! {
    /// `x *= y`, element by element.
    pub(crate) fn multiply<V>(x: &mut [f32], y: &[f32]) {
        if !V::run(Loop::Multiply { x: &mut *x, y }) {
            update(x, [y], |_, x: V, [y]| x.mul(y));
        }
    }
}

vectorized! {
    /// `x *= factor`, element by element.
    pub(crate) fn scale<V>(x: &mut [f32], factor: f32) {
        update(x, [], |_, x: V, []| x.mul(V::splat(factor)));
    }
}

vectorized! {
    /// `x = 0`.
    pub(crate) fn clear<V>(x: &mut [f32]) {
        if !V::run(Loop::Clear { x: &mut *x }) {
            x.fill(0.0);
        }
    }
}
