#!/usr/bin/env bash
# Builds firmware from the package alone, outside this repository, and runs it under QEMU:
#
#   - The project of docs/firmware.md and the example, with CMake for a Cortex-M4F and a RISC-V.
#   - The example, by PlatformIO's own build system.
#   - The sketch, with the compiler options that Arduino's specification prescribes.
#
# Both float ABIs link the archive for floating-point units, and take the same instructions. A table of boards shows which
# archive each way finds. The package's Zephyr module is checked without Zephyr.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh
. scripts/devices.sh

packages cmake make python3-venv gcc-arm-none-eabi gcc-riscv64-unknown-elf qemu-system-arm qemu-system-misc ||
    programs cmake arm-none-eabi-g++ riscv64-unknown-elf-gcc qemu-system-arm qemu-system-riscv32 ||
    not_run "package: needs CMake, cross-compilers and emulators" \
        "(Debian: cmake gcc-arm-none-eabi gcc-riscv64-unknown-elf qemu-system-arm qemu-system-misc)"

python3 ffi/tests/package/boards.py ffi/package >"$CARGO_TARGET_DIR/boards.txt" 2>&1 ||
    fail "$(grep WRONG "$CARGO_TARGET_DIR/boards.txt")"
echo "package: $(wc -l <"$CARGO_TARGET_DIR/boards.txt") boards find their archives"

URL=https://example.org/jostle MAINTAINER=Jostle EMAIL=jostle@example.org \
    scripts/package.sh thumbv7em-none-eabihf riscv32imafc-unknown-none-elf >/dev/null
# package.sh has said why it is missing.
[ -e "$CARGO_TARGET_DIR/package/jostle/src/rv32imafc/libjostle.a" ] || exit 0

tests=$PWD/ffi/tests/package
benches=$PWD/benches/device
folders=$PWD/ffi/package/targets.txt
guide=$PWD/docs/firmware.md
golden=$(sed -n 's/^step 10: checksum //p' core/tests/golden/device_steps.txt)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R "$CARGO_TARGET_DIR/package/jostle" "$work"
jostle=$work/jostle
cd "$work"

# run TARGET ELF: runs a program with empty flash memory.
run() {
    rm -f flash.bin
    use "$1"
    emulate "$2" >printed.txt 2>&1 || fail "$2: $(cat printed.txt)"
}

# same NAME: checks the checksum of the parameters after ten steps, which is equal on every processor.
same() {
    grep -qx "step 10: checksum $golden" printed.txt ||
        fail "$1 has other parameters after ten steps: $(cat printed.txt)"
    echo "package: $1: $(grep checksum printed.txt)"
}

# The guide's project, without its first commands, which make the package and jostle-plan.
# block LANGUAGE NUMBER: a code block of the guide, counted from 1 in each language.
block() {
    awk -v begin="\`\`\`$1" -v number="$2" '$0 == begin && ++count == number { inside = 1; next }
        /^```$/ { inside = 0 } inside' "$guide"
}
mkdir firmware
block c 1 >firmware/main.c
block cmake 1 >firmware/CMakeLists.txt
(HOME=$work PATH=$CARGO_TARGET_DIR/release:$PATH && eval "$(block sh 2 | grep -v ^mkdir)" && eval "$(block sh 3)") \
    </dev/null >guide.txt 2>&1 || fail "docs/firmware.md: $(cat guide.txt)"
! grep GNU-stack guide.txt || fail "docs/firmware.md: ld warns of the stack"
mapfile -t losses < <(sed -n 's/^loss \([0-9]\)\.\([0-9]*\)$/\1\2/p' guide.txt)
[ ${#losses[@]} -eq 10 ] && [ "${losses[9]}" -lt "${losses[0]}" ] || fail "docs/firmware.md: $(cat guide.txt)"
echo "package: guide: losses ${losses[*]} thousandths"

# The guide's table of bytes.
while IFS='|' read -r _ words bytes _; do
    words=${words//\`/}
    # shellcheck disable=SC2086 # words
    takes=$("$CARGO_TARGET_DIR/release/jostle-plan" --device --vocab 27 --heads 4 $words |
        sed -n 's/.*_TRAINING_SIZE \([0-9]*\)u.*/\1/p')
    [ "$takes" = "${bytes//[ ,]/}" ] || fail "docs/firmware.md: $words takes $takes bytes, not$bytes"
done < <(grep '^| `--' "$guide")

sed s/float-abi=hard/float-abi=softfp/ jostle/toolchains/cortex-m4f.cmake >jostle/toolchains/softfp.cmake
for toolchain in cortex-m4f softfp rv32imafc; do
    { cmake -S jostle/examples/firmware -B "$toolchain" -DCMAKE_PREFIX_PATH="$jostle" \
        -DCMAKE_TOOLCHAIN_FILE="$jostle/toolchains/$toolchain.cmake" -DSTEPS=10 &&
        cmake --build "$toolchain"; } >cmake.txt 2>&1 || fail "CMake: $(cat cmake.txt)"
done
run cortex-m4 cortex-m4f/train
same "CMake, Cortex-M4F"
run cortex-m4 softfp/train
same "CMake, Cortex-M4F, softfp"
run rv32imafc rv32imafc/train
same "CMake, rv32imafc"
# A processor that the package has no archive for.
! cmake -S jostle/examples/firmware -B none -DCMAKE_PREFIX_PATH="$jostle" -DSTEPS=10 -DJOSTLE_FLAGS=-mcpu=cortex-m3 \
    -DCMAKE_TOOLCHAIN_FILE="$jostle/toolchains/cortex-m4f.cmake" >cmake.txt 2>&1 ||
    fail "CMake takes a processor that has no archive"
grep -q "no archive for the flags '-mcpu=cortex-m3'" cmake.txt || fail "CMake: $(cat cmake.txt)"

# For each float ABI, as for an Arduino board whose build.mcu is cortex-m4: the sketch, the functions with floats, and the
# instructions of a step.
mkdir measured
"$CARGO_TARGET_DIR/release/jostle-plan" --vocab 27 --heads 4 --context 16 --layers 1 --width 16 --untied --device \
    -o measured/model.h
sed '1i #include <Arduino.h>' jostle/examples/Train/Train.ino >sketch.cpp
firmware=jostle/examples/firmware
instructions=()
for abi in hard softfp; do
    processor=(-mcpu=cortex-m4 -mthumb -mfloat-abi=$abi -mfpu=fpv4-sp-d16 -ffreestanding -Ijostle/src -I$firmware)
    for source in start semihosting cortex_m; do
        arm-none-eabi-gcc "${processor[@]}" -O2 -c "$firmware/$source.c" -o "$source.o"
    done
    link=(start.o semihosting.o cortex_m.o -nostdlib -L$firmware -T mps2.ld -Wl,--gc-sections
        -Ljostle/src/cortex-m4/fpv4-sp-d16-$abi -ljostle -lgcc)
    arm-none-eabi-g++ "${processor[@]}" -std=gnu++17 -Os -fno-exceptions -fno-rtti -fno-threadsafe-statics -Wall -Wextra \
        -Werror -I"$tests" -Ijostle/examples/Train sketch.cpp "${link[@]}" -o sketch.elf
    run cortex-m4 sketch.elf
    mapfile -t losses < <(sed -n 's/^step [0-9]*: loss \([0-9]*\) thousandths$/\1/p' printed.txt)
    [ ${#losses[@]} -eq 2 ] && [ "${losses[1]}" -lt "${losses[0]}" ] ||
        fail "the sketch's loss does not fall: $(cat printed.txt)"
    echo "package: sketch, $abi: loss ${losses[0]}, ${losses[1]} thousandths"

    arm-none-eabi-gcc "${processor[@]}" -O2 -Wall -Wextra -Werror "$tests/floats.c" "${link[@]}" -o floats.elf
    run cortex-m4 floats.elf
    arm-none-eabi-gcc -Imeasured "${processor[@]}" -I"$benches" -O2 "$benches"/{measure,counter}.c "${link[@]}" -o measure.elf
    emulate measure.elf -icount shift=0 >printed.txt 2>&1 || fail "measure, $abi: $(cat printed.txt)"
    instructions+=("$(sed -n 's/^instructions //p' printed.txt)")
done
echo "package: a step takes ${instructions[0]} instructions with hard, ${instructions[1]} with softfp"
((instructions[1] * 100 < instructions[0] * 101)) || fail "softfp takes more than 1 % more instructions"

# PlatformIO reads the manifests and builds the firmware by its own build system. Its registry is not reachable
# everywhere, so SCons comes from PyPI, and the test has its own platform.
environment=$CARGO_TARGET_DIR/package-venv
[ -x "$environment/bin/python" ] || python3 -m venv "$environment"
"$environment/bin/python" -m pip install --quiet platformio==6.2.0 scons==4.11.1 kconfiglib==14.1.0 \
    idf-component-manager==3.1.2
PATH=$environment/bin:$PATH
unset PYTHONPATH
python "$tests/manifest.py" jostle "$folders"
export PLATFORMIO_CORE_DIR=$work/platformio PLATFORMIO_SETTING_ENABLE_TELEMETRY=no
tool=$PLATFORMIO_CORE_DIR/packages/tool-scons
mkdir -p "$tool" "$PLATFORMIO_CORE_DIR/platforms" project/lib
cp -R "$tests/platformio" "$PLATFORMIO_CORE_DIR/platforms/emulated"
echo 'import SCons.Script; SCons.Script.main()' >"$tool/scons.py"
echo '{"name": "tool-scons", "version": "4.41101.0"}' >"$tool/package.json"
echo '{"type": "tool", "name": "tool-scons", "version": "4.41101.0", "spec": {"owner": "platformio", "id": 1,' \
    '"name": "tool-scons", "requirements": null, "uri": null}}' >"$tool/.piopm"
cp -R jostle/examples/firmware project/src
rm project/src/riscv.S
cp -R jostle project/lib
cp "$tests/platformio.ini" project
pio run --project-dir project >platformio.txt 2>&1 || fail "PlatformIO: $(cat platformio.txt)"
run cortex-m4 project/.pio/build/emulated/program.elf
same PlatformIO

# Zephyr: its Kconfig file, and the choice of the archive.
PACKAGE=$jostle python -c '
import kconfiglib, sys
kconfig = kconfiglib.Kconfig(sys.argv[1])
kconfig.syms["JOSTLE"].set_value("y")
sys.exit(kconfig.syms["JOSTLE"].str_value != "y" or bool(kconfig.warnings))' "$tests/Kconfig" || fail "Kconfig"
links() {
    local wanted=$1
    shift
    cmake -DPACKAGE="$jostle" -DCONFIG_JOSTLE=y "$@" -P "$tests/zephyr.cmake" >zephyr.txt 2>&1 || true
    grep -qF -- "$wanted" zephyr.txt || fail "Zephyr, $*: $(cat zephyr.txt)"
}
links "links $jostle/src/cortex-m4/fpv4-sp-d16-hard/libjostle.a" -DGCC_M_CPU=cortex-m4 -DCONFIG_FPU=y
links "no archive for -mcpu=cortex-m33+nodsp" -DGCC_M_CPU=cortex-m33+nodsp

# ESP-IDF: the choice of the archive.
component() {
    cmake -DPACKAGE="$jostle" -DIDF_TARGET="$1" -P "$tests/idf.cmake" >idf.txt 2>&1 || true
    grep -qF -- "$2" idf.txt || fail "ESP-IDF, $1: $(cat idf.txt)"
}
component esp32p4 "links $jostle/src/esp32p4/libjostle.a"
component esp32s3 "jostle has no archive for esp32s3"
echo "package: Zephyr's module and ESP-IDF's component were read without these; Arduino's build was not run"
