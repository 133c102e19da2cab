#!/usr/bin/env bash
# Runs core/device on emulated processors without vector instructions:
#     scripts/test/device/rust.sh [NAME...]   # some targets of scripts/devices.sh
#
# Matrix products and loops, which have their own kernels there, must have the reference's bits. Prints the
# instructions of each, and of a training step. Then firmware in Rust trains through power failures.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh
. scripts/devices.sh

# use_linker: sets the linker and its arguments for the current target. The Arm boards' timers tick 25 or 20 million
# times a second.
use_linker() {
    linker=arm-none-eabi-ld
    arguments="-T$PWD/core/device/arm.ld"
    case $script in
        mps2.ld) arguments="--defsym=code=0 --defsym=data=0x20000000 --defsym=tick=40 $arguments" ;;
        mps2_an505.ld) arguments="--defsym=code=0x10000000 --defsym=data=0x38000000 --defsym=tick=50 $arguments" ;;
        virt.ld) linker=riscv64-unknown-elf-ld arguments="-melf32lriscv -T$PWD/core/device/riscv.ld" ;;
        *) fail "no linker script in Rust's programs for $script" ;;
    esac
}

packages binutils-arm-none-eabi binutils-riscv64-unknown-elf qemu-system-arm qemu-system-misc ||
    programs arm-none-eabi-ld riscv64-unknown-elf-ld qemu-system-arm qemu-system-riscv32 ||
    not_run "products: needs linkers and emulators (Debian: binutils-arm-none-eabi binutils-riscv64-unknown-elf" \
        "qemu-system-arm qemu-system-misc)"

[ $# -gt 0 ] || set -- "${names[@]}"
for target; do
    use "$target"
    use_linker
    flags="-C link-arg=--gc-sections"
    for argument in $arguments; do flags+=" -C link-arg=$argument"; done
    bare_cargo "$rust" products
    rustup_has "$rust" || flags+=" -C linker=$linker -C linker-flavor=ld"
    (cd core/device && RUSTFLAGS=$flags "${cargo[@]}" build --locked --quiet --release --target "$rust")
    echo "$name:"
    programs=$CARGO_TARGET_DIR/$rust/release
    emulate "$programs/device" -icount shift=0
    case $name in
        cortex-m4 | rv32imafc)
            echo "$name, with cargo's default number of codegen units:"
            (cd core/device && CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 RUSTFLAGS=$flags \
                "${cargo[@]}" build --locked --quiet --release --bin device --target "$rust" --target-dir "$CARGO_TARGET_DIR/units")
            emulate "$CARGO_TARGET_DIR/units/$rust/release/device" -icount shift=0
            ;;
    esac
    [ "$name" = cortex-m4 ] || continue
    emulate "$programs/train" 2>&1 | tee "$CARGO_TARGET_DIR/$rust/train.txt"
    # Steps that are repeated after a power failure have the same bits.
    grep checksum "$CARGO_TARGET_DIR/$rust/train.txt" | sort -u | diff - <(sort core/tests/golden/device_steps.txt) ||
        fail "firmware in Rust has other bits (<) than core/tests/golden/device_steps.txt (>)"
done
