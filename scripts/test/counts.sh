#!/usr/bin/env bash
# Counts the instructions of one training step under valgrind, and fails if a count is more than 5 % above the figure in
# benches/instructions.txt:
#     scripts/test/counts.sh
#     scripts/test/counts.sh --renew   # writes the counts there instead
#
# A count is the difference between runs of two steps and of one, so that start-up cancels out. It does not depend on
# the speed or load of the machine, but a new compiler may change it.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

sets=$(instruction_sets)
# valgrind supports no instruction set above AVX2.
[[ ,$sets, == *,avx2,* ]] || not_run "instruction counts: need a processor with AVX2, this one has $sets"
programs valgrind || packages valgrind libc6-dbg ||
    not_run "instruction counts: need valgrind (Debian: valgrind libc6-dbg)"

figures=benches/instructions.txt
cargo build --locked --quiet --release -p jostle-benches --no-default-features --bin instructions

# total SIZES STEPS: the instructions of a whole run.
total() {
    local log
    log=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        "$CARGO_TARGET_DIR/release/instructions" "$1" "$2" 2>&1) || {
        echo "$log" >&2
        return 1
    }
    grep -oP 'Collected : \K[0-9]+' <<<"$log"
}

# Comments first, then a name, V,T,L,H,C,B and a count on each line.
mapfile -t comments < <(grep '^#' "$figures")
mapfile -t lines < <(grep -v '^#' "$figures")
passed=true
renewed=()
for line in "${lines[@]}"; do
    read -r name sizes before <<<"$line"
    one=$(total "$sizes" 1)
    two=$(total "$sizes" 2)
    now=$((two - one))
    renewed+=("$name $sizes $now")
    change=$(awk -v before="$before" -v now="$now" 'BEGIN { printf "%+.2f", (now / before - 1) * 100 }')
    echo "$name: $now instructions a step, $change % from the $before of $figures"
    if ((now <= 0)); then
        fail "two steps took no more instructions than one"
    elif ((now * 100 > before * 105)); then
        passed=false
    elif ((now * 100 < before * 95)); then
        echo "$name: renew the figure with scripts/test/counts.sh --renew" >&2
    fi
done
if [ "${1:-}" = --renew ]; then
    printf '%s\n' "${comments[@]}" "${renewed[@]}" >"$figures"
elif ! $passed; then
    fail "a training step takes more instructions than before; if that is intended: scripts/test/counts.sh --renew"
fi
