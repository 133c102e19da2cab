#!/usr/bin/env bash
# Builds the archive for a processor without an operating system, as target/TARGET/PROFILE/libjostle.a:
#     scripts/freestanding.sh thumbv7em-none-eabihf            # PROFILE is library: for speed
#     scripts/freestanding.sh thumbv7em-none-eabihf firmware   # for flash that is short
# What a program that links it must bring along is listed in ffi/archive/needs.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

target=$1
profile=${2:-library}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
if rustup_has "$target"; then
    build=(cargo rustc)
else
    packages rustc-web cargo-web rust-web-src ||
        not_run "freestanding archive: needs 'rustup target add $target' (Debian: rustc-web cargo-web rust-web-src)"
    build=(debian_cargo rustc -Z build-std=core)
fi
"${build[@]}" --locked --quiet --profile "$profile" -p jostle-archive --no-default-features --crate-type staticlib \
    --target "$target"
