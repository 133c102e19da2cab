#!/usr/bin/env bash
# Makes target/package/jostle: archives for processors without an operating system, the header, and examples. CMake
# finds this folder as a package, Zephyr uses it as a module, ESP-IDF as a component, and Arduino and PlatformIO as a
# library.
#     scripts/package.sh [TARGET...]   # only these Rust targets
#
# Environment variables for the manifests: URL is the repository, MAINTAINER a name, EMAIL an address. A library to be
# published needs all three; without one, the manifests leave it out.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

to=$CARGO_TARGET_DIR/package/jostle

mapfile -t targets < <(grep -v '^#' ffi/package/targets.txt)
[ $# -gt 0 ] || set -- "${targets[@]%% *}"

version=$(library_version)
description=$(sed -n 's/^description = "\(.*\)"$/\1/p' Cargo.toml)
fill() {
    local absent=()
    [ -n "${URL:-}" ] || absent+=(-e /@URL@/d)
    [ -n "${EMAIL:-}" ] || absent+=(-e 's/ <@EMAIL@>//' -e 's/, "email": "@EMAIL@"//')
    sed "${absent[@]}" -e "s|@VERSION@|$version|" -e "s|@DESCRIPTION@|$description|" -e "s|@URL@|${URL:-}|" \
        -e "s|@MAINTAINER@|${MAINTAINER:-The jostle contributors}|" -e "s|@EMAIL@|${EMAIL:-}|" "$1"
}

rm -rf "$to"
mkdir -p "$to/src"
cp -R ffi/package/{cmake,toolchains,zephyr,extras,examples} "$to"
fill ffi/install/jostle-config-version.cmake.in >"$to/cmake/jostle-config-version.cmake"
cp ffi/package/CMakeLists.txt "$to"
for file in library.json library.properties idf_component.yml; do fill "ffi/package/$file.in" >"$to/$file"; done
cp LICENSE-APACHE LICENSE-MIT "$to"
sed 's|../benches/results/||' docs/firmware.md >"$to/README.md"
cp benches/results/device.md "$to"
cp include/jostle.h "$to/src"
# The words that Arduino's editor highlights.
{
    sed -nE 's/^typedef .*[ *(](jostle_[a-z_0-9]+)[ ;)].*/\1\tKEYWORD1/p' include/jostle.h | sort -u
    sed -nE 's/^[a-z].*[ *](jostle_[a-z_0-9]+)\(.*/\1\tKEYWORD2/p' include/jostle.h | sort -u
    sed -nE 's/^    (JOSTLE_[A-Z_0-9]+) = .*/\1\tLITERAL1/p' include/jostle.h
} >"$to/keywords.txt"

for target; do
    folders=
    for line in "${targets[@]}"; do
        [ "${line%% *}" != "$target" ] || folders=${line#* }
    done
    [ -n "$folders" ] || fail "no such target: $target"
    build_archive "$target"
    # Without the attributes of its float ABI, ld links the archive with programs of both; jostle.h declares the functions
    # with floats accordingly. The other archives have no such attribute.
    case $target in
        thumb*) objcopy=arm-none-eabi-objcopy debian=binutils-arm-none-eabi ;;
        *) objcopy=riscv64-unknown-elf-objcopy debian=binutils-riscv64-unknown-elf ;;
    esac
    programs $objcopy || packages $debian || not_run "package: needs $objcopy (Debian: $debian)"
    # The C compilers mark no stack; ld would warn of their objects beside a marked one.
    remove=(--strip-debug --remove-section=.note.GNU-stack)
    [[ $target != thumb*hf ]] || remove+=(--remove-section=.ARM.attributes)
    for folder in $folders; do
        mkdir -p "$to/src/$folder"
        $objcopy "${remove[@]}" "$archive" "$to/src/$folder/libjostle.a"
    done
done

# The examples include the sizes of their static arrays.
cp -R ffi/examples/firmware "$to/examples"
rm "$to/examples/firmware/hosted.c"
built_in "$to/examples/firmware"
for example in firmware Train; do
    cargo run --locked --quiet --release -p jostle-plan -- --vocab 27 --context 16 --layers 1 --heads 4 --width 16 \
        --dropout 0.1 --device -o "$to/examples/$example/model.h"
done
echo "$to"
