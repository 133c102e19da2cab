#!/usr/bin/env bash
# Runs the tests, two parts at a time:
#     scripts/test.sh               # every part
#     scripts/test.sh core python   # some parts
#     scripts/test.sh soak          # the long versions, which take hours: 20 minutes for each target of the fuzzer, ...
#
# When a part ends, prints its name, its time and the closing lines of its test runners. After a failure it also prints
# the end of the part's log, or the whole log under CI. The logs are in target/test-logs. docs/testing.md describes the
# parts.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# Two parts run at a time, because linkers and emulators keep only one core busy. The short parts are last, so that both
# lanes end at about the same time.
parts=(python core c contract device machines fuzz sanitizers interleavings supply flash counts)
tail_lines=60

if [ "$*" = soak ]; then exec scripts/test/soak.sh; fi
for part; do
    [[ " ${parts[*]} " == *" $part "* ]] || fail "no such part: $part; the parts are: ${parts[*]}"
done
selected=()
for part in "${parts[@]}"; do
    [[ $# -gt 0 && " $* " != *" $part "* ]] || selected+=("$part")
done

JOSTLE_INSTRUCTION_SETS=$(instruction_sets)
export JOSTLE_INSTRUCTION_SETS
echo "instruction sets: $JOSTLE_INSTRUCTION_SETS"
logs=$CARGO_TARGET_DIR/test-logs
mkdir -p "$logs"
# A folder for each part that a lane has taken.
taken=$(mktemp -d)
trap 'rm -rf "$taken"' EXIT

# Runs a part, and prints its report in one piece, so that the reports of two lanes do not mix.
run_part() {
    local part=$1 log=$logs/$1.log begin=$SECONDS processor before result=passed report
    count_processor
    before=$processor
    "scripts/test/$part.sh" >"$log" 2>&1 || result=FAILED
    count_processor
    report="== $part: $result in $(duration $((SECONDS - begin)))"
    report+=" (processor $(duration $((processor - before)))), log: $log"
    # The lines of `step`, the closing lines of test runners, and the steps that did not run.
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
        # This is atomic, so only one lane takes a part.
        mkdir "$taken/$part" 2>/dev/null || continue
        if [ "$part" = device ]; then
            # It uses the Python package that `python` installs.
            while [ -e "$taken/python" ] && [ ! -e "$taken/python/ended" ]; do sleep 1; done
        fi
        run_part "$part" || passed=false
        touch "$taken/$part/ended"
    done
    $passed
}

# Without this an interrupt would leave the lanes' programs running.
trap 'trap - INT TERM; kill 0' INT TERM
begin=$SECONDS
result=passed
run_lane "${selected[@]}" &
other=$!
run_lane "${selected[@]}" &
wait $! || result=FAILED
wait $other || result=FAILED
echo "== tests: $result in $(duration $((SECONDS - begin)))"
[ $result = passed ]
