#!/usr/bin/env bash
# Builds the examples in C and runs them. Natively, their checkpoints must equal the Rust example's byte for byte. Under
# valgrind and with sanitizers, no error may be found. Then they must refuse bad arguments and files.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh

programs gcc valgrind python3 || packages gcc libc6-dev valgrind python3 ||
    not_run "examples in C: need gcc, valgrind and python3 (Debian: gcc libc6-dev valgrind python3)"

work=$CARGO_TARGET_DIR/c-examples
rm -rf "$work"
mkdir -p "$work"/{native,clang,small,sanitized,checked}

make --silent library
cargo build --locked --quiet --release -p jostle-pool --example train
rust_train=$CARGO_TARGET_DIR/release/examples/train

build() {
    local place=$1 program
    shift
    for program in train finetune by_hand; do
        "$@" -std=c99 -Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror -Iinclude "ffi/examples/$program.c" \
            "$CARGO_TARGET_DIR/library/libjostle.a" -lpthread -ldl -lm -o "$work/$place/$program"
    done
}
build native gcc -O2
# Programs are slow under valgrind and with sanitizers, so they train a small model.
small=(gcc -DWIDTH=32 -DLAYERS=1 -DCONTEXT=16 -DBATCH=4)
build small "${small[@]}" -O2
build sanitized "${small[@]}" -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
build checked "${small[@]}" -O1 -g
if programs clang; then build clang clang -O2; fi

same() {
    cmp "$1" "$2" || fail "$1 and $2 differ"
}
# The text after a program's first empty line, which the model has generated.
written() {
    sed '1,/^$/d' "$1"
}

# Part of the demonstration's text, and characters of two, three and four bytes.
make --silent demo/topics.txt
cd "$work"
topics=$OLDPWD/demo/topics.txt
foreign=$OLDPWD/core/tests/golden/gpt2.safetensors
{
    head -n 700 "$topics"
    echo "Größe: 5 µm, 日本語 🦀!"
} >text.txt
{
    head -n 50 "$topics"
    echo "Größe: 5 µm, 日本語 🦀!"
} >short.txt
{
    sed -n '2000,2400p' "$topics"
    echo "¿Qué?"
} >other.txt

# Equal checkpoints and texts. Each program resumes from the other's checkpoint, and ends with the whole run's.
"$rust_train" --text text.txt --steps 30 --threads 1 --generate 200 --save rust >rust.txt
native/train text.txt --steps 30 --threads 2 --generate 200 --save c >c.txt
same rust c
same <(written rust.txt) <(written c.txt)
[ "$(written c.txt | wc -m)" -gt 200 ] || fail "train has written too little"
awk '/^validation loss/ { loss[++n] = $3 } END { exit !(n == 2 && loss[2] < loss[1] - 1) }' c.txt ||
    fail "train has not learned"
"$rust_train" --text text.txt --steps 30 --stop 11 --threads 2 --generate 0 --save rust-11 >/dev/null
native/train text.txt --steps 30 --stop 11 --generate 0 --save c-11 >/dev/null
same rust-11 c-11
"$rust_train" --text text.txt --resume c-11 --generate 0 --save rust-resumed >/dev/null
native/train text.txt --resume rust-11 --threads 2 --generate 0 --save c-resumed >/dev/null
same rust rust-resumed
same c c-resumed
"$rust_train" --text short.txt --seed 7 --steps 2 --generate 0 --save rust-7 >/dev/null
native/train short.txt --seed 7 --steps 2 --generate 0 --save c-7 >/dev/null
same rust-7 c-7

# On a terminal, progress stays on one line. util-linux's `script` provides the terminal.
if programs script; then
    script -qec "native/train short.txt --steps 3 --generate 0" /dev/null >terminal.txt
    [ "$(grep -c 'step' terminal.txt)" -eq 3 ] || fail "progress takes more than a line"
    for step in 1 2 3; do grep -q $'\r'"step $step/3  loss " terminal.txt || fail "step $step is not shown"; done
fi

# Fine-tuning learns, and the saved model has the last loss.
native/finetune c other.txt tuned 30 >tuned.txt
native/finetune tuned other.txt again 1 >again.txt
loss() {
    awk -v when="$2" '/^validation loss/ && $4 == when { print $3 }' "$1"
}
awk -v before="$(loss tuned.txt before)" -v after="$(loss tuned.txt after)" 'BEGIN { exit !(after < before) }' ||
    fail "finetune has not learned"
[ "$(loss tuned.txt after)" = "$(loss again.txt before)" ] || fail "finetune has saved another model"
grep -Eq '^h\.3\.mlp\.c_proj\.weight +\[512, 128\] +[0-9.]+ +0\.[0-9]+$' tuned.txt || fail "no change is shown"
[ "$(grep -cE '^(h\.[0-3]|wte|wpe|ln_f|lm_head)\.' tuned.txt)" -eq 53 ] || fail "finetune does not show every tensor"

native/by_hand text.txt >by_hand.txt
grep -q 'bit for bit' by_hand.txt
awk '/^step/ { loss = $4; if (!n++) first = loss } END { exit !(loss < first - 2) }' by_hand.txt ||
    fail "by_hand has not learned"
if [ -x clang/train ]; then
    clang/train text.txt --steps 30 --threads 2 --generate 0 --save clang.safetensors >/dev/null
    same clang.safetensors c
    clang/finetune c other.txt clang-tuned 30 >/dev/null
    same clang-tuned tuned
    clang/by_hand text.txt 30 >/dev/null
fi

# all FOLDER [COMMAND...]: runs the three programs by COMMAND. Valgrind and sanitizers do not change the bits.
all() {
    local place=$1
    shift
    "$@" "$place/train" short.txt --steps 4 --stop 2 --threads 2 --generate 20 --save "$place/two" >/dev/null
    "$@" "$place/train" short.txt --resume "$place/two" --threads 2 --generate 0 --save "$place/four" >/dev/null
    "$@" "$place/finetune" "$place/four" short.txt "$place/tuned" 2 >/dev/null
    "$@" "$place/by_hand" short.txt 2 >/dev/null
}
all small
all sanitized
same small/tuned sanitized/tuned
all checked valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=all --show-leak-kinds=all
same small/tuned checked/tuned

# refused WORDS PROGRAM...: the program, built with sanitizers, must print one line with WORDS and end with status 1.
refused() {
    local words=$1 status=0
    shift
    "$@" >refused.txt 2>refusal.txt || status=$?
    if [ $status -ne 1 ] || [ "$(wc -l <refusal.txt)" -ne 1 ] || ! grep -q "^error: .*$words" refusal.txt; then
        cat refusal.txt >&2
        fail "$* ended with status $status; wanted: 1 and a sentence with \"$words\""
    fi
}
: >empty
head -c 1000 text.txt >thousand
head -c 15 text.txt >fifteen
head -c 100000 c >truncated
{
    head -c -1 c
    printf '\x55'
} >altered
cmp -s c altered && fail "nothing was altered"
PATH=$work/sanitized:$PATH

refused 'usage: ' train
refused 'usage: ' train text.txt --unknown 1
refused 'usage: ' train text.txt thousand
refused 'usage: ' train text.txt --save
refused 'steps must be a number' train text.txt --steps 0
refused 'steps must be a number' train text.txt --steps 3x
refused 'steps must be a number' train text.txt --steps
refused 'threads must be a number' train text.txt --threads 99999999999
refused 'seed' train text.txt --resume c --seed 1
refused 'missing cannot be opened' train missing
refused 'cannot be read' train .
refused 'empty is too short: it has 0 characters' train empty
refused 'fifteen is too short: it has 15 characters' train fifteen
refused 'missing/c.partial cannot be written' train text.txt --save missing/c
for bytes in '\xff' '\x80' '\xc0\xaf' '\xe2\x82' '\xe2\x82x' '\xed\xa0\x80' '\xf4\x90\x80\x80' '\xf8\x88\x80' '\x00'; do
    {
        cat thousand
        printf '%b' "$bytes"
    } >not-text
    refused 'not-text is not UTF-8 text (byte 1000 ' train not-text
done
refused 'are not ones that the model knows' train other.txt --resume c
refused '30 steps are done already' train text.txt --resume c --stop 29
refused 'tuned: a tensor is missing' train text.txt --resume tuned
for program in 'train text.txt --resume' 'finetune @ text.txt unwanted'; do
    on() {
        local words=$1 line=${program/@/$2}
        [ "$line" != "$program" ] || line+=" $2"
        # shellcheck disable=SC2086 # words
        refused "$words" $line
    }
    on 'missing cannot be opened' missing
    on 'empty: .* truncated' empty
    on 'text.txt: .*header' text.txt
    on 'truncated: .* truncated' truncated
    on 'altered: .*checksum' altered
    on 'metadata' "$foreign"
done
refused 'usage: ' finetune c text.txt
refused 'STEPS must be a number' finetune c text.txt unwanted 0
refused 'empty is too short' finetune c empty unwanted
refused 'missing/c.partial cannot be written' finetune c text.txt missing/c
refused 'usage: ' by_hand
refused 'missing cannot be opened' by_hand missing
refused 'empty has 0 bytes' by_hand empty
refused 'STEPS must be a number' by_hand text.txt -1
[ ! -e unwanted ] || fail "a refused program has saved"
echo "examples in C: equal to Rust's; valgrind and the sanitizers found nothing"
