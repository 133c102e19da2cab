# CMake's toolchain file for a Cortex-M4 with a floating-point unit:
#     cmake -S examples/firmware -B build -DCMAKE_TOOLCHAIN_FILE=.../toolchains/cortex-m4f.cmake
# For another Cortex-M, change the processor's flags.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_ASM_COMPILER arm-none-eabi-gcc)
# CMake's test programs for the compiler have no start-up code.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)

set(processor "-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16")
set(CMAKE_C_FLAGS_INIT "${processor} -ffunction-sections -fdata-sections")
set(CMAKE_ASM_FLAGS_INIT "${processor}")
