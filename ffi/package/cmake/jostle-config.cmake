# find_package(jostle): the imported target jostle::jostle. It is the archive for the processor and the float ABI that the
# C compiler's flags name. Where CMake does not know these flags, set JOSTLE_FLAGS to them, for example
# "-mcpu=cortex-m4 -mfloat-abi=hard" or "-march=rv32imafc -mabi=ilp32f".
cmake_minimum_required(VERSION 3.17)
include("${CMAKE_CURRENT_LIST_DIR}/archive.cmake")

if(NOT JOSTLE_FLAGS)
    set(JOSTLE_FLAGS "${CMAKE_C_FLAGS}")
endif()
jostle_archive(jostle_found "${JOSTLE_FLAGS}")

if(NOT jostle_found)
    set(jostle_FOUND FALSE)
    set(jostle_NOT_FOUND_MESSAGE
        "jostle has no archive for the flags '${JOSTLE_FLAGS}'; set JOSTLE_FLAGS to the compiler's flags if they are others")
elseif(NOT TARGET jostle::jostle)
    get_filename_component(jostle_headers "${CMAKE_CURRENT_LIST_DIR}/../src" ABSOLUTE)
    add_library(jostle::jostle STATIC IMPORTED)
    set_target_properties(jostle::jostle PROPERTIES
        IMPORTED_LOCATION "${jostle_found}"
        INTERFACE_INCLUDE_DIRECTORIES "${jostle_headers}")
endif()
