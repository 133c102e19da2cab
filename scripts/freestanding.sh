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
bare_cargo "$target" "freestanding archive"
"${cargo[@]}" rustc --locked --quiet --profile "$profile" -p jostle-archive --no-default-features --crate-type staticlib \
    --target "$target"
