#!/usr/bin/env bash
# Runs stories260K, a real model of llama2.c, on an emulated Cortex-M7 with 4 MB of RAM:
#     scripts/test/device/stories.sh [FIGURES]   # also adds lines for benches/device/table.py to this file
#
# With the weights in flash it must write the story that llama2.c writes. Then it trains further, the last block and the whole
# model, to the host's bits.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh
. scripts/devices.sh

data=../shared/data
[ -e $data/stories260K.bin ] || not_run "stories260K on a device: needs $PWD/$data/stories260K.bin"
packages gcc-arm-none-eabi qemu-system-arm || programs arm-none-eabi-gcc qemu-system-arm ||
    not_run "stories260K on a device: needs arm-none-eabi-gcc and qemu-system-arm" \
        "(Debian: gcc-arm-none-eabi qemu-system-arm)"

figures=${1:-}
work=$CARGO_TARGET_DIR/stories
firmware=ffi/examples/firmware
warnings=(-std=c11 -O2 -Wall -Wextra -Wpedantic -Werror)
count=()
counter=()
[ -z "$figures" ] || { count=(-DCOUNT) && counter=(benches/device/counter.c); }
rm -rf "$work"
mkdir -p "$work"
use cortex-m7
build_archive "$rust"
cargo build --locked --quiet --profile library -p jostle-archive
libraries=("$CARGO_TARGET_DIR/library/libjostle.a" -lm -lpthread -ldl)
cc "${warnings[@]}" -Iinclude benches/device/image.c "${libraries[@]}" -o "$work/image"
"$work/image" $data/stories260K.bin "$work/weights.bin"

# All but the last block and the final norm.
frozen="--freeze model.embed_tokens.weight"
for layer in 0 1 2 3; do
    for tensor in input_layernorm self_attn.{q,k,v,o}_proj post_attention_layernorm mlp.{gate,up,down}_proj; do
        frozen+=" --freeze model.layers.$layer.$tensor.weight"
    done
done

# build PROGRAM DEFINE OPTION...: for the device and for this machine, with jostle-plan's options. A program with GENERATE leaves
# all weights in flash, any other one the frozen ones.
build() {
    local directory=$work/$1 define=$2 machine
    shift 2
    for machine in device here; do
        mkdir -p "$directory/$machine"
        # shellcheck disable=SC2046 # nothing, or a word
        cargo run --locked --quiet --release -p jostle-plan -- --llama --vocab 512 --layers 5 --heads 8 --kv-heads 4 \
            --width 64 --hidden 172 "$@" $([ $machine = here ] || echo --device) -o "$directory/$machine/model.h"
    done
    local sources=(-Wa,-I"$work" -Wa,-I$data benches/device/stories.{c,S})
    # shellcheck disable=SC2086 # words
    $compiler "${warnings[@]}" $define "${count[@]}" -ffreestanding -nostdlib -Iinclude -I"$directory/device" -I$firmware \
        -Ibenches/device -L$firmware -T "$script" -Wl,--gc-sections,--no-warn-execstack "${sources[@]}" "${counter[@]}" \
        $firmware/{start,semihosting}.c "$firmware/$start" "$archive" -lgcc -o "$directory/device/stories.elf"
    # shellcheck disable=SC2086 # a word, or nothing
    cc "${warnings[@]}" $define -Iinclude -I"$directory/here" -I$firmware "${sources[@]}" $firmware/hosted.c \
        "${libraries[@]}" -o "$directory/here/stories"
}

# run PROGRAM: on the device and on this machine.
run() {
    (cd "$work/$1/device" && emulate stories.elf ${figures:+-icount shift=0}) >"$work/$1/printed.txt" 2>&1 ||
        fail "$1: $(cat "$work/$1/printed.txt")"
    (cd "$work/$1/here" && ./stories)
    [ -z "$figures" ] || {
        awk -v before="stories260K	$1	3" 'NF { print before "\t" $1 "\t" $2 }' "$work/$1/printed.txt"
        size -A "$work/$1/device/stories.elf" |
            awk -v before="stories260K	$1	3" '$1 == ".bss" || $1 == ".data" { print before "\t" $1 "\t" $2 }'
        in_flash=FROZEN
        [ "$1" != generation ] || in_flash=PARAMETERS
        sed -n "s/^#define MODEL_${in_flash}_SIZE \([0-9]*\)u.*/stories260K\t$1\t3\tflash\t\1/p" "$work/$1/device/model.h"
    } >>"$figures"
}

build generation -DGENERATE --context 256
run generation
for machine in device here; do
    diff "$work/generation/$machine/story.txt" $data/stories260K.txt ||
        fail "stories260K writes another story (<) on $machine than llama2.c (>)"
done
echo "stories260K on $name: 200 tokens of llama2.c's story, from flash"

# shellcheck disable=SC2086 # words
build "the last block" "" --context 64 --fused $frozen
build "all blocks" "" --context 64 --fused --recompute
for trained in "the last block" "all blocks"; do
    run "$trained"
    cmp "$work/$trained/device/trained.bin" "$work/$trained/here/trained.bin" ||
        fail "$name, $trained: other bits after 20 steps than this machine"
    echo "stories260K on $name: 20 steps of $trained, with this machine's bits"
done
