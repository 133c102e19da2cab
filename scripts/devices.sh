# The emulated devices: how to build for them, and how to run on them. Sourced after lib.sh.

# Name, Rust target, steps, linker script, start-up code, emulator, and the C compiler with its options. Processors
# without a floating-point unit take fewer steps because each is slow. QEMU's only Cortex-M0 has too little memory, so
# thumbv6m runs on a Cortex-M3, which executes the same code.
arm="arm-none-eabi-gcc -mthumb"
riscv="riscv64-unknown-elf-gcc -mcmodel=medany -Wl,-melf32lriscv"
virt="qemu-system-riscv32 -M virt -bios none"
targets=(
    "cortex-m4|thumbv7em-none-eabihf|200|mps2.ld|cortex_m.c|qemu-system-arm -M mps2-an386|$arm -mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16"
    "cortex-m7|thumbv7em-none-eabihf|200|mps2.ld|cortex_m.c|qemu-system-arm -M mps2-an500|$arm -mcpu=cortex-m7 -mfloat-abi=hard -mfpu=fpv5-sp-d16"
    "cortex-m33|thumbv8m.main-none-eabihf|200|mps2_an505.ld|cortex_m.c|qemu-system-arm -M mps2-an505|$arm -mcpu=cortex-m33 -mfloat-abi=hard -mfpu=fpv5-sp-d16"
    "rv32imafc|riscv32imafc-unknown-none-elf|200|virt.ld|riscv.S|$virt|$riscv -march=rv32imafc_zicsr -mabi=ilp32f"
    "thumbv6m|thumbv6m-none-eabi|10|mps2.ld|cortex_m.c|qemu-system-arm -M mps2-an385|$arm -mcpu=cortex-m0 -mfloat-abi=soft"
    "rv32imc|riscv32imc-unknown-none-elf|10|virt.ld|riscv.S|$virt -cpu rv32,f=off,d=off|$riscv -march=rv32imc_zicsr -mabi=ilp32"
)
names=("${targets[@]%%|*}")

# use NAME: sets variables to the fields of a target.
use() {
    local target
    for target in "${targets[@]}"; do
        [[ $target != "$1|"* ]] || break
    done
    IFS='|' read -r name rust steps script start emulator compiler <<<"$target"
    [ "$name" = "$1" ] || fail "no such target: $1"
}

# emulate ELF [OPTION...]: runs a program on the current target, with these options of the emulator.
emulate() {
    # shellcheck disable=SC2086 # words
    timeout 600 $emulator -nographic -monitor none -serial none -semihosting-config enable=on,target=native \
        -kernel "$@"
}
