#!/usr/bin/env bash
# Runs the firmware of ffi/examples/firmware on emulated processors:
#     scripts/test/device/firmware.sh [NAME...]   # some targets of scripts/devices.sh
#
# The parameters must have the checksums in core/tests/golden/device_steps.txt, even if the power fails during saves. The
# firmware must resume from checkpoints of C and Python, and Rust, C and Python from the firmware's. Two models of the Llama
# family train for ten steps, to the checksums in device_llamas.txt.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh
. scripts/devices.sh

packages gcc-arm-none-eabi binutils-arm-none-eabi gcc-riscv64-unknown-elf qemu-system-arm qemu-system-misc ||
    programs arm-none-eabi-gcc riscv64-unknown-elf-gcc qemu-system-arm qemu-system-riscv32 ||
    not_run "firmware on Cortex-M and RISC-V: needs cross-compilers and emulators" \
        "(Debian: gcc-arm-none-eabi gcc-riscv64-unknown-elf qemu-system-arm qemu-system-misc)"

work=$CARGO_TARGET_DIR/device
firmware=ffi/examples/firmware
golden=core/tests/golden/device_steps.txt
warnings=(-Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror)

# build STEPS CHECKPOINT ELF: for the current target, with a built-in checkpoint. `model` is the folder of model.h.
build() {
    cp "$2" "$work/checkpoint.safetensors"
    # shellcheck disable=SC2086 # words
    $compiler -std=c11 -O2 "${warnings[@]}" -ffreestanding -nostdlib -DSTEPS="$1" -Iinclude -I"$model" -Wa,-I"$work" \
        -L$firmware -T "$script" -Wl,--gc-sections,--no-warn-execstack $firmware/{train,flash,start,semihosting}.c \
        $firmware/built_in.S "$firmware/$start" "$CARGO_TARGET_DIR/$rust/library/libjostle.a" -lgcc -o "$3"
}

# build_here STEPS CHECKPOINT PROGRAM: the same for this machine.
build_here() {
    cp "$2" "$work/checkpoint.safetensors"
    cc -std=c11 -O2 "${warnings[@]}" -DSTEPS="$1" -Iinclude -I"$work/here" -Wa,-I"$work" \
        $firmware/{train,flash,hosted}.c $firmware/built_in.S "$CARGO_TARGET_DIR/library/libjostle.a" -lm -lpthread -ldl \
        -o "$3"
}

# run DIRECTORY PROGRAM: runs an .elf file on the current target, any other program on this machine. Its files are in
# DIRECTORY. Fails if the program fails for another reason than a power failure.
run() {
    local status=0
    mkdir -p "$1"
    (cd "$1" && case $2 in
        *.elf) emulate "$2" ;;
        *) "$2" ;;
    esac) >"$1/printed.txt" 2>&1 || status=$?
    [ $status -eq 0 ] || [[ $status -eq 3 && -e $1/cut.txt ]] || fail "$1: status $status: $(cat "$1/printed.txt")"
}

# compare DIRECTORY STEP...: compares the checksums printed in DIRECTORY with the golden ones.
compare() {
    local wanted
    wanted=$(for step in "${@:2}"; do grep "^step $step:" $golden; done)
    grep checksum "$1/printed.txt" | diff - <(echo "$wanted") || fail "$1: other bits (<) than $golden (>)"
}

# begins DIRECTORY TEXT: checks which state the program started from.
begins() {
    sed -n 2p "$1/printed.txt" | grep -qx "$2" || fail "$1: wanted: $2; $(sed -n 2p "$1/printed.txt")"
}

[ $# -gt 0 ] || set -- "${names[@]}"
for target; do
    use "$target"
    build_archive "$rust"
done

# The sizes of the static arrays, and the built-in files.
rm -rf "$work"
mkdir -p "$work/here"
plan() {
    cargo run --locked --quiet --release -p jostle-plan -- --vocab 27 --context 16 --dropout 0.1 "$@"
}
gpt2=(--layers 1 --heads 4 --width 16)
plan "${gpt2[@]}" --device -o "$work/model.h"
plan "${gpt2[@]}" -o "$work/here/model.h"
built_in "$work"
nothing=/dev/null
model=$work

for target; do
    use "$target"
    build "$steps" $nothing "$work/$name.elf"
    run "$work/$name" "$work/$name.elf"
    begins "$work/$name" "initialized at step 0"
    compare "$work/$name" $(seq 10 190 "$steps")
    echo "$name: $(grep checksum "$work/$name/printed.txt" | paste -sd';'); $(tail -n1 "$work/$name/printed.txt")"
done

# The power fails six times. It fails in the first save, while it erases and in its record, and while the second save
# erases. Then it fails in the middle of a checkpoint, in the padding after a complete record, and in the last save. Each
# run resumes from the newest complete checkpoint. The last run ends with the bits of an uninterrupted one.
for target; do
    use "$target"
    [ "$steps" -eq 200 ] || continue
    cut=$work/$name-cut
    saved=$(sed -n 's/^step 50: saved, \([0-9]*\) .*/\1/p' "$work/$name/printed.txt")
    from="initialized at step 0"
    resumed="resumed from flash memory at step"
    while read -r changes next; do
        mkdir -p "$cut"
        echo "$changes" >"$cut/cut.txt"
        run "$cut" "$work/$name.elf"
        begins "$cut" "$from"
        [ "$(tail -n1 "$cut/printed.txt")" = "the power has failed" ] || fail "$cut: the power has not failed"
        from=${next:+$resumed $next}
        from=${from:-initialized at step 0}
    done <<END
3
$((saved - 3))
$((saved + 20)) 50
$((saved / 2)) 50
$((saved - 2)) 100
$((saved + saved - 10)) 150
END
    rm "$cut/cut.txt"
    run "$cut" "$work/$name.elf"
    begins "$cut" "$resumed 150"
    compare "$cut" 200
    cmp "$cut/trained.safetensors" "$work/$name/trained.safetensors" || fail "$cut: another checkpoint"
    echo "$name: cut off in six saves, and the same checkpoint in the end"
done

# The Llama family. Processors without a floating-point unit compute the same functions.
while IFS='|' read -r llama options; do
    model=$work/$llama
    mkdir "$model"
    # shellcheck disable=SC2086 # words
    plan --llama $options --device -o "$model/model.h"
    for target; do
        use "$target"
        [ "$steps" -eq 200 ] || continue
        build 10 $nothing "$model/$name.elf"
        run "$model/$name" "$model/$name.elf"
        sed -n "s/^step 10: checksum/$llama, &/p" "$model/$name/printed.txt" |
            diff - <(grep "^$llama, step" core/tests/golden/device_llamas.txt) ||
            fail "$name, $llama: other bits (<) than core/tests/golden/device_llamas.txt (>)"
        echo "$name: $llama, $(grep checksum "$model/$name/printed.txt"); $(tail -n1 "$model/$name/printed.txt")"
    done
done <<END
llama|--layers 2 --heads 4 --kv-heads 2 --width 16 --hidden 24
llama, normed queries and keys|--layers 1 --heads 3 --kv-heads 1 --head-width 6 --width 20 --hidden 32 --qkv-bias --qk-norm --untied
END
model=$work

# Device and host resume from each other's checkpoints: in C,
use "$1"
cargo build --locked --quiet --profile library -p jostle-archive
build_here 5 $nothing "$work/here/train-5"
run "$work/here" "$work/here/train-5"
build 10 "$work/here/trained.safetensors" "$work/from-c.elf"
run "$work/from-c" "$work/from-c.elf"
begins "$work/from-c" "resumed from the built-in checkpoint at step 5"
compare "$work/from-c" 10
build_here 200 "$work/from-c/trained.safetensors" "$work/here/train-200"
run "$work/to-c" "$work/here/train-200"
begins "$work/to-c" "resumed from the built-in checkpoint at step 10"
compare "$work/to-c" 200
# (also from an image of the flash memory,)
rm "$work/to-c"/*
cp "$work/from-c/flash.bin" "$work/to-c"
run "$work/to-c" "$work/here/train-200"
begins "$work/to-c" "$resumed 10"
compare "$work/to-c" 200
# in Rust,
JOSTLE_DEVICE_CHECKPOINT=$work/from-c/trained.safetensors cargo test --locked --quiet -p jostle --test device >/dev/null ||
    fail "Rust has another checkpoint at step 10 than $name"
echo "checkpoints: from C to $name, and from there to C and Rust, with the bits of uninterrupted training"

# and in Python.
python=$CARGO_TARGET_DIR/python-venv/bin/python
[ -x "$python" ] && "$python" -c 'import jostle' ||
    not_run "checkpoints from Python to devices and back: scripts/test/python.sh --install installs the package"
mkdir "$work/python"
"$python" $firmware/train.py "$work/text.tokens" 5 "$work/python/5.safetensors" >/dev/null
build 10 "$work/python/5.safetensors" "$work/from-python.elf"
run "$work/from-python" "$work/from-python.elf"
begins "$work/from-python" "resumed from the built-in checkpoint at step 5"
compare "$work/from-python" 10
"$python" $firmware/train.py "$work/text.tokens" 200 "$work/python/200.safetensors" \
    "$work/from-python/trained.safetensors" >"$work/python/printed.txt"
compare "$work/python" 200
echo "checkpoints: from Python to $name and back, with the bits of uninterrupted training"
