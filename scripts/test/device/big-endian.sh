#!/usr/bin/env bash
# Trains the firmware's model on an emulated big-endian processor. The program must print the same checksum as a device.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh

packages gcc-powerpc64-linux-gnu libc6-dev-ppc64-cross qemu-user || programs powerpc64-linux-gnu-gcc qemu-ppc64 ||
    not_run "firmware on PowerPC: needs powerpc64-linux-gnu-gcc and qemu-ppc64" \
        "(Debian: gcc-powerpc64-linux-gnu libc6-dev-ppc64-cross qemu-user)"

work=$CARGO_TARGET_DIR/big-endian
firmware=ffi/examples/firmware
rm -rf "$work"
mkdir -p "$work"
# Bits do not depend on the optimization, and this compiles faster.
export CARGO_PROFILE_LIBRARY_OPT_LEVEL=1
build_archive powerpc64-unknown-linux-gnu
built_in "$work"
cargo run --locked --quiet --release -p jostle-plan -- --vocab 27 --context 16 --layers 1 --heads 4 --width 16 \
    --dropout 0.1 --device -o "$work/model.h"
powerpc64-linux-gnu-gcc -std=c11 -static -O1 -Wall -Wextra -Wpedantic -Werror -DSTEPS=10 -Iinclude -I"$work" \
    -Wa,-I"$work" $firmware/{train,flash,hosted}.c $firmware/built_in.S "$archive" -lm -o "$work/train"
(cd "$work" && qemu-ppc64 ./train) >"$work/printed.txt"
grep checksum "$work/printed.txt" | diff - <(grep '^step 10: checksum' core/tests/golden/device_steps.txt) ||
    fail "a big-endian processor has another checksum (<) than devices (>)"
echo "big-endian: $(grep checksum "$work/printed.txt")"
