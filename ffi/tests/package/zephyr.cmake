# As much of Zephyr as the module's CMakeLists.txt calls: cmake -DPACKAGE=... -DCONFIG_...=y -P zephyr.cmake
function(zephyr_include_directories)
    message(STATUS "headers ${ARGN}")
endfunction()
function(zephyr_link_libraries)
    message(STATUS "links ${ARGN}")
endfunction()
include("${PACKAGE}/zephyr/CMakeLists.txt")
