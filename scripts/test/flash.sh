#!/usr/bin/env bash
# Proves that the core links for a Cortex-M4F without an operating system, an allocator or a way to panic, compiled for
# speed and for size. If it does not, names the source lines that can reach a panic.
#
# Prints the flash (code and constants) of three programs, and fails if one exceeds its bar: `training` initialises,
# trains and evaluates; `generation` also generates; `engine` also saves and resumes. Each is built with GPT-2 alone, and
# with the Llama family.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

target=thumbv7em-none-eabihf
# Bytes for each profile (core/link-proof/Cargo.toml; "release" has opt-level 3, "small" has "s") and program.
declare -A bars=(
    [release training]=54500 [release generation]=59450 [release engine]=84750
    [small training]=50500 [small generation]=53800 [small engine]=70400
    [release training llama]=69900 [release generation llama]=74650 [release engine llama]=101350
    [small training llama]=61250 [small generation llama]=64750 [small engine llama]=83300
)
flags="-C link-arg=--gc-sections -C link-arg=-emain"

programs arm-none-eabi-nm || packages binutils-arm-none-eabi ||
    not_run "link proof: needs arm-none-eabi binutils (Debian: binutils-arm-none-eabi)"
bare_cargo $target "link proof"
rustup_has $target || flags+=" -C linker=arm-none-eabi-ld -C linker-flavor=ld"

link() {
    local profile=$1
    shift
    (cd core/link-proof &&
        CARGO_TARGET_THUMBV7EM_NONE_EABIHF_RUSTFLAGS="$flags $*" \
            "${cargo[@]}" build --locked --quiet --profile "$profile" --features "$family" --target $target)
}

passed=true
for build in release small "release llama" "small llama"; do
    read -r profile family <<<"$build"
    binaries=$CARGO_TARGET_DIR/$target/$profile
    if ! link $profile; then
        echo "FAILED at profile $profile; what can reach a panic:" >&2
        link $profile -C link-arg=--defsym=panic_path_is_reachable=0
        arm-none-eabi-objdump -d "$binaries/link-proof" |
            awk '/\t(bl|b|b\.w|b\.n)\t.*<.*(panicking|unwrap_failed|expect_failed|slice_index)/ {sub(":", "", $1); print $1}' |
            while read -r address; do
                arm-none-eabi-addr2line -i -f -C -e "$binaries/link-proof" "0x$address"
                echo
            done >&2
        exit 1
    fi
    if arm-none-eabi-nm "$binaries/link-proof" | grep -E 'rust_alloc|rust_dealloc|malloc'; then
        fail "the symbols above allocate"
    fi
    for program in training generation engine; do
        flash=$(arm-none-eabi-size "$binaries/$program" | awk 'NR == 2 {print $1 + $2}')
        bar=${bars[$profile $program${family:+ $family}]}
        echo "$program${family:+ with the Llama family} at profile $profile: $flash bytes of flash, bar $bar"
        if ((flash > bar)); then
            echo "FAILED: more than the bar" >&2
            passed=false
        fi
    done
done
$passed
echo "link proof: no panic path, no allocator"
