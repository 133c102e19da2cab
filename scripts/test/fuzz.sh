#!/usr/bin/env bash
# Fuzzes with libFuzzer and AddressSanitizer: each target of fuzz/ for some seconds, from its committed corpus.
#     scripts/test/fuzz.sh                     # every target, 20 seconds each, always with the same inputs
#     scripts/test/fuzz.sh checkpoint 1200     # one target, 20 minutes
#     scripts/test/fuzz.sh all 1200
# A finding stays in target/fuzz/TARGET-*: give the file's path instead of the seconds to run it alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

targets=(checkpoint functions plan slots tokenizer training)
[[ ${1:-all} = all ]] || targets=("$1")
what=${2:-20}
# The short runs of every test make the same inputs each time, so that they fail only after a change.
repeatable=()
[ $# -gt 1 ] || repeatable=(-seed=1)
[ "$(uname -m)" = x86_64 ] || not_run "fuzz: needs an x86-64 processor"
programs c++ || not_run "fuzz: needs a C++ compiler, for libFuzzer"

# As cargo-fuzz does. AddressSanitizer checks by calls, because the kernels take many minutes to compile with checks inline.
llvm="-sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters -sanitizer-coverage-pc-table"
llvm+=" -asan-instrumentation-with-call-threshold=0"
host=$(sanitized_host)
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Z sanitizer=address -C passes=sancov-module --cfg fuzzing"
for argument in $llvm; do RUSTFLAGS+=" -C llvm-args=$argument"; done
selection=()
for target in "${targets[@]}"; do selection+=(--bin "$target"); done
cargo build --locked --release --manifest-path fuzz/Cargo.toml --target "$host" "${selection[@]}"

work=$CARGO_TARGET_DIR/fuzz
for target in "${targets[@]}"; do
    [ $# -gt 1 ] || rm -rf "${work:?}/$target"
    mkdir -p "$work/$target"
    program=$CARGO_TARGET_DIR/$host/release/$target
    if [ -e "$what" ]; then
        "$program" "$what"
    else
        # Inputs that reach new code go into the first folder.
        "$program" "$work/$target" "fuzz/corpus/$target" "${repeatable[@]}" -max_total_time="$what" -timeout=20 \
            -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 -artifact_prefix="$work/$target-"
    fi
done
