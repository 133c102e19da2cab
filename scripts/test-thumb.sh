#!/usr/bin/env bash
# The core on an emulated Cortex-M4F, for which products have kernels of their own: their bits against the reference's,
# what they and a training step cost, and firmware in Rust that trains. The emulator counts instructions; it times
# nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

target=thumbv7em-none-eabihf
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
flags="-C link-arg=--gc-sections -C link-arg=-T$PWD/core/device/arm.ld"

{ command -v qemu-system-arm && command -v arm-none-eabi-ld; } >/dev/null ||
    packages qemu-system-arm binutils-arm-none-eabi ||
    not_run "thumb: needs qemu-system-arm and arm-none-eabi-ld (Debian: qemu-system-arm binutils-arm-none-eabi)"
if rustup_has $target; then
    build=(cargo build)
else
    packages rustc-web cargo-web rust-web-src ||
        not_run "thumb: needs 'rustup target add $target' (Debian: rustc-web cargo-web rust-web-src)"
    build=(debian_cargo build -Z build-std=core)
    flags+=" -C linker=arm-none-eabi-ld -C linker-flavor=ld"
fi
(cd core/device &&
    CARGO_TARGET_THUMBV7EM_NONE_EABIHF_RUSTFLAGS=$flags \
        "${build[@]}" --locked --quiet --release --target $target)
run() {
    timeout 100 qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none -semihosting-config enable=on \
        -kernel "$CARGO_TARGET_DIR/$target/release/$1" "${@:2}"
}
run device -icount shift=0
run train 2>&1 | tee "$CARGO_TARGET_DIR/$target/train.txt"
# The power fails thrice: what was done again ends in the same bits.
grep checksum "$CARGO_TARGET_DIR/$target/train.txt" | sort -u | diff - <(sort core/tests/golden/device_steps.txt) || {
    echo "FAILED: firmware in Rust has other bits (<) than core/tests/golden/device_steps.txt (>)" >&2
    exit 1
}
