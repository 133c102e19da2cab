#!/usr/bin/env bash
# Tests the C ABI with the C programs of ffi/tests: the header, bad input, PyTorch's numbers, equal bits, and the absence
# of allocations and output. They also run under valgrind, AddressSanitizer and UndefinedBehaviorSanitizer. Then checks
# the symbols that the libraries export and need.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh

packages gcc g++ libc6-dev binutils valgrind python3 gcc-arm-none-eabi ||
    not_run "C tests: need gcc, g++, valgrind, python3, arm-none-eabi-gcc" \
        "(Debian: gcc g++ libc6-dev binutils valgrind python3 gcc-arm-none-eabi)"

work=$CARGO_TARGET_DIR/c
hosted=$CARGO_TARGET_DIR/library
freestanding=$CARGO_TARGET_DIR/freestanding/library/libjostle.a
mkdir -p "$work"
cargo build --locked --profile library -p jostle-archive
cargo rustc --locked --profile library -p jostle-archive --no-default-features --crate-type staticlib \
    --target-dir "$CARGO_TARGET_DIR/freestanding"

say() { echo "== $*"; }
header() { python3 ffi/tests/header.py "$1" include/jostle.h "${@:2}"; }

warnings=(-Wall -Wextra -Wpedantic -Werror -Iinclude)
# compile PROGRAM ARGUMENTS...: as C99 with POSIX.
compile() {
    gcc -std=c99 -D_POSIX_C_SOURCE=200809L -O1 -g "${warnings[@]}" -Wstrict-prototypes -o "$work/$1" "${@:2}"
}
static=("$hosted/libjostle.a" -lm -lpthread -ldl)
# The library's name once it is installed.
ln -sf "$hosted/libjostle.so" "$work/libjostle.so.$(library_series)"
shared=(-L"$hosted" -Wl,-rpath,"$work" -ljostle -lm -lpthread)

say "header"
for standard in c99 c11; do
    printf '#include "jostle.h"\n#include "jostle.h"\n' |
        gcc -std=$standard "${warnings[@]}" -Wc++-compat -Wstrict-prototypes -fsyntax-only -x c -
done
printf '#include "jostle.h"\n#include "jostle.h"\n' | g++ -std=c++17 "${warnings[@]}" -fsyntax-only -x c++ -
header check Cargo.toml
python3 ffi/tests/interface.py check include/jostle.h ffi/released.txt

say "as it is"
for test in bad_input golden same_bits; do
    compile $test ffi/tests/$test.c "${static[@]}"
    compile $test-shared ffi/tests/$test.c "${shared[@]}"
    # Every buffer on the heap with its exact length, for valgrind and AddressSanitizer.
    compile $test-heap -DHEAP ffi/tests/$test.c "${static[@]}"
    compile $test-sanitized -DHEAP -fsanitize=address,undefined -fno-sanitize-recover=all ffi/tests/$test.c \
        "${static[@]}"
done
golden=core/tests/golden
for kind in "" -shared; do
    "$work/bad_input$kind" >"$work/printed$kind" || fail "$(grep ^FAILED "$work/printed$kind")"
    tail -1 "$work/printed$kind"
    header covered <"$work/printed$kind"
    "$work/golden$kind" $golden/*.safetensors
    "$work/same_bits$kind" $golden
done

say "files of llama2.c"
if [ -e ../shared/data ]; then
    compile stories ffi/tests/stories.c "${static[@]}"
    "$work/stories" ../shared/data
elif [ -z "${CI:-}" ]; then
    echo "NOT RUN: stories.c needs ../shared/data"
else
    fail "../shared/data is missing"
fi

say "a program built with an older header"
mkdir -p "$work/older"
header cut jostle_options recompute >"$work/older/jostle.h"
compile older_header -iquote "$work/older" ffi/tests/older_header.c "${static[@]}"
"$work/older_header"

say "AddressSanitizer, UndefinedBehaviorSanitizer"
"$work/bad_input-sanitized" | tail -1
"$work/golden-sanitized" $golden/*.safetensors | tail -1
"$work/same_bits-sanitized" $golden | tail -1

say "valgrind"
# The standard library's record of the main thread counts as possibly lost.
checked() {
    valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
        --show-leak-kinds=definite "$work/$1-heap" "${@:2}" | tail -1
}
checked bad_input
checked golden $golden/{one_token,three_heads,two_tiles}.safetensors
# Valgrind is slow, and does not support every instruction set.
JOSTLE_INSTRUCTION_SETS=fastest checked same_bits $golden 3

say "threads, fork"
compile threads ffi/tests/threads.c "${static[@]}"
"$work/threads"
for tool in helgrind drd; do
    valgrind --tool=$tool --quiet --error-exitcode=9 --suppressions=ffi/install/valgrind.supp "$work/threads"
done

say "nothing allocates, prints or exits"
wraps=()
for function in malloc calloc realloc free posix_memalign aligned_alloc abort exit \
    printf vprintf puts putchar fwrite write; do
    wraps+=("-Wl,--wrap=$function")
done
compile bad_input.o -Dmain=bad_input -c ffi/tests/bad_input.c
compile traps ffi/tests/traps.c "$work/bad_input.o" "${wraps[@]}" "${static[@]}"
compile bad_input.o -Dmain=bad_input -DFREESTANDING -c ffi/tests/bad_input.c
compile traps-freestanding -DFREESTANDING ffi/tests/traps.c "$work/bad_input.o" "${wraps[@]}" "$freestanding" -lm
"$work/traps" >"$work/printed" || fail "$(grep ^FAILED "$work/printed" || echo "the hosted library trapped")"
header covered <"$work/printed"
"$work/traps-freestanding" >"$work/printed" ||
    fail "$(grep ^FAILED "$work/printed" || echo "the freestanding archive trapped")"
tail -1 "$work/printed"
header covered jostle_pool_start jostle_pool_run jostle_pool_stop <"$work/printed"

say "symbols"
exported=$(nm -D --defined-only "$hosted/libjostle.so" | awk '{print $3}' | sort)
diff <(header functions | sort) <(echo "$exported") || fail "libjostle.so exports other functions than the header's"

# examine TOOLS ARCHIVE [LD'S ARGUMENTS...]: links the functions of a freestanding archive and their dependencies into
# one object, and checks its undefined symbols and its calls of panics.
examine() {
    local tools=$1 archive=$2 object=$work/collected.o functions without_checkpoints callers
    shift 2
    collect() { "${tools}ld" "$@" -r --gc-sections -o "$object" "$archive" 2>"$work/ld.txt"; }
    mapfile -t functions < <(header functions | grep -v '^jostle_pool_' | sed s/^/-u/)
    mapfile -t without_checkpoints < <(printf '%s\n' "${functions[@]}" | grep -vE '^-ujostle_(checkpoint|slots)_')

    collect "$@" "${functions[@]}"
    # Not nm: some versions read the compiler's intermediate code in the archive instead of the object code.
    "${tools}readelf" -sW "$object" >"$work/symbols"
    for function in "${functions[@]#-u}"; do
        grep -q "FUNC.* $function\$" "$work/symbols" || fail "$archive lacks $function"
    done
    awk '$7 == "UND" && $8 != "" {print $8}' "$work/symbols" | sort -u >"$work/needed"
    unlisted=$(grep -v '^#' ffi/archive/needs.txt | sort | comm -23 "$work/needed" - | xargs)
    [ -z "$unlisted" ] || fail "$archive needs what ffi/archive/needs.txt doesn't list: $unlisted"

    # Rust's core library keeps checks that cannot fail where it converts floats to text and back.
    callers=$("${tools}objdump" -dr "$object" 2>"$work/objdump.txt" |
        awk '/^[0-9a-f]+ <.*>:$/ {caller = $2} /R_.*(panicking|slice_index|unwrap_failed|expect_failed)/ {print caller}' |
        sort -u | grep -vE '4core(9panicking|5slice5index|3num|3fmt5float)' || true)
    [ -z "$callers" ] || fail "$archive: these functions can reach a panic: $callers"

    # Only checkpoints convert floats.
    collect "$@" "${without_checkpoints[@]}"
    ! "${tools}readelf" -sW "$object" | grep panicking || fail "$archive: the symbols above panic"
    echo "$archive: $(grep -vc '^$' "$work/needed" || true) symbols needed, no panic"
}
examine "" "$freestanding"

say "processors without an operating system"
packages gcc-arm-none-eabi libnewlib-arm-none-eabi binutils-arm-none-eabi binutils-riscv64-unknown-elf ||
    not_run "C tests: need cross tools (Debian: gcc-arm-none-eabi libnewlib-arm-none-eabi binutils-riscv64-unknown-elf)"
for target in thumbv7em-none-eabihf thumbv8m.main-none-eabihf riscv32imafc-unknown-none-elf; do
    build_archive $target
    case $target in
        thumb*) examine arm-none-eabi- "$archive" ;;
        riscv32*) examine riscv64-unknown-elf- "$archive" -m elf32lriscv ;;
    esac
done
# A whole program that calls every function.
arm-none-eabi-gcc -std=c99 -Os "${warnings[@]}" -DFREESTANDING -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard \
    --specs=nosys.specs -Wl,--gc-sections -o "$work/cortex-m4" ffi/tests/bad_input.c \
    "$CARGO_TARGET_DIR/thumbv7em-none-eabihf/library/libjostle.a" -lm 2>"$work/newlib.txt" ||
    fail "$(cat "$work/newlib.txt")"
arm-none-eabi-size "$work/cortex-m4"
