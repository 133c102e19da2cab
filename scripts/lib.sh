# Sourced by the other scripts, in the repository's folder.

# Where cargo builds, and tests leave what they make.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# Whether all these programs are on the path.
programs() {
    local program
    for program; do command -v "$program" >/dev/null || return 1; done
}

# Succeeds once all these Debian packages are installed; as root it installs what is missing.
packages() {
    local package missing=()
    programs dpkg-query || return 1
    for package; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || return 1
    echo "installing ${missing[*]}" >&2
    # One at a time: two scripts may be running.
    (
        flock 9
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    ) 9>/var/lock/jostle-packages
}

# Ends a script whose tools are missing: under CI that is a failure, elsewhere it is said aloud.
not_run() {
    echo "NOT RUN: $*" >&2
    [ -z "${CI:-}" ]
    exit
}

# Whether rustup has this target; without rustup, Debian's compiler does the cross-building.
rustup_has() {
    programs rustup && rustup target list --installed | grep -qx "$1"
}

# Debian's compiler and cargo, whatever else is on the path. RUSTC_BOOTSTRAP lets it build `core` from source.
debian_cargo() {
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo "$@"
}

# bare_cargo TARGET WHAT: the array `cargo` is what builds for a processor without an operating system. Ends the script,
# which then does not do WHAT, where nothing does.
bare_cargo() {
    cargo=(cargo)
    rustup_has "$1" && return
    packages rustc-web cargo-web rust-web-src ||
        not_run "$2: needs 'rustup target add $1' (Debian: rustc-web cargo-web rust-web-src)"
    cargo=(debian_cargo -Z build-std=core)
}

# build_archive TARGET: as scripts/freestanding.sh, which may not find what it needs; `archive` is where it lies.
build_archive() {
    scripts/freestanding.sh "$1"
    archive=$CARGO_TARGET_DIR/$1/library/libjostle.a
    # Where it could not be built, that has been said.
    [ -e "$archive" ] || exit 0
}

# built_in DIRECTORY: what the firmware has in its flash: the text as tokens, and no checkpoint to begin with.
built_in() {
    tr -d '\n' <ffi/examples/firmware/text.txt | tr 'a-z ' '\000-\032' >"$1/text.tokens"
    : >"$1/checkpoint.safetensors"
}

library_version() {
    local id
    id=$(cargo pkgid --locked -p jostle-archive)
    echo "${id##*[#@]}"
}
