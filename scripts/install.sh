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

# The system libraries that `rustc --print native-static-libs` names; scripts/test/c/install.sh compares.
case $(uname -s) in
    Darwin)
        shared=libjostle.$version.dylib soname=libjostle.$series.dylib plain=libjostle.dylib
        system_libraries="-lSystem -lm"
        ;;
    *)
        shared=libjostle.so.$version soname=libjostle.so.$series plain=libjostle.so
        system_libraries="-lgcc_s -lutil -lrt -lpthread -lm -ldl"
        ;;
esac

# fill TEMPLATE SYSTEM_LIBRARIES DIRECTORY
fill() {
    sed -e "s|@PREFIX@|$PREFIX|" -e "s|@VERSION@|$version|" -e "s|@SHARED@|$shared|" -e "s|@SONAME@|$soname|" \
        -e "s|@SYSTEM_LIBRARIES@|$2|" "ffi/install/$1.in" >"$3/$1"
    chmod 644 "$3/$1"
}

install -d "$to/bin" "$to/include" "$to/lib/pkgconfig" "$to/lib/cmake/jostle"
install -m 755 "$CARGO_TARGET_DIR/release/jostle-plan" "$to/bin"
install -m 644 include/jostle.h "$to/include"
install -m 644 "$CARGO_TARGET_DIR/library/libjostle.a" "$to/lib"
install -m 755 "$CARGO_TARGET_DIR/library/$plain" "$to/lib/$shared"
ln -sf "$shared" "$to/lib/$soname"
ln -sf "$soname" "$to/lib/$plain"
fill jostle.pc "$system_libraries" "$to/lib/pkgconfig"
fill jostle-config.cmake "${system_libraries// /;}" "$to/lib/cmake/jostle"
fill jostle-config-version.cmake "" "$to/lib/cmake/jostle"
