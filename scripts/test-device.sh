#!/usr/bin/env bash
# Runs the firmware of ffi/examples/firmware on emulated processors: each must end in the parameters whose checksums
# core/tests/golden/device_steps.txt states, and go on from the host's checkpoints as the host from its. An emulator
# proves function, and times nothing.
#     scripts/test-device.sh [NAME...]
# runs only those of the targets below.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

packages gcc-arm-none-eabi binutils-arm-none-eabi gcc-riscv64-unknown-elf qemu-system-arm qemu-system-misc ||
    { command -v arm-none-eabi-gcc && command -v riscv64-unknown-elf-gcc && command -v qemu-system-arm &&
        command -v qemu-system-riscv32; } >/dev/null ||
    not_run "firmware on Cortex-M and RISC-V: needs cross-compilers and emulators" \
        "(Debian: gcc-arm-none-eabi gcc-riscv64-unknown-elf qemu-system-arm qemu-system-misc)"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
work=$CARGO_TARGET_DIR/device
firmware=ffi/examples/firmware
golden=core/tests/golden/device_steps.txt
warnings=(-Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror)
mkdir -p "$work"
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# Name, Rust's target, steps, linker script, start-up, emulator, the C compiler's words for the processor. Without a
# floating-point unit steps are slow: fewer of them. QEMU's only Cortex-M0 has too little memory; a Cortex-M3 runs the
# same code.
arm="arm-none-eabi-gcc -mthumb"
riscv="riscv64-unknown-elf-gcc -mcmodel=medany -Wl,-melf32lriscv"
virt="qemu-system-riscv32 -M virt -bios none"
targets=(
    "cortex-m4|thumbv7em-none-eabihf|200|mps2.ld|cortex_m.c|qemu-system-arm -M mps2-an386|$arm -mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16"
    "cortex-m7|thumbv7em-none-eabihf|200|mps2.ld|cortex_m.c|qemu-system-arm -M mps2-an500|$arm -mcpu=cortex-m7 -mfloat-abi=hard -mfpu=fpv5-sp-d16"
    "cortex-m33|thumbv8m.main-none-eabihf|200|mps2_an505.ld|cortex_m.c|qemu-system-arm -M mps2-an505|$arm -mcpu=cortex-m33 -mfloat-abi=hard -mfpu=fpv5-sp-d16"
    "rv32imafc|riscv32imafc-unknown-none-elf|200|virt.ld|riscv.S|$virt|$riscv -march=rv32imafc_zicsr -mabi=ilp32f"
    "thumbv6m|thumbv6m-none-eabi|10|mps2.ld|cortex_m.c|qemu-system-arm -M mps2-an385|$arm -mcpu=cortex-m0 -mfloat-abi=soft"
    "rv32imc|riscv32imc-unknown-none-elf|10|virt.ld|riscv.S|$virt -cpu rv32,f=off,d=off|$riscv -march=rv32imc_zicsr -mabi=ilp32"
)

# use LINE: the fields of a target as variables.
use() {
    IFS='|' read -r name rust steps script start emulator compiler <<<"$1"
}

# build STEPS ELF: for the target in use.
build() {
    # shellcheck disable=SC2086 # words
    $compiler -std=c11 -O2 "${warnings[@]}" -ffreestanding -nostdlib -DSTEPS="$1" -Iinclude -I"$work" -Wa,-I"$work" \
        -L$firmware -T "$script" -Wl,--gc-sections,--no-warn-execstack $firmware/{train,start,semihosting}.c \
        $firmware/text.S "$firmware/$start" "$CARGO_TARGET_DIR/$rust/library/libjostle.a" -lgcc -o "$2"
}

# run ELF: on the target in use, in the directory that takes its files.
run() {
    # shellcheck disable=SC2086 # words
    timeout 600 $emulator -nographic -monitor none -serial none -semihosting-config enable=on,target=native \
        -kernel "$1" >printed.txt 2>&1 || fail "$name: $(cat printed.txt)"
}

# compare STEPS: that the checksums in printed.txt are those of every other processor, as far as it went.
compare() {
    grep checksum printed.txt | diff - <(awk -v steps="$1" '$2 + 0 <= steps' "$OLDPWD/$golden") ||
        fail "$name has other bits (<) than $golden (>)"
}

chosen=()
for target in "${targets[@]}"; do
    [ $# -eq 0 ] || [[ " $* " == *" ${target%%|*} "* ]] || continue
    chosen+=("$target")
    use "$target"
    scripts/freestanding.sh "$rust"
    # Where it could not be built, it has said so.
    [ -e "$CARGO_TARGET_DIR/$rust/library/libjostle.a" ] || exit 0
done
[ ${#chosen[@]} -gt 0 ] || fail "no such target: $*"

# The sizes of the static arrays, and the text as tokens.
model=(--vocab 27 --context 16 --layers 1 --heads 4 --width 16 --dropout 0.1)
plan() { cargo run --locked --quiet --release -p jostle-plan -- "${model[@]}" "$@"; }
plan --device -o "$work/model.h"
tr -d '\n' <$firmware/text.txt | tr 'a-z ' '\000-\032' >"$work/text.tokens"

for target in "${chosen[@]}"; do
    use "$target"
    rm -rf "${work:?}/$name"
    mkdir "$work/$name"
    build "$steps" "$work/$name.elf"
    cd "$work/$name"
    run "$work/$name.elf"
    compare "$steps"
    echo "$name: $(grep checksum printed.txt | paste -sd';'); $(tail -n1 printed.txt)"
    cd "$OLDPWD"
done

# From a checkpoint of the host's the device goes on, and from the device's the host.
use "${chosen[0]}"
cargo build --locked --quiet --profile library -p jostle-archive
rm -rf "$work"/{host,exchange}
mkdir "$work"/{host,exchange}
plan -o "$work/host/model.h"
for steps in 5 200; do
    cc -std=c11 -O2 "${warnings[@]}" -DSTEPS=$steps -Iinclude -I"$work/host" -Wa,-I"$work" $firmware/{train,hosted}.c \
        $firmware/text.S "$CARGO_TARGET_DIR/library/libjostle.a" -lm -lpthread -ldl -o "$work/host/train-$steps"
done
build 10 "$work/exchange.elf"
cd "$work/exchange"
hand_over() {
    mv trained.safetensors resume.safetensors
    "$@"
    grep -q '^resumed; ' printed.txt || fail "$*: did not go on from the other's checkpoint"
}
host() { "$work/host/train-$1" >printed.txt || fail "host: $(cat printed.txt)"; }
host 5
hand_over run "$work/exchange.elf"
compare 10
hand_over host 200
grep checksum printed.txt | diff - <(tail -n1 "$OLDPWD/$golden") || fail "the host has other bits after the device"
echo "checkpoints: from the host to $name and back, with the bits of uninterrupted training"
