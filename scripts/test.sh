#!/usr/bin/env bash
# Runs the tests, two parts at a time:
#     scripts/test.sh               # every part
#     scripts/test.sh core python   # some parts
#
# When a part ends, prints its name, its time and the closing lines of its test runners. After a failure it also prints
# the end of the part's log, or the whole log under CI. The logs are in target/test-logs. docs/testing.md describes the
# parts.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# The two lanes run side by side, because linkers and emulators keep only one core busy. `device` follows `python`, whose
# package it uses.
lanes=("core contract c" "python device flash counts")
tail_lines=60

parts=" ${lanes[*]} "
for part; do
    [[ $parts == *" $part "* ]] || fail "no such part: $part; the parts are:$parts"
done
selected=" ${*:-$parts} "

JOSTLE_INSTRUCTION_SETS=$(instruction_sets)
export JOSTLE_INSTRUCTION_SETS
echo "instruction sets: $JOSTLE_INSTRUCTION_SETS"
logs=$CARGO_TARGET_DIR/test-logs
mkdir -p "$logs"

# Runs a part, and prints its report in one piece, so that the reports of two lanes do not mix.
run_part() {
    local part=$1 log=$logs/$1.log begin=$SECONDS processor before result=passed report
    count_processor
    before=$processor
    "scripts/test/$part.sh" >"$log" 2>&1 || result=FAILED
    count_processor
    report="== $part: $result in $(duration $((SECONDS - begin)))"
    report+=" (processor $(duration $((processor - before)))), log: $log"
    # What `step` writes, test runners' closing lines, and what was left out.
    report+=$'\n'$(grep -aE '^(    step |test result: |NOT RUN: |(=+ )?[0-9]+ (passed|failed|skipped|error).* in )' "$log" || true)
    if [ $result = FAILED ]; then
        if [ -n "${CI:-}" ]; then report+=$'\n'$(cat "$log"); else report+=$'\n'$(tail -n $tail_lines "$log"); fi
        report+=$'\n'"== $part: FAILED, log: $log"
    fi
    printf '%s\n' "$report"
    [ $result = passed ]
}

run_lane() {
    local part passed=true
    for part; do
        [[ $selected != *" $part "* ]] || run_part "$part" || passed=false
    done
    $passed
}

# Without this an interrupt would leave the lanes' programs running.
trap 'trap - INT TERM; kill 0' INT TERM
begin=$SECONDS
lane_processes=()
for lane in "${lanes[@]}"; do
    # shellcheck disable=SC2086 # words
    run_lane $lane &
    lane_processes+=($!)
done
result=passed
for process in "${lane_processes[@]}"; do wait "$process" || result=FAILED; done
echo "== tests: $result in $(duration $((SECONDS - begin)))"
[ $result = passed ]
