# find_package(jostle): the imported target jostle::jostle. It is the archive for the processor that the C compiler's
# flags name: -mcpu and -mfloat-abi on Arm, -march on RISC-V. Without such flags, set JOSTLE_PROCESSOR (cortex-m4,
# rv32imafc), and set JOSTLE_HARD if floats are passed in registers of an Arm's floating-point unit.
cmake_minimum_required(VERSION 3.17)
include("${CMAKE_CURRENT_LIST_DIR}/archive.cmake")

set(jostle_flags "${CMAKE_C_FLAGS} ${CMAKE_CXX_FLAGS}")
if(NOT JOSTLE_PROCESSOR AND jostle_flags MATCHES "-m(cpu|arch)=([a-z0-9-]+)")
    set(JOSTLE_PROCESSOR ${CMAKE_MATCH_2})
    if(jostle_flags MATCHES "-mfloat-abi=hard")
        set(JOSTLE_HARD TRUE)
    endif()
endif()
jostle_archive(jostle_found "${JOSTLE_PROCESSOR}" "${JOSTLE_HARD}")

if(NOT jostle_found)
    set(jostle_FOUND FALSE)
    set(jostle_NOT_FOUND_MESSAGE
        "no archive for the processor '${JOSTLE_PROCESSOR}', flags '${jostle_flags}'; JOSTLE_PROCESSOR chooses one")
elseif(NOT TARGET jostle::jostle)
    get_filename_component(jostle_headers "${CMAKE_CURRENT_LIST_DIR}/../src" ABSOLUTE)
    add_library(jostle::jostle STATIC IMPORTED)
    set_target_properties(jostle::jostle PROPERTIES
        IMPORTED_LOCATION "${jostle_found}"
        INTERFACE_INCLUDE_DIRECTORIES "${jostle_headers}")
endif()
