# Sourced by the other scripts, in the repository's folder.

# The folder for cargo's builds and the tests' own files.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# duration SECONDS: as minutes and seconds.
duration() {
    printf '%d min %02d s' $(($1 / 60)) $(($1 % 60))
}

# Sets `processor` to the seconds of processor time that this shell's children have used. In a pipe or a substitution,
# `times` would count another shell's children.
count_processor() {
    local file
    file=$(mktemp)
    times >"$file"
    processor=$(awk -F '[ms ]+' 'NR == 2 { printf "%d", 60 * ($1 + $3) + $2 + $4 }' "$file")
    rm "$file"
}

# step PROGRAM [ARGUMENT...]: runs a script or command of a part, and prints its time and processor time.
step() {
    local begin=$SECONDS processor before result=passed
    count_processor
    before=$processor
    "$@" || result=FAILED
    count_processor
    printf '    step %s: %s in %s (processor %s)\n' "$*" $result "$(duration $((SECONDS - begin)))" \
        "$(duration $((processor - before)))"
    [ $result = passed ]
}

# Prints the instruction sets of this machine, such as "portable,avx2", by what the system says, not the library.
# Tests fail if the library does not offer a set that JOSTLE_INSTRUCTION_SETS names. Without the variable, they use every
# set that the library offers.
instruction_sets() {
    local sets=portable flags
    case $(uname -m) in
        aarch64 | arm64) sets+=,neon ;;
    esac
    if [ -r /proc/cpuinfo ]; then
        flags=" $(grep -m1 '^flags' /proc/cpuinfo || true) "
        [[ $flags != *" avx2 "* || $flags != *" fma "* ]] || sets+=,avx2
        [[ $flags != *" avx512f "* || $flags != *" avx512dq "* ]] || sets+=,avx512
    fi
    echo "$sets"
}

# Whether all these programs are on the path.
programs() {
    local program
    for program; do command -v "$program" >/dev/null || return 1; done
}

# Succeeds once all these Debian packages are installed. As root it installs the missing ones.
packages() {
    local package missing=()
    programs dpkg-query || return 1
    for package; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || return 1
    echo "installing ${missing[*]}" >&2
    # The two lanes of scripts/test.sh may both need packages.
    (
        flock 9
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    ) 9>/var/lock/jostle-packages
}

# Ends a script whose tools are missing. Under CI that is a failure; elsewhere the script says so and succeeds.
not_run() {
    echo "NOT RUN: $*" >&2
    [ -z "${CI:-}" ]
    exit
}

# Whether rustup has this target. Where it has not, Debian's compiler does the cross-building.
rustup_has() {
    programs rustup && rustup target list --installed | grep -qx "$1"
}

# Debian's compiler and cargo, whatever else is on the path. RUSTC_BOOTSTRAP allows building `core` from source.
debian_cargo() {
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo "$@"
}

# bare_cargo TARGET WHAT: sets the array `cargo` to a command that builds for a processor without an operating system.
# Where no compiler does, ends the script with the message that WHAT was not run.
bare_cargo() {
    cargo=(cargo)
    rustup_has "$1" && return
    packages rustc-web cargo-web rust-web-src ||
        not_run "$2: needs 'rustup target add $1' (Debian: rustc-web cargo-web rust-web-src)"
    cargo=(debian_cargo -Z build-std=core)
}

# build_archive TARGET: runs scripts/freestanding.sh, and sets `archive` to the path of the library.
build_archive() {
    scripts/freestanding.sh "$1"
    archive=$CARGO_TARGET_DIR/$1/library/libjostle.a
    # freestanding.sh has said why it is missing.
    [ -e "$archive" ] || exit 0
}

# built_in DIRECTORY: writes the files that are built into the firmware: the text as tokens, and an empty checkpoint.
built_in() {
    tr -d '\n' <ffi/examples/firmware/text.txt | tr 'a-z ' '\000-\032' >"$1/text.tokens"
    : >"$1/checkpoint.safetensors"
}

# The part of the version that must be equal for a program to run with the library: 0.1 of 0.1.2, and 1 of 1.2.3.
library_series() {
    library_version | sed -E 's/^(0\.[0-9]+|[1-9][0-9]*)\..*/\1/'
}

library_version() {
    local id
    id=$(cargo pkgid --locked -p jostle-archive)
    echo "${id##*[#@]}"
}

# The target that sanitizers are built for: cargo gives the flags of a named target to the program, and not to build scripts.
sanitized_host() {
    rustc -vV | sed -n 's/^host: //p'
}

# rustup_component [--toolchain NAME] COMPONENT...: succeeds once rustup has installed these components.
rustup_component() {
    programs rustup && rustup component add "$@"
}
