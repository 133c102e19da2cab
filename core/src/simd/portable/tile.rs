//! What a product is made of on machines without vectors: tiles of four rows by four columns, sixteen chains of
//! multiply-adds in as many registers.

use super::processor::Code;

/// Rows and columns of a tile.
pub(crate) const SIDE: usize = 4;

/// Steps of the inner index for which there is room where A is packed.
pub(crate) const PACKED: usize = 48;

/// Which way an operand of a tile is contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Along the inner index: four lines, each with its own pointer.
    Along,
    /// Across it: four elements at each step, `step` apart.
    Across,
}

/// Strips of tiles, one below the other. A strip is tiles side by side: four rows of
/// `c[i, j] = start[i, j] + a[i, 0] * b[0, j] + ...`, four columns for each tile. Distances are counted in elements. The
/// order of the fields is part of the kernels.
#[repr(C)]
pub(crate) struct Strips {
    /// Where four rows of A are packed, if they are.
    pub a: *mut f32,
    /// From one of them to the next, or from one of their steps to the next where they lie across.
    pub distance: usize,
    /// The first one's first step.
    pub rows: *const f32,
    pub k: usize,
    /// From behind the last step of one tile's B to the next tile's; it wraps around, as most go back.
    pub b_next: usize,
    /// At least one.
    pub tiles: usize,
    /// C, or else the same for all rows: four for each tile, or a tile's zeros for all tiles.
    pub start: *const f32,
    pub c: *mut f32,
    /// The first elements of four columns; where they lie across, only the first one's is used.
    pub b: [*const f32; SIDE],
    /// From one step of B to the next, where they lie across.
    pub b_step: usize,
    pub start_row: usize,
    /// From one tile's starts to the next's.
    pub start_next: usize,
    pub c_row: usize,
    pub code: Code,
    pub next: Next,
    /// How many strips; at least one.
    pub count: usize,
}

/// What is added from one strip to the next; it may wrap around.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Next {
    pub rows: usize,
    pub k: usize,
    pub b_next: usize,
    pub tiles: usize,
    pub start: usize,
    pub c: usize,
    pub b: usize,
}
