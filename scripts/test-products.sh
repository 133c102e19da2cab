#!/usr/bin/env bash
# Rust on emulated processors without vectors. Products, which have kernels of their own there: their bits against the
# reference's, and what they and a training step cost. Then firmware, which trains through power that fails. The
# emulator counts instructions; it times nothing.
#     scripts/test-products.sh [NAME...]
# runs only those of the targets below.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

# Name, Rust's target, linker and its arguments, emulator. A tick of the Arm boards' timers is 25 or 20 million to the
# second. QEMU's only Cortex-M0 has too little memory; a Cortex-M3 runs the same code.
mps2="--defsym=code=0 --defsym=data=0x20000000 --defsym=tick=40 -T$PWD/core/device/arm.ld"
an505="--defsym=code=0x10000000 --defsym=data=0x38000000 --defsym=tick=50 -T$PWD/core/device/arm.ld"
virt="-melf32lriscv -T$PWD/core/device/riscv.ld"
targets=(
    "cortex-m4|thumbv7em-none-eabihf|arm-none-eabi-ld|$mps2|qemu-system-arm -M mps2-an386"
    "cortex-m7|thumbv7em-none-eabihf|arm-none-eabi-ld|$mps2|qemu-system-arm -M mps2-an500"
    "cortex-m33|thumbv8m.main-none-eabihf|arm-none-eabi-ld|$an505|qemu-system-arm -M mps2-an505"
    "rv32imafc|riscv32imafc-unknown-none-elf|riscv64-unknown-elf-ld|$virt|qemu-system-riscv32 -M virt -bios none"
    "thumbv6m|thumbv6m-none-eabi|arm-none-eabi-ld|$mps2|qemu-system-arm -M mps2-an385"
    "rv32imc|riscv32imc-unknown-none-elf|riscv64-unknown-elf-ld|$virt|qemu-system-riscv32 -M virt -bios none -cpu rv32,f=off,d=off"
)

packages binutils-arm-none-eabi binutils-riscv64-unknown-elf qemu-system-arm qemu-system-misc ||
    { command -v arm-none-eabi-ld && command -v riscv64-unknown-elf-ld && command -v qemu-system-arm &&
        command -v qemu-system-riscv32; } >/dev/null ||
    not_run "products: needs linkers and emulators (Debian: binutils-arm-none-eabi binutils-riscv64-unknown-elf" \
        "qemu-system-arm qemu-system-misc)"

for target in "${targets[@]}"; do
    IFS='|' read -r name rust linker arguments emulator <<<"$target"
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    flags="-C link-arg=--gc-sections"
    for argument in $arguments; do flags+=" -C link-arg=$argument"; done
    if rustup_has "$rust"; then
        build=(cargo build)
    else
        packages rustc-web cargo-web rust-web-src ||
            not_run "products: needs 'rustup target add $rust' (Debian: rustc-web cargo-web rust-web-src)"
        build=(debian_cargo build -Z build-std=core)
        flags+=" -C linker=$linker -C linker-flavor=ld"
    fi
    (cd core/device && RUSTFLAGS=$flags "${build[@]}" --locked --quiet --release --target "$rust")
    echo "$name:"
    run() {
        # shellcheck disable=SC2086 # words
        timeout 300 $emulator -nographic -monitor none -serial none -semihosting-config enable=on \
            -kernel "$CARGO_TARGET_DIR/$rust/release/$1" "${@:2}"
    }
    run device -icount shift=0
    [ "$name" = cortex-m4 ] || continue
    run train 2>&1 | tee "$CARGO_TARGET_DIR/$rust/train.txt"
    # What was done again after the power failed ends in the same bits.
    grep checksum "$CARGO_TARGET_DIR/$rust/train.txt" | sort -u | diff - <(sort core/tests/golden/device_steps.txt) || {
        echo "FAILED: firmware in Rust has other bits (<) than core/tests/golden/device_steps.txt (>)" >&2
        exit 1
    }
done
