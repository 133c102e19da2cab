#!/usr/bin/env bash
# Products on an emulated Cortex-M4F, which have kernels of their own: their bits against the reference's, and what
# they and a training step cost. The emulator counts instructions; it times nothing.
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
timeout 100 qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none -icount shift=0 \
    -semihosting-config enable=on -kernel "$CARGO_TARGET_DIR/$target/release/device"
