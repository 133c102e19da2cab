//! One small vocabulary of vector operations ([`Vector`]), one file per instruction set, and the one place
//! that chooses between them. Knows nothing of what is computed.
//!
//! A vector is sixteen f32 lanes, whatever the registers' width, or one lane where there are no vectors. Sums always
//! go through sixteen partial sums ([`Sum`]), so that they have the same order on every processor. Add, multiply,
//! divide and square root are IEEE and never contracted; only [`WideVector::mul_add`] is fused.

use crate::error::Error;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod columns;
mod loops;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
/// What processors without vectors compute products with.
#[cfg_attr(not(any(fused = "riscv", fused = "thumb")), path = "emulated.rs")]
#[cfg_attr(fused = "riscv", path = "riscv.rs")]
#[cfg_attr(fused = "thumb", path = "thumb/mod.rs")]
pub(crate) mod scalar;
#[cfg(test)]
mod tests;
pub(crate) mod tile;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use columns::add_columns;
pub(crate) use loops::{AdamW, Loop, Reduction, Row};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;

/// Lanes of a [`WideVector`], and partial sums of every [`Sum`].
pub(crate) const LANES: usize = 16;

/// A vector's lanes in memory.
pub(crate) trait Lanes: Copy + AsMut<[f32]> {
    const COUNT: usize;
    const ZERO: Self;
    /// The whole vectors of a slice, and the rest.
    fn cut(x: &[f32]) -> (&[Self], &[f32]);
    fn cut_mut(x: &mut [f32]) -> (&mut [Self], &mut [f32]);
}

impl<const N: usize> Lanes for [f32; N] {
    const COUNT: usize = N;
    const ZERO: Self = [0.0; N];

    #[inline(always)]
    fn cut(x: &[f32]) -> (&[Self], &[f32]) {
        x.as_chunks()
    }
    #[inline(always)]
    fn cut_mut(x: &mut [f32]) -> (&mut [Self], &mut [f32]) {
        x.as_chunks_mut()
    }
}

/// f32 lanes: sixteen, or one.
pub(crate) trait Vector: Copy {
    /// The lanes in memory.
    type Array: Lanes;
    /// As many u32 lanes.
    type Bits: Copy;
    /// As many truth values.
    type Mask: Copy;
    /// How many lanes.
    const LANES: usize = Self::Array::COUNT;

    fn splat(value: f32) -> Self;
    fn load(from: &Self::Array) -> Self;
    fn store(self, to: &mut Self::Array);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    /// `if self > other { self } else { other }`, lane by lane.
    fn max(self, other: Self) -> Self;
    fn lt(self, other: Self) -> Self::Mask;
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// Partial sums of nothing.
    #[inline(always)]
    fn no_sums() -> [Self; LANES] {
        [Self::zero(); LANES]
    }

    /// The fixed tree of every sum over the partial ones, of which there are sixteen lanes in the first vectors:
    /// `j` and `j + 8`, then `j + 4`, `j + 2`, `j + 1`.
    fn total(partial: [Self; LANES]) -> f32;
    /// The greatest lane.
    fn reduce_max(self) -> f32;

    /// Stands in loops that are to stay as they are written, where copies of their bodies take more flash than they
    /// save time.
    #[inline(always)]
    fn stay_rolled() {}

    /// Runs a loop of the instruction set's own; whether it has it.
    #[inline(always)]
    fn run(_: Loop<'_>) -> bool {
        false
    }

    /// The sum by a loop of the instruction set's own, where it has it.
    #[inline(always)]
    fn reduce(_: Reduction<'_>) -> Option<f32> {
        None
    }

    fn to_bits(self) -> Self::Bits;
    fn from_bits(bits: Self::Bits) -> Self;
    fn splat_bits(value: u32) -> Self::Bits;
    /// 0, 1, ..., `LANES - 1`.
    fn lane_numbers() -> Self::Bits;
    fn add_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn sub_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn mul_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn and_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn xor_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn shift_left<const N: i32>(a: Self::Bits) -> Self::Bits;
    fn shift_right<const N: i32>(a: Self::Bits) -> Self::Bits;
    /// Signed less-than.
    fn lt_bits(a: Self::Bits, b: Self::Bits) -> Self::Mask;
    /// The lanes as signed integers, converted; exact below 2^24.
    fn from_signed(a: Self::Bits) -> Self;

    /// The lanes before lane `count`.
    #[inline(always)]
    fn first_lanes(count: usize) -> Self::Mask {
        Self::lt_bits(Self::lane_numbers(), Self::splat_bits(count as u32))
    }

    /// The first lanes from a slice of fewer, the rest zero.
    #[inline(always)]
    fn load_partial(from: &[f32]) -> Self {
        let mut lanes = Self::Array::ZERO;
        for (lane, value) in lanes.as_mut().iter_mut().zip(from) {
            *lane = *value;
        }
        Self::load(&lanes)
    }

    /// The first lanes into a slice of fewer.
    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        let mut lanes = Self::Array::ZERO;
        self.store(&mut lanes);
        for (value, lane) in to.iter_mut().zip(lanes.as_mut()) {
            *value = *lane;
        }
    }

    /// The first lane.
    #[inline(always)]
    fn first(self) -> f32 {
        let mut lane = [0.0];
        self.store_partial(&mut lane);
        lane[0]
    }

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self::from_bits(Self::and_bits(self.to_bits(), Self::splat_bits(0x7fff_ffff)))
    }
}

/// Sixteen f32 lanes, with what products need beside.
pub(crate) trait WideVector: Vector<Array = [f32; LANES]> {
    /// Rows of a product's register tile: as many accumulators as the registers hold beside the operands.
    const TILE_ROWS: usize;
    /// Its panels of sixteen columns: two where one register holds sixteen lanes, so that an element of A serves two
    /// multiply-adds, which loads would otherwise hold up.
    const TILE_PANELS: usize;

    /// `self * factor + summand` with one rounding.
    fn mul_add(self, factor: Self, summand: Self) -> Self;

    /// `to[16 * p + j] = from[j * stride + p]` for `j` in `0..16` and `p` in `0..count`.
    ///
    /// # Safety
    /// `to` must be writable for `16 * count` elements and `from` readable at every index named.
    #[inline(always)]
    unsafe fn transpose(to: *mut f32, from: *const f32, stride: usize, count: usize) {
        for p in 0..count {
            for j in 0..LANES {
                // SAFETY: the caller vouches for both indices.
                unsafe { *to.add(LANES * p + j) = *from.add(j * stride + p) };
            }
        }
    }

    /// The chains `sum[j] + a[0] * b[j, 0] + a[1] * b[j, 1] + ...` of `count` multiply-adds, a multiple of
    /// sixteen, where element `p` of A is `a.0[p * a.1]` and element `[j, p]` of B is `b.0[j * b.1 + p]`.
    ///
    /// # Safety
    /// Both must be readable at every index named.
    #[inline(always)]
    unsafe fn mul_add_transposed(
        a: (*const f32, usize),
        b: (*const f32, usize),
        count: usize,
        mut sum: Self,
    ) -> Self {
        let mut block = [[0.0; LANES]; LANES];
        for first in (0..count).step_by(LANES) {
            // SAFETY: passed on from the caller.
            unsafe {
                Self::transpose(block.as_mut_ptr().cast(), b.0.add(first), b.1, LANES);
                for (p, row) in (first..).zip(&block) {
                    sum = Self::splat(*a.0.add(p * a.1)).mul_add(Self::load(row), sum);
                }
            }
        }
        sum
    }

    /// Asks for the cache line of an address, which need not be readable. Changes no result.
    #[inline(always)]
    fn prefetch(_: *const f32) {}
}

/// A sum in sixteen partial sums, of which each takes every sixteenth element, and the fixed tree over them.
pub(crate) struct Sum<V>([V; LANES]);

impl<V: Vector> Sum<V> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Sum(V::no_sums())
    }

    /// Adds the vector of this number.
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

/// The tree of [`Vector::total`] over vectors, lane by lane.
#[inline(always)]
pub(crate) fn tree<V: Vector>([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [V; LANES]) -> V {
    let even = a.add(i).add(e.add(m)).add(c.add(k).add(g.add(o)));
    let odd = b.add(j).add(f.add(n)).add(d.add(l).add(h.add(p)));
    even.add(odd)
}

/// `out[i] = f(i / LANES, in[i]...)` in vectors, the rest of the last one padded with zeros.
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

/// As [`update`], of several slices at once.
#[inline(always)]
pub(crate) fn update_all<V: Vector, const M: usize, const N: usize>(
    mut xs: [&mut [f32]; M],
    inputs: [&[f32]; N],
    mut f: impl FnMut(usize, [V; M], [V; N]) -> [V; M],
) {
    let length = xs.first().map_or(0, |x| x.len());
    if xs.iter().any(|x| x.len() != length) || inputs.iter().any(|input| input.len() != length) {
        debug_assert!(false, "slices of different lengths");
        return;
    }
    let full = length / V::LANES;
    let pointers = xs.each_mut().map(|x| x.as_mut_ptr());
    for i in 0..full {
        V::stay_rolled();
        // SAFETY: all slices hold this vector.
        unsafe {
            let old = load_each(pointers.map(<*mut f32>::cast_const), i);
            let new = f(i, old, load_each(inputs.map(<[f32]>::as_ptr), i));
            for (new, x) in new.into_iter().zip(pointers) {
                new.store(&mut *x.cast::<V::Array>().add(i));
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

/// The vectors of number `i`.
///
/// # Safety
/// All must be readable.
#[inline(always)]
unsafe fn load_each<V: Vector, const N: usize>(from: [*const f32; N], i: usize) -> [V; N] {
    let mut vectors = [V::zero(); N];
    for (vector, from) in vectors.iter_mut().zip(from) {
        // SAFETY: the caller vouches for it.
        *vector = V::load(unsafe { &*from.cast::<V::Array>().add(i) });
    }
    vectors
}

/// The sum of `f(in[i]...)`. Where a last vector is not full, lanes beyond it count as zero, whatever `f` makes of
/// zeros.
#[inline(always)]
pub(crate) fn sum<V: Vector, const N: usize>(inputs: [&[f32]; N], mut f: impl FnMut([V; N]) -> V) -> f32 {
    let length = inputs.first().map_or(0, |input| input.len());
    if inputs.iter().any(|input| input.len() != length) {
        debug_assert!(false, "slices of different lengths");
        return 0.0;
    }
    let full = length / V::LANES;
    let mut sum = Sum::new();
    for i in 0..full {
        V::stay_rolled();
        // SAFETY: all slices hold this vector.
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

/// Adds to the sums, row after row, the columns of x that begin with `column`, of rows of `width`.
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

/// The greatest element; minus infinity for none. Which of two zeros it is, and whether it is NaN where one element
/// is, depends on the vectors, and shows in no softmax: its exponentials are the same, or their sum is NaN.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// A set of vector instructions that this processor has. All give the same bits; they differ in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionSet(Kind);

impl InstructionSet {
    /// No vector instructions: there on every processor, and the reference for the others.
    pub const PORTABLE: InstructionSet = InstructionSet(Kind::Portable);

    /// Every name that [`InstructionSet::named`] knows on some processor.
    pub const NAMES: [&'static str; 4] = ["portable", "neon", "avx2", "avx512"];

    /// The fastest that this processor has.
    pub fn detect() -> InstructionSet {
        #[cfg(target_arch = "x86_64")]
        return InstructionSet(x86_64_detect());
        #[cfg(target_arch = "aarch64")]
        return InstructionSet(Kind::Neon);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return Self::PORTABLE;
    }

    /// The set of that name, for tests and measurements; [`Error::InstructionSet`] where it is absent.
    pub fn named(name: &str) -> Result<InstructionSet, Error> {
        match name {
            "portable" => Ok(Self::PORTABLE),
            #[cfg(target_arch = "x86_64")]
            "avx2" if avx2::is_available() => Ok(InstructionSet(Kind::Avx2)),
            #[cfg(target_arch = "x86_64")]
            "avx512" if avx512::is_available() => Ok(InstructionSet(Kind::Avx512)),
            #[cfg(target_arch = "aarch64")]
            "neon" => Ok(InstructionSet(Kind::Neon)),
            _ => Err(Error::InstructionSet),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    /// Whether it has vectors: [`Vector`]s of sixteen lanes.
    pub(crate) fn has_vectors(self) -> bool {
        self.0 != Kind::Portable
    }

    pub(crate) const fn kind(self) -> Kind {
        self.0
    }
}

/// Asks the processor once: under a hypervisor, asking takes many microseconds.
#[cfg(target_arch = "x86_64")]
fn x86_64_detect() -> Kind {
    use core::sync::atomic::{AtomicU8, Ordering};

    /// One more than the number of sets found, each of which includes the one before; 0 before asking.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    if KNOWN.load(Ordering::Relaxed) == 0 {
        let found = u8::from(avx2::is_available()) + u8::from(avx512::is_available());
        KNOWN.store(1 + found, Ordering::Relaxed);
    }
    match KNOWN.load(Ordering::Relaxed) {
        3 => Kind::Avx512,
        2 => Kind::Avx2,
        _ => Kind::Portable,
    }
}

/// Writes a function once, for every instruction set: the body is compiled for each with its vectors as
/// `V`, and the function takes the [`InstructionSet`] to use as its first argument. With `unsafe fn`, the
/// caller's promises hold for the body as well.
///
/// A second body, `portable { ... }`, is for processors without vectors; the first may then use [`WideVector`].
///
/// The body stands in functions that have the instructions enabled, so that closures in it have them too.
/// What it calls is `#[inline(always)]` and keeps vector operations out of closures of its own: those are
/// compiled without the instructions, and each operation in them can become a call.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis unsafe fn $($rest:tt)*) => {
        $crate::simd::vectorized! { @ [$(#[$meta])* $vis] [unsafe] $($rest)* }
    };
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $crate::simd::vectorized! { @ [$(#[$meta])* $vis] [] $($rest)* }
    };
    (
        @ [$($front:tt)*] [$($unsafe:tt)?]
        $name:ident<$V:ident>($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $crate::simd::vectorized! {
            @ [$($front)*] [$($unsafe)?] $name<$V>($($arg: $type),*) $(-> $ret)? $body
            portable {
                #[allow(dead_code)]
                type $V = $crate::simd::Portable;
                $body
            }
        }
    };
    (
        @ [$($front:tt)*] [$($unsafe:tt)?]
        $name:ident<$V:ident>($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block portable $portable:block
    ) => {
        #[allow(clippy::too_many_arguments)]
        $($front)* $($unsafe)? fn $name(simd: $crate::simd::InstructionSet, $($arg: $type),*) $(-> $ret)? {
            #[allow(unused_imports)]
            use $crate::simd::{Kind, Vector, WideVector};

            #[allow(unused_variables, reason = "a second body may need less")]
            #[inline(always)]
            $($unsafe)? fn portable($($arg: $type),*) $(-> $ret)? $portable

            #[cfg(target_arch = "aarch64")]
            #[inline(always)]
            $($unsafe)? fn neon($($arg: $type),*) $(-> $ret)? {
                #[allow(dead_code)]
                type $V = $crate::simd::Neon;
                $body
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            $($unsafe)? fn avx2($($arg: $type),*) $(-> $ret)? {
                #[allow(dead_code)]
                type $V = $crate::simd::Avx2;
                $body
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
            $($unsafe)? fn avx512($($arg: $type),*) $(-> $ret)? {
                #[allow(dead_code)]
                type $V = $crate::simd::Avx512;
                $body
            }

            #[allow(unsafe_code, unused_unsafe)]
            // SAFETY: an `InstructionSet` is only made where the processor has it; what an unsafe function
            // asks for, its caller has promised.
            unsafe {
                match simd.kind() {
                    Kind::Portable => portable($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Kind::Neon => neon($($arg),*),
                }
            }
        }
    };
}
pub(crate) use vectorized;

vectorized! {
    /// `x *= y`, element by element.
    pub(crate) fn multiply<V>(x: &mut [f32], y: &[f32]) {
        if !V::run(Loop::Multiply { x: &mut *x, y }) {
            update(x, [y], |_, x: V, [y]| x.mul(y));
        }
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
