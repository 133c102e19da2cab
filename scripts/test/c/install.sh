#!/usr/bin/env bash
# Installs the library, and builds C programs as its users do: README's program through pkg-config, CMake and by hand,
# shared and static. Then builds programs whose static arrays have the sizes that jostle-plan writes, for this machine
# and for an emulated Cortex-M4.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh

programs cc c++ cmake pkg-config || packages g++ cmake pkgconf ||
    not_run "install: needs C and C++ compilers, CMake and pkg-config (Debian: g++ cmake pkgconf)"

export CARGO_TERM_COLOR=never
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
warnings=(-std=c99 -O1 -Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror)
tests=ffi/tests/install

# README's prefix, below a temporary home directory; then staged, and moved to another prefix.
prefix=$work/jostle
make install PREFIX="$prefix" DESTDIR=
make install PREFIX="$work/not-here" DESTDIR="$work/stage"
[ ! -e "$work/not-here" ] || fail "make install DESTDIR=... has written outside of it"
mv "$work/stage$work/not-here" "$work/moved"
diff <(cd "$prefix" && find . | sort) <(cd "$work/moved" && find . | sort) ||
    fail "DESTDIR changes what is installed"
grep -qx "prefix=$work/not-here" "$work/moved/lib/pkgconfig/jostle.pc" || fail "jostle.pc names the staging directory"

export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
version=$(pkg-config --modversion jostle)
IFS=. read -r major minor patch <<<"$version"
[ "$("$prefix/bin/jostle-plan" --version)" = "jostle-plan $version" ] ||
    fail "jostle-plan and jostle.pc differ in version"

# What is installed shows jostle's functions alone, and has no debug information.
if [ "$(uname -s)" = Linux ]; then
    others=$(nm "$prefix/lib/libjostle.a" | awk '$2 ~ /^[A-TV-Z]$/ && $3 !~ /^jostle_/ { print $3 }')
    [ -z "$others" ] || fail "libjostle.a shows $others"
    for file in lib/libjostle.a "lib/libjostle.so.$version" bin/jostle-plan; do
        ! readelf -SW "$prefix/$file" | grep -F .debug_info || fail "$file has debug information"
    done
fi

# Beside another archive of Rust code: the standard library is in both.
rustc --edition 2024 --crate-type staticlib $tests/neighbour.rs -o "$work/libneighbour.a"
for kind in "" -static; do
    # shellcheck disable=SC2046,SC2086 # words
    cc "${warnings[@]}" $kind $(pkg-config --cflags jostle) $tests/neighbour.c "$prefix/lib/libjostle.a" \
        "$work/libneighbour.a" -lpthread -ldl -lm -o "$work/neighbour" 2>"$work/ld.txt" || fail "$(cat "$work/ld.txt")"
    "$work/neighbour" || fail "jostle beside another archive of Rust code $kind"
done

# README's program, built by README's own commands.
awk '/^```c$/ {inside = 1; next} /^```$/ {inside = 0} inside' README.md >"$work/train.c"
cc "${warnings[@]}" -Wconversion -fsyntax-only $(pkg-config --cflags jostle) "$work/train.c"
c++ -std=c++20 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ $(pkg-config --cflags jostle) "$work/train.c"
mapfile -t commands < <(grep '^cc .*train\.c' README.md)
[ ${#commands[@]} -eq 3 ] || fail "README has other commands than shared, static and by hand"
names=(shared static by-hand)
for i in "${!names[@]}"; do
    (cd "$work" && HOME=$work && eval "${commands[i]}" -o "${names[i]}") || fail "README: ${commands[i]}"
done

# CMake, with the moved installation.
configure() {
    cmake -S $tests -B "$work/cmake" -DCMAKE_PREFIX_PATH="$work/moved" -DSOURCE="$work/train.c" -DWANTED="$1" \
        >"$work/cmake.txt" 2>&1
}
for refused in "$major.$minor.$((patch + 1))" "$major.$((minor + 1))" "$((major + 1))"; do
    ! configure "$refused" || fail "CMake takes jostle $version for $refused"
    tr -s ' \n' ' ' <"$work/cmake.txt" | grep -qF "compatible with requested version \"$refused\"" ||
        fail "CMake: $(cat "$work/cmake.txt")"
done
for accepted in "" "$major.$minor.$patch" "$major.$minor"; do
    configure "$accepted" || fail "CMake: $(cat "$work/cmake.txt")"
done
cmake --build "$work/cmake" >"$work/cmake.txt" || fail "CMake: $(cat "$work/cmake.txt")"
mv "$work"/cmake/cmake-{shared,static} "$work"

for name in shared static by-hand cmake-shared cmake-static; do
    needed=$(readelf -d "$work/$name" | sed -n 's/.*(NEEDED).*\[\(libjostle.*\)\]/\1/p')
    case $name in
        *shared) [ "$needed" = "libjostle.so.$(library_series)" ] || fail "$name needs ${needed:-no libjostle}" ;;
        *) [ -z "$needed" ] || fail "$name needs $needed" ;;
    esac
    LD_LIBRARY_PATH=$prefix/lib "$work/$name" >"$work/$name.txt" || fail "$name"
    cmp "$work/shared.txt" "$work/$name.txt" || fail "$name prints something else"
done
make uninstall PREFIX="$work/moved" DESTDIR=
[ -z "$(find "$work/moved" ! -type d)" ] || fail "make uninstall leaves $(find "$work/moved" ! -type d)"
echo "install: the same output shared, static and by hand, through pkg-config and CMake"

# Static arrays, on this machine.
"$prefix/bin/jostle-plan" --vocab 27 --context 16 --layers 1 --heads 4 --width 16 >"$work/usual.h"
"$prefix/bin/jostle-plan" --vocab 27 --context 16 --layers 1 --heads 4 --width 16 --prefix tiny_2 -o "$work/named.h"
diff <(sed 1d "$work/usual.h") <(sed -e 1d -e s/tiny_2/MODEL/g "$work/named.h") ||
    fail "--prefix changes more than names"
models=(
    "--vocab 27 --context 16 --layers 1 --heads 4 --width 16"
    "--vocab 300 --context 5 --layers 3 --heads 3 --width 21 --hidden 50 --batch 7 --threads 3 --optimizer momentum"
    "--vocab 64 --context 70 --layers 2 --heads 2 --width 32 --batch 2 --optimizer none --untied --no-bias"
    "--vocab 256 --context 32 --layers 2 --heads 2 --width 32 --activation gelu-tanh --dropout 0.1 --attention-dropout 0.2"
)
plan() {
    # shellcheck disable=SC2086 # words
    "$prefix/bin/jostle-plan" $1 -o "$work/model.h"
    [ "$(head -n1 "$work/model.h")" = "/* jostle-plan $1" ] || fail "jostle-plan tells another command: $1"
}
for model in "${models[@]}"; do
    plan "$model"
    cc "${warnings[@]}" -I"$work" $(pkg-config --cflags jostle) $tests/sizes.c -o "$work/sizes" \
        $(pkg-config --libs jostle)
    c++ -std=c++20 -Wall -Wextra -Wpedantic -Werror -I"$work" $(pkg-config --cflags jostle) -x c++ -fsyntax-only \
        $tests/sizes.c
    echo -n "jostle-plan $model: "
    LD_LIBRARY_PATH=$prefix/lib "$work/sizes"
done
# Settings that do not change the last model's sizes.
for line in "VOCAB 256u" "ACTIVATION JOSTLE_GELU_TANH" "EMBEDDING_DROPOUT 0.1f" "ATTENTION_DROPOUT 0.2f" \
    "ATTENTION_PROJECTION_DROPOUT 0.1f" "MLP_PROJECTION_DROPOUT 0.1f"; do
    grep -qx "#define MODEL_$line" "$work/model.h" || fail "jostle-plan does not write $line"
done

# The plain C step of the devices' benchmark computes the same step as jostle.
for model in "${models[0]} --dropout 0.1" "--vocab 27 --context 8 --layers 3 --heads 2 --width 24 --batch 3 --untied" \
    "--vocab 27 --context 16 --layers 2 --heads 4 --width 16 --optimizer none" \
    "--llama --vocab 27 --context 8 --layers 2 --heads 4 --kv-heads 2 --width 24 --hidden 72 --batch 2" \
    "--llama --vocab 27 --context 8 --layers 1 --heads 3 --kv-heads 1 --head-width 6 --width 20 --untied"; do
    plan "$model"
    family=
    [[ $model != --llama* ]] || family=-DLLAMA
    # shellcheck disable=SC2086 # nothing, or a word
    cc "${warnings[@]}" -std=c11 -O3 -ffast-math $family -I"$work" $(pkg-config --cflags jostle) -c \
        benches/device/plain.c -o "$work/plain.o"
    cc "${warnings[@]}" -std=c11 -I"$work" $(pkg-config --cflags jostle) benches/device/compare.c "$work/plain.o" \
        -o "$work/compare" $(pkg-config --libs jostle) -lm
    echo -n "plain step, $model: "
    LD_LIBRARY_PATH=$prefix/lib "$work/compare"
done

# Invalid models, and an output that cannot be written.
refuse() {
    local message=$1 status=0 said
    shift
    rm -f "$work/refused.h"
    said=$("$prefix/bin/jostle-plan" --vocab 8 --context 8 --layers 1 --width 32 -o "$work/refused.h" "$@" 2>&1) ||
        status=$?
    [ $status -eq 1 ] && [ "$said" = "jostle-plan: $message" ] || fail "jostle-plan $*: status $status, $said"
    [ ! -e "$work/refused.h" ] || fail "jostle-plan $* writes a header"
}
refuse "width 32 is not divisible by heads 3" --heads 3
refuse "batch is 0; expected at least 1" --heads 2 --batch 0
refuse "attention_dropout is 1; expected at least 0 and less than 1" --heads 2 --attention-dropout 1
refuse "parameters is too large for this machine" --heads 2 --hidden 9999999 --device
if [ -c /dev/full ]; then
    status=0
    # shellcheck disable=SC2086 # words
    said=$("$prefix/bin/jostle-plan" ${models[0]} 2>&1 >/dev/full) || status=$?
    [ $status -eq 1 ] && [[ $said == "jostle-plan: standard output: "* ]] ||
        fail "jostle-plan on a full disk: status $status, $said"
fi

# Static arrays, on a Cortex-M4F with the freestanding archive.
target=thumbv7em-none-eabihf
# Packages first: a compiler on the path may lack its C library.
packages gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm ||
    programs arm-none-eabi-gcc qemu-system-arm ||
    not_run "static arrays on a device: needs arm-none-eabi-gcc with newlib and qemu-system-arm" \
        "(Debian: gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm)"
build_archive $target
for model in "${models[0]} --device" "${models[1]} --device" "${models[3]} --device"; do
    plan "$model"
    arm-none-eabi-gcc "${warnings[@]}" -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 \
        --specs=rdimon.specs -Wl,--section-start=.vectors=0,--undefined=vectors,--gc-sections,--no-warn-execstack \
        -I"$work" -Iinclude $tests/sizes.c $tests/cortex_m.c "$archive" \
        -o "$work/sizes.elf"
    echo -n "jostle-plan $model: "
    timeout 120 qemu-system-arm -M mps2-an386 -nographic -semihosting-config enable=on,target=native \
        -kernel "$work/sizes.elf"
done
