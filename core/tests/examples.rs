//! Runs the examples: each of them checks what it shows.

#[path = "../examples/characters.rs"]
mod characters;
#[path = "../examples/freeze.rs"]
mod freeze;
#[path = "../examples/generate.rs"]
mod generate;
#[path = "../examples/own_model.rs"]
mod own_model;
#[path = "../examples/static_memory.rs"]
mod static_memory;

#[test]
fn characters_are_learnt() {
    characters::main().unwrap();
}

#[test]
fn static_memory_is_enough() {
    static_memory::main().unwrap();
}

#[test]
fn the_cache_has_the_bits_of_a_full_pass() {
    generate::main().unwrap();
}

#[test]
fn single_operations_train() {
    own_model::main().unwrap();
}

#[test]
fn frozen_tensors_stay() {
    freeze::main().unwrap();
}
