#!/usr/bin/env bash
# Builds the C library for a processor without an operating system, as target/TARGET/PROFILE/libjostle.a:
#     scripts/freestanding.sh thumbv7em-none-eabihf            # PROFILE is library: for speed
#     scripts/freestanding.sh thumbv7em-none-eabihf firmware   # for small flash
#     scripts/freestanding.sh thumbv7em-none-eabihf library lora,head-rows    # with adapters and chunked heads
#
# ffi/archive/needs.txt lists the functions that a program must provide to link it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

target=$1
profile=${2:-library}
features=${3:-}
bare_cargo "$target" "freestanding archive"
"${cargo[@]}" rustc --locked --quiet --profile "$profile" -p jostle-archive --no-default-features --features "$features" \
    --crate-type staticlib --target "$target"
