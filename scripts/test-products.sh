#!/usr/bin/env bash
# Rust on emulated processors without vectors. Products, which have kernels of their own there: their bits against the
# reference's, and what they and a training step cost. Then firmware, which trains through power that fails. The
# emulator counts instructions; it times nothing.
#     scripts/test-products.sh [NAME...]
# runs only those of the targets in scripts/devices.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/devices.sh

# use_linker: the linker and its arguments for the target in use. A tick of the Arm boards' timers is 25 or 20 million to
# the second.
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
            echo "$name, in as many units of code as cargo makes unless told otherwise:"
            (cd core/device && CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 RUSTFLAGS=$flags \
                "${cargo[@]}" build --locked --quiet --release --bin device --target "$rust" --target-dir "$CARGO_TARGET_DIR/units")
            emulate "$CARGO_TARGET_DIR/units/$rust/release/device" -icount shift=0
            ;;
    esac
    [ "$name" = cortex-m4 ] || continue
    emulate "$programs/train" 2>&1 | tee "$CARGO_TARGET_DIR/$rust/train.txt"
    # What was done again after the power failed ends in the same bits.
    grep checksum "$CARGO_TARGET_DIR/$rust/train.txt" | sort -u | diff - <(sort core/tests/golden/device_steps.txt) ||
        fail "firmware in Rust has other bits (<) than core/tests/golden/device_steps.txt (>)"
done
