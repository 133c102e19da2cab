#!/usr/bin/env bash
# Installs header, libraries, files for pkg-config and CMake, and jostle-plan into $DESTDIR$PREFIX. `make install` builds
# them first.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

case $PREFIX in
    /*) ;;
    *) fail "PREFIX must be an absolute path: $PREFIX" ;;
esac
to=${DESTDIR:-}$PREFIX
version=$(library_version)
series=$(library_series)

# The system libraries of programs that link libjostle.a. The compiler adds its own.
case $(uname -s) in
    Darwin)
        shared=libjostle.$version.dylib soname=libjostle.$series.dylib plain=libjostle.dylib
        system_libraries="-lSystem -lm"
        ;;
    *)
        shared=libjostle.so.$version soname=libjostle.so.$series plain=libjostle.so
        system_libraries="-lpthread -ldl -lm"
        ;;
esac

# fill TEMPLATE SYSTEM_LIBRARIES DIRECTORY
fill() {
    sed -e "s|@PREFIX@|$PREFIX|" -e "s|@VERSION@|$version|" -e "s|@SHARED@|$shared|" -e "s|@SONAME@|$soname|" \
        -e "s|@SYSTEM_LIBRARIES@|$2|" "ffi/install/$1.in" >"$3/$1"
    chmod 644 "$3/$1"
}

# single TO: makes an archive with one object, in which only jostle's functions are visible, so that it does not collide
# with the standard library in other archives of Rust code. It has no debug information.
single() {
    local built=$CARGO_TARGET_DIR/library/libjostle.a object functions
    if [ "$(uname -s)" = Darwin ]; then
        install -m 644 "$built" "$1"
        return
    fi
    object=$(mktemp -d)/jostle.o
    mapfile -t functions < <(nm "$built" 2>/dev/null | awk '$2 == "T" && $3 ~ /^jostle_/ { print "-u" $3 }')
    # Groups would let the linker replace a hidden symbol by another archive's.
    ld -r --gc-sections --force-group-allocation "${functions[@]}" -o "$object" "$built"
    objcopy --strip-debug --wildcard --keep-global-symbol='jostle_*' "$object"
    rm -f "$1"
    ar rcs "$1" "$object"
    chmod 644 "$1"
    rm -r "${object%/*}"
}

install -d "$to/bin" "$to/include" "$to/lib/pkgconfig" "$to/lib/cmake/jostle" "$to/share/jostle"
install -m 755 "$CARGO_TARGET_DIR/release/jostle-plan" "$to/bin"
strip -S "$to/bin/jostle-plan"
install -m 644 include/jostle.h "$to/include"
install -m 644 ffi/install/valgrind.supp "$to/share/jostle"
single "$to/lib/libjostle.a"
install -m 755 "$CARGO_TARGET_DIR/library/$plain" "$to/lib/$shared"
ln -sf "$shared" "$to/lib/$soname"
ln -sf "$soname" "$to/lib/$plain"
fill jostle.pc "$system_libraries" "$to/lib/pkgconfig"
fill jostle-config.cmake "${system_libraries// /;}" "$to/lib/cmake/jostle"
fill jostle-config-version.cmake "" "$to/lib/cmake/jostle"
