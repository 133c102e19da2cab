//! The layout that compiled programs contain. Structs that the library writes keep their size within a version of the
//! interface (`header.h`). Structs with a `struct_size` keep their fields and only grow at the end. `FIRST_SIZE` and
//! `older_header.c` check that. Who changes a number here changes the interface.
#![cfg(target_pointer_width = "64")]

use jostle_ffi::checkpoint::{jostle_metadata, jostle_progress};
use jostle_ffi::generator::jostle_generator;
use jostle_ffi::model::{jostle_batch, jostle_dropout_key, jostle_loss};
use jostle_ffi::ops::matmul::jostle_matrix;
use jostle_ffi::plan::{jostle_plan, jostle_tensor};
use jostle_ffi::slots::jostle_slot;
use jostle_ffi::status::jostle_error;
use jostle_ffi::trainer::{jostle_report, jostle_trainer};

#[test]
fn structs_without_a_struct_size_have_their_sizes() {
    assert_eq!(size_of::<jostle_batch>(), 48);
    assert_eq!(size_of::<jostle_dropout_key>(), 24);
    assert_eq!(size_of::<jostle_error>(), 128);
    assert_eq!(size_of::<jostle_generator>(), 448);
    assert_eq!(size_of::<jostle_loss>(), 16);
    assert_eq!(size_of::<jostle_matrix>(), 32);
    assert_eq!(size_of::<jostle_metadata>(), 16);
    assert_eq!(size_of::<jostle_plan>(), 440);
    assert_eq!(size_of::<jostle_progress>(), 16);
    assert_eq!(size_of::<jostle_report>(), 24);
    assert_eq!(size_of::<jostle_slot>(), 32);
    assert_eq!(size_of::<jostle_tensor>(), 96);
    assert_eq!(size_of::<jostle_trainer>(), 704);
}
