//! Loops over slices: four elements at a time, and the rest one by one.

use super::super::loops::{AdamW, NormedRow};
use super::{sqrt, stay_rolled};

/// The type of one element.
macro_rules! float {
    ($element:ident) => {
        f32
    };
}

/// The type of four.
macro_rules! floats {
    ($element:ident) => {
        [f32; 4]
    };
}

/// Defines a function over `count` elements of some slices, given as pointers: changed slices, written slices, and
/// read slices. The block processes one element of each. It is expanded four times, and once for the rest.
macro_rules! each {
    (
        $(#[$meta:meta])*
        $name:ident($($number:ident: $type:ty),*),
        change: [$($x:ident),*],
        write: [$($y:ident),*],
        read: [$($z:ident),*],
        $body:block
    ) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// All must have `count` elements.
        #[allow(clippy::too_many_arguments)]
        #[inline(never)]
        pub(super) unsafe fn $name(
            $(mut $x: *mut f32,)*
            $(mut $y: *mut f32,)*
            $(mut $z: *const f32,)*
            mut count: usize,
            $($number: $type),*
        ) {
            #[inline(always)]
            fn one($(mut $x: f32,)* $($z: f32,)* $($number: $type),*) -> ($(float!($x),)* $(float!($y),)*) {
                $(let $y: f32;)*
                $body
                ($($x,)* $($y,)*)
            }
            #[inline(always)]
            fn four(
                $(mut $x: [f32; 4],)*
                $($z: [f32; 4],)*
                $($number: $type),*
            ) -> ($(floats!($x),)* $(floats!($y),)*) {
                $(let mut $y = [0.0; 4];)*
                ($($x[0],)* $($y[0],)*) = one($($x[0],)* $($z[0],)* $($number),*);
                ($($x[1],)* $($y[1],)*) = one($($x[1],)* $($z[1],)* $($number),*);
                ($($x[2],)* $($y[2],)*) = one($($x[2],)* $($z[2],)* $($number),*);
                ($($x[3],)* $($y[3],)*) = one($($x[3],)* $($z[3],)* $($number),*);
                ($($x,)* $($y,)*)
            }
            // SAFETY: the caller promises the remaining elements.
            unsafe {
                while count >= 4 {
                    stay_rolled();
                    ($(*$x.cast(),)* $(*$y.cast(),)*) = four($(*$x.cast(),)* $(*$z.cast(),)* $($number),*);
                    $($x = $x.add(4);)*
                    $($y = $y.add(4);)*
                    $($z = $z.add(4);)*
                    count -= 4;
                }
                while count > 0 {
                    stay_rolled();
                    ($(*$x,)* $(*$y,)*) = one($(*$x,)* $(*$z,)* $($number),*);
                    $($x = $x.add(1);)*
                    $($y = $y.add(1);)*
                    $($z = $z.add(1);)*
                    count -= 1;
                }
            }
        }
    };
}

each! {
    /// `x = 0`.
    clear(),
    change: [],
    write: [x],
    read: [],
    { x = 0.0 }
}

each! {
    /// `y = x`.
    copy(),
    change: [],
    write: [y],
    read: [x],
    { y = x }
}

each! {
    /// `x += y`.
    add(),
    change: [x],
    write: [],
    read: [y],
    { x += y }
}

each! {
    /// `x *= y`.
    multiply(),
    change: [x],
    write: [],
    read: [y],
    { x *= y }
}

each! {
    /// `x *= factor`.
    scale(factor: f32),
    change: [x],
    write: [],
    read: [],
    { x *= factor }
}

each! {
    /// `x -= y * factor`.
    subtract_scaled(factor: f32),
    change: [x],
    write: [],
    read: [y],
    { x -= y * factor }
}

each! {
    /// From a softmax's exponentials and the gradient of its weights.
    softmax_gradient(reciprocal: f32, dot: f32, scale: f32),
    change: [e, d_y],
    write: [],
    read: [],
    {
        e *= reciprocal;
        d_y = e * (d_y - dot) * scale;
    }
}

each! {
    /// Parameters and both moments.
    adamw(n: AdamW),
    change: [x, m, v],
    write: [],
    read: [gradient],
    {
        let g = gradient * n.factor;
        m = m * n.beta1 + g * n.fresh1;
        v = v * n.beta2 + g * g * n.fresh2;
        x = x * n.keep - m / (sqrt(v) * n.second_scale + n.epsilon) * n.step_size;
    }
}

each! {
    /// `y = normed(x) * weight + bias`.
    norm(row: NormedRow),
    change: [],
    write: [y],
    read: [x, weight, bias],
    { y = (x - row.mean) * row.rstd * weight + bias }
}

each! {
    /// The gradient of a norm's input.
    norm_input(row: NormedRow, means: [f32; 2]),
    change: [d_x],
    write: [],
    read: [d_y, weight, x],
    {
        let [d_mean, d_scale] = means;
        let normed = (x - row.mean) * row.rstd;
        d_x += (d_y * weight - d_mean - normed * d_scale) * row.rstd;
    }
}

each! {
    /// `d_weight += d_y * normed(x)`.
    norm_weight(row: NormedRow),
    change: [d_weight],
    write: [],
    read: [d_y, x],
    { d_weight += d_y * ((x - row.mean) * row.rstd) }
}

/// Adds `rows` rows, `width` apart, to `count` sums. Four sums at a time stay in registers for all rows.
///
/// # Safety
/// There must be `count` sums, and `count` elements from `x` on in each row.
#[inline(never)]
pub(super) unsafe fn add_columns(
    mut sums: *mut f32,
    mut x: *const f32,
    mut count: usize,
    rows: usize,
    width: usize,
) {
    // SAFETY: the columns that are left.
    unsafe {
        while count >= 4 {
            let (mut four, mut row): ([f32; 4], _) = (*sums.cast(), x);
            for _ in 0..rows {
                stay_rolled();
                let [a, b, c, d]: [f32; 4] = *row.cast();
                four = [four[0] + a, four[1] + b, four[2] + c, four[3] + d];
                row = row.wrapping_add(width);
            }
            *sums.cast() = four;
            (sums, x) = (sums.add(4), x.add(4));
            count -= 4;
        }
        if count > 0 {
            for row in 0..rows {
                stay_rolled();
                add(sums, x.add(row * width), count);
            }
        }
    }
}
