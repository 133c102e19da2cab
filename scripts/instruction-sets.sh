#!/usr/bin/env bash
# Prints the instruction sets that this machine has, e.g. "portable,avx2", as the system and not the library
# tells it. Exported as JOSTLE_INSTRUCTION_SETS it is what the tests must find: they fail where the library
# does not offer a set named there, so that a set can't go untested in silence. Where the variable is not
# set, they test every set that `InstructionSet::named` gives.
set -euo pipefail

sets=portable
case $(uname -m) in
    aarch64 | arm64) sets+=,neon ;;
esac
if [ -r /proc/cpuinfo ]; then
    flags=" $(grep -m1 '^flags' /proc/cpuinfo || true) "
    has() {
        local flag
        for flag; do [[ $flags == *" $flag "* ]] || return 1; done
    }
    if has avx2 fma; then sets+=,avx2; fi
    if has avx512f avx512dq; then sets+=,avx512; fi
fi
echo "$sets"
