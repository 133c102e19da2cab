from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
processor = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]
env.Replace(CC="arm-none-eabi-gcc", LINK="arm-none-eabi-gcc", PROGSUFFIX=".elf")
env.Append(
    CCFLAGS=processor,
    ASPPFLAGS=["-xassembler-with-cpp", "-Wa,-I$PROJECT_SRC_DIR", *processor],
    LINKFLAGS=[*processor, "-nostdlib", "-Tmps2.ld", "-Wl,--gc-sections"],
    LIBPATH=["$PROJECT_SRC_DIR"],
    LIBS=["gcc"],
)
Default(env.BuildProgram())
