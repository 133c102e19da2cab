#!/usr/bin/env bash
# Measures training on emulated devices: flash, memory, stack and instructions of a step, beside a plain C
# implementation of the same step. An emulator counts instructions; it cannot measure time.
#
#     scripts/device-table.sh                     # writes benches/results/device.md, and its summary in docs/performance.md
#
#     scripts/device-table.sh NAME...             # some targets of scripts/devices.sh, to standard output
#     scripts/device-table.sh --check [NAME...]   # fails if a figure at opt-level 3 is 5 % above device.md's
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/devices.sh

packages gcc-arm-none-eabi libnewlib-arm-none-eabi gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf \
    qemu-system-arm qemu-system-misc python3 ||
    programs arm-none-eabi-gcc riscv64-unknown-elf-gcc qemu-system-arm qemu-system-riscv32 python3 ||
    not_run "table of devices: needs cross-compilers with C libraries, emulators and Python (Debian:" \
        "gcc-arm-none-eabi libnewlib-arm-none-eabi gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf" \
        "qemu-system-arm qemu-system-misc python3)"

work=$CARGO_TARGET_DIR/device-table
firmware=ffi/examples/firmware
rm -rf "$work"
mkdir -p "$work"
all=
check=
levels=(3 s)
[ "${1:-}" != --check ] || { check=yes && levels=(3) && shift; }
[ $# -gt 0 ] || { all=yes && set -- cortex-m4 cortex-m7 cortex-m33 rv32imafc; }

# Name, micro-batches, jostle-plan's options for the model.
models=(
    "4k|1|--context 16 --layers 1 --width 16 --untied"
    "4k, AdamW in backward|1|--context 16 --layers 1 --width 16 --untied --fused"
    "4k, SGD in backward|1|--context 16 --layers 1 --width 16 --untied --optimizer none --fused"
    "14k|1|--context 12 --layers 1 --width 32"
    "14k, AdamW in backward|1|--context 36 --layers 1 --width 32 --fused"
    "14k, 4 micro-batches|4|--context 12 --layers 1 --width 32"
    "14k, dropout 0.1|1|--context 12 --layers 1 --width 32 --dropout 0.1"
    "50k|1|--context 12 --layers 4 --width 32 --optimizer none --fused --recompute"
    "15k-llama|1|--llama --context 8 --layers 2 --kv-heads 2 --width 24 --hidden 72 --recompute"
    "15k-llama, AdamW in backward|1|--llama --context 24 --layers 2 --kv-heads 2 --width 24 --hidden 72 --fused"
)

# link LIBRARIES ELF SOURCE...: for the current target.
link() {
    local libraries=$1 elf=$2
    shift 2
    # shellcheck disable=SC2086 # words
    $compiler -std=c11 -Wall -Wextra -Werror -nostartfiles -Iinclude -Ibenches/device -I"$work" -I$firmware \
        -L$firmware -T "$script" -Wl,--gc-sections,--no-warn-execstack,-Map="$elf.map" "$@" \
        $firmware/{start,semihosting}.c "$firmware/$start" $libraries -o "$elf"
}

# figures ELF MODEL BUILD: runs the program, and records its output and memory as lines of model, target, build, name,
# number.
figures() {
    emulate "$1" -icount shift=0 >"$work/printed.txt" 2>&1 || { cat "$work/printed.txt" >&2 && exit 1; }
    awk -v before="$2	$name	$3" 'NF { print before "\t" $1 "\t" $2 }' "$work/printed.txt" >>"$work/figures.tsv"
    size -A "$1" | awk -v before="$2	$name	$3" '$1 == ".bss" || $1 == ".data" { print before "\t" $1 "\t" $2 }' \
        >>"$work/figures.tsv"
}

# flash PROGRAM ELF: records the flash of the archive's and the compiler library's linked parts.
flash() {
    echo "	$name	$level	$1	$(python3 benches/device/flash.py "$2.map")" >>"$work/figures.tsv"
}

built_in "$work"
for target; do
    use "$target"
    # Only the plain step links a C library. The RISC-V compiler finds one for the architecture without Zicsr.
    plain=$compiler
    [[ $compiler != riscv* ]] || plain="${compiler/_zicsr/} --specs=picolibc.specs -Wa,-march=rv32imafc_zicsr"
    for level in "${levels[@]}"; do
        directory=$CARGO_TARGET_DIR
        [ "$level" = 3 ] || directory=$CARGO_TARGET_DIR/small
        CARGO_TARGET_DIR=$directory CARGO_PROFILE_LIBRARY_OPT_LEVEL=$level build_archive "$rust"
        for line in "${models[@]}"; do
            IFS='|' read -r model accumulate words <<<"$line"
            # shellcheck disable=SC2086 # words
            cargo run --locked --quiet --release -p jostle-plan -- --vocab 27 --heads 4 $words --device \
                -o "$work/model.h"
            link "$archive -lgcc" "$work/measure-$level.elf" -O2 -ffreestanding -nostdlib -DACCUMULATE="$accumulate" \
                benches/device/{measure,counter}.c
            figures "$work/measure-$level.elf" "$model" "$level"
            sed -n "s/^#define MODEL_\([A-Z_]*\) \([0-9]*\)u.*/$model	$name	plan	\1	\2/p" "$work/model.h" \
                >>"$work/figures.tsv"
            # The plain step has neither micro-batches nor AdamW without clipping.
            [ -z "$check" ] && [ "$level" = 3 ] && [ "$accumulate" = 1 ] &&
                [[ $model != *"AdamW in backward" ]] || continue
            family=
            [[ $words != --llama* ]] || family=-DLLAMA
            for unrolled in "" -funroll-loops; do
                # shellcheck disable=SC2086 # nothing, or a word
                compiler=$plain link "$archive -lm" "$work/plain.elf" -O3 -ffast-math $family $unrolled \
                    benches/device/{measure_plain,plain,counter}.c
                figures "$work/plain.elf" "$model" "plain$unrolled"
            done
        done
        flash training "$work/measure-$level.elf"
        # The firmware keeps checkpoints in two slots of flash memory.
        link "$archive -lgcc" "$work/firmware-$level.elf" -O2 -ffreestanding -nostdlib -Wa,-I"$work" \
            $firmware/{train,flash}.c $firmware/built_in.S
        flash firmware "$work/firmware-$level.elf"
    done
done
if [ -n "$check" ]; then
    python3 benches/device/table.py --check benches/results/device.md "$work/figures.tsv"
    exit
fi
[ -z "$all" ] || scripts/test/device/stories.sh "$work/figures.tsv"
python3 benches/device/table.py "$work/figures.tsv" >"$work/device.md"
if [ -n "$all" ]; then
    cp "$work/device.md" benches/results/device.md
    python3 benches/device/table.py --summary docs/performance.md "$work/figures.tsv"
else
    cat "$work/device.md"
fi
