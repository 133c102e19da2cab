# CMake's toolchain file for a RISC-V with 32 bits and floats.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR riscv32)
set(CMAKE_C_COMPILER riscv64-unknown-elf-gcc)
set(CMAKE_ASM_COMPILER riscv64-unknown-elf-gcc)
# CMake's test programs for the compiler have no start-up code.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)

set(processor "-march=rv32imafc_zicsr -mabi=ilp32f -mcmodel=medany")
set(CMAKE_C_FLAGS_INIT "${processor} -ffunction-sections -fdata-sections")
set(CMAKE_ASM_FLAGS_INIT "${processor}")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-melf32lriscv")
