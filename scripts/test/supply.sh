#!/usr/bin/env bash
# Checks what comes with the crate and what it promises: the oldest compiler, licences and sources of dependencies, and the
# public items. The last are compared with core/public-api.txt, which JOSTLE_WRITE_API=1 writes:
#     JOSTLE_WRITE_API=1 scripts/test/supply.sh public_api
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

oldest_compiler() {
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    { programs rustup && rustup toolchain install "$version" --profile minimal --no-self-update; } ||
        not_run "oldest compiler: needs 'rustup toolchain install $version'"
    CARGO_TARGET_DIR=$CARGO_TARGET_DIR/oldest cargo "+$version" check --locked \
        -p jostle -p jostle-pool -p jostle-ffi -p jostle-plan --features jostle-ffi/hosted
}

# Known vulnerabilities are not looked up: that needs the network.
dependencies() {
    programs cargo-deny || cargo install --locked --quiet cargo-deny
    cargo deny --offline check bans licenses sources
}

public_api() {
    local found=$CARGO_TARGET_DIR/public-api.txt
    # rustdoc's JSON is not stable: the listing reads the format of one release.
    RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$CARGO_TARGET_DIR/public-api \
        cargo rustdoc --locked -p jostle --lib -- -Z unstable-options --output-format json
    cargo run --locked --quiet --manifest-path scripts/public-api/Cargo.toml -- \
        "$CARGO_TARGET_DIR/public-api/doc/jostle.json" >"$found"
    [ -z "${JOSTLE_WRITE_API:-}" ] || cp "$found" core/public-api.txt
    diff -u core/public-api.txt "$found" ||
        fail "public items have changed: say so in CHANGELOG.md, and run JOSTLE_WRITE_API=1 scripts/test/supply.sh public_api"
}

if [ $# -gt 0 ]; then
    "$@"
else
    step oldest_compiler
    step public_api
    # cargo-deny takes many minutes to build.
    [ -z "${JOSTLE_SOAK:-}" ] || step dependencies
fi
