//! Sums of sixteen elements at a time. A block processes the last lane first, and its instructions all have the same
//! length. So the rest can jump into the block at its number of lanes.

// The beginning of a sum. It returns to t0.
function!(
    "jostle_no_sums",
    "fmv.w.x fa0, zero\n fmv.w.x fa1, zero\n fmv.w.x fa2, zero\n fmv.w.x fa3, zero",
    "fmv.w.x fa4, zero\n fmv.w.x fa5, zero\n fmv.w.x fa6, zero\n fmv.w.x fa7, zero",
    "fmv.w.x ft0, zero\n fmv.w.x ft1, zero\n fmv.w.x ft2, zero\n fmv.w.x ft3, zero",
    "fmv.w.x ft4, zero\n fmv.w.x ft5, zero\n fmv.w.x ft6, zero\n fmv.w.x ft7, zero",
    "jr t0",
);

/// The next level of a sum's tree.
macro_rules! half {
    ($($a:literal $b:literal),*) => {
        concat!($("fadd.s ", $a, ", ", $a, ", ", $b, "\n",)*)
    };
}

// The end of a sum.
function!(
    "jostle_tree",
    half!("fa0" "ft0", "fa1" "ft1", "fa2" "ft2", "fa3" "ft3", "fa4" "ft4", "fa5" "ft5", "fa6" "ft6", "fa7" "ft7"),
    half!("fa0" "fa4", "fa1" "fa5", "fa2" "fa6", "fa3" "fa7"),
    half!("fa0" "fa2", "fa1" "fa3"),
    half!("fa0" "fa1"),
    "ret",
);

/// Defines a function that sums `$count` terms of the slices at `$slices`. The partial sums are in fa0 to fa7 and ft0
/// to ft7, operands in ft8 and ft9, and the function's constants in ft10 and ft11. `$lane` adds one term to one sum,
/// in a fixed number of instructions.
macro_rules! sum {
    ($name:literal, count: $count:literal, slices: [$($slice:literal),*], lane: $lane:ident $instructions:literal) => {
        function!(
            $name,
            "fmv.s ft10, fa0",
            "fmv.s ft11, fa1",
            "call t0, jostle_no_sums",
            concat!("addi t2, ", $count, ", -16"),
            "bltz t2, 2f",
            ".option push\n .option norvc",
            "1:",
            $lane!("ft7" "60"), $lane!("ft6" "56"), $lane!("ft5" "52"), $lane!("ft4" "48"),
            $lane!("ft3" "44"), $lane!("ft2" "40"), $lane!("ft1" "36"), $lane!("ft0" "32"),
            $lane!("fa7" "28"), $lane!("fa6" "24"), $lane!("fa5" "20"), $lane!("fa4" "16"),
            $lane!("fa3" "12"), $lane!("fa2" "8"), $lane!("fa1" "4"), $lane!("fa0" "0"),
            ".option pop",
            $(concat!("addi ", $slice, ", ", $slice, ", 64"),)*
            "addi t2, t2, -16",
            "bgez t2, 1b",
            "2:",
            // The rest, if any.
            "addi t0, t2, 16",
            "blez t0, 3f",
            "lla t0, 1b",
            concat!("li t1, -4 * ", $instructions),
            "mul t1, t1, t2",
            "add t0, t0, t1",
            "jr t0",
            "3:",
            "tail jostle_tree",
        );
    };
}

macro_rules! element {
    ($sum:literal $at:literal) => {
        concat!("flw ft8, ", $at, "(a0)\n fadd.s ", $sum, ", ", $sum, ", ft8")
    };
}

sum!("jostle_sum", count: "a1", slices: ["a0"], lane: element 2);

macro_rules! squared_deviation {
    ($sum:literal $at:literal) => {
        concat!(
            "flw ft8, ",
            $at,
            "(a0)\n fsub.s ft8, ft8, ft10\n",
            "fmul.s ft8, ft8, ft8\n fadd.s ",
            $sum,
            ", ",
            $sum,
            ", ft8"
        )
    };
}

sum!("jostle_squared_deviations", count: "a1", slices: ["a0"], lane: squared_deviation 4);

macro_rules! square {
    ($sum:literal $at:literal) => {
        concat!("flw ft8, ", $at, "(a0)\n fmul.s ft8, ft8, ft8\n fadd.s ", $sum, ", ", $sum, ", ft8")
    };
}

sum!("jostle_squares", count: "a1", slices: ["a0"], lane: square 3);

macro_rules! product {
    ($sum:literal $at:literal) => {
        concat!(
            "flw ft8, ",
            $at,
            "(a0)\n flw ft9, ",
            $at,
            "(a1)\n",
            "fmul.s ft8, ft8, ft9\n fadd.s ",
            $sum,
            ", ",
            $sum,
            ", ft8"
        )
    };
}

sum!("jostle_dot", count: "a2", slices: ["a0", "a1"], lane: product 4);

macro_rules! norm {
    ($sum:literal $at:literal) => {
        concat!(
            "flw ft8, ",
            $at,
            "(a0)\n flw ft9, ",
            $at,
            "(a1)\n fmul.s ft8, ft8, ft9\n",
            "flw ft9, ",
            $at,
            "(a2)\n fsub.s ft9, ft9, ft10\n fmul.s ft9, ft9, ft11\n",
            "fmul.s ft8, ft8, ft9\n fadd.s ",
            $sum,
            ", ",
            $sum,
            ", ft8"
        )
    };
}

sum!("jostle_norm_dot", count: "a3", slices: ["a0", "a1", "a2"], lane: norm 8);
