#!/usr/bin/env bash
# Runs tests of the core and its pool under AddressSanitizer, ThreadSanitizer and Miri.
#     scripts/test/sanitizers.sh                    # the first; with JOSTLE_SOAK=1, all three and more tests
#     scripts/test/sanitizers.sh address --lib      # one, with arguments for cargo test -p jostle
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

host=$(sanitized_host)
export JOSTLE_INSTRUCTION_SETS=${JOSTLE_INSTRUCTION_SETS-$(instruction_sets)}

# Reads and writes outside of buffers, in portable code and in vectors. It checks by calls, because the kernels take many
# minutes to compile with checks inline.
address() {
    if [ $# -eq 0 ]; then
        set -- --lib --test bad_input --test ops
        [ -z "${JOSTLE_SOAK:-}" ] || set -- "$@" --test checkpoint --test matmul --test slots
    fi
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Z sanitizer=address -C llvm-args=-asan-instrumentation-with-call-threshold=0" \
        cargo test --locked -p jostle --target "$host" "$@"
}

# Data races in the pool, in the relay, and in passes by several threads. The standard library is built for it too: otherwise
# it reports hundreds of races, all of them false.
threads() {
    local build="-Z build-std=std,panic_unwind,test" flags="-Z sanitizer=thread"
    export CARGO_TARGET_DIR=$CARGO_TARGET_DIR/threads RUSTC_BOOTSTRAP=1
    local cargo=(cargo)
    if ! rustup_component rust-src; then
        packages rustc-web cargo-web rust-web-src clang-19 libclang-rt-19-dev ||
            not_run "threads: needs 'rustup component add rust-src' (Debian: rustc-web cargo-web rust-web-src clang-19)"
        cargo=(debian_cargo)
        flags+=" -Z external-clangrt -C linker=clang-19 -C link-arg=-fsanitize=thread"
    fi
    [ $# -gt 0 ] || set -- -p jostle-pool --test pool
    # shellcheck disable=SC2086
    RUSTFLAGS=$flags "${cargo[@]}" test --locked $build --target "$host" "$@"
    # shellcheck disable=SC2086
    RUSTFLAGS=$flags "${cargo[@]}" test --locked $build --target "$host" -p jostle --lib parallel
}

# Undefined behaviour by the rules of the language, in portable code. The relay spins for too long there; loom has it.
miri() {
    rustup_component --toolchain nightly miri rust-src ||
        not_run "miri: needs 'rustup component add --toolchain nightly miri rust-src'"
    export CARGO_TARGET_DIR=$CARGO_TARGET_DIR/miri JOSTLE_INSTRUCTION_SETS=portable
    # Without isolation, tests may read files.
    export MIRIFLAGS=-Zmiri-disable-isolation
    if [ $# -gt 0 ]; then
        cargo +nightly miri test --locked "$@"
        return
    fi
    cargo +nightly miri test --locked -p jostle --lib -- parallel::tests checkpoint::json checkpoint::crc tokenizer::
    # Training, a checkpoint, and training from it.
    cargo +nightly miri test --locked -p jostle --test machines
}

if [ $# -gt 0 ]; then
    "$@"
else
    step address
    # ThreadSanitizer takes a quarter of an hour to compile.
    if [ -n "${JOSTLE_SOAK:-}" ]; then
        step threads
        step miri
    fi
fi
