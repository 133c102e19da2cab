# Sets `result` to the archive for a processor by GCC's name for it (cortex-m4, rv32imafc), or to an empty string if the
# package has none. If `hard`, calls pass floats in registers of an Arm's floating-point unit. The folders follow
# Arduino's rule: src/PROCESSOR, and below it FPU-hard. All floating-point units have the same calling convention.
function(jostle_archive result processor hard)
    set(folder "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../src/${processor}")
    if(hard)
        file(GLOB archives "${folder}/*-hard/libjostle.a")
    else()
        file(GLOB archives "${folder}/libjostle.a")
    endif()
    set(found "")
    foreach(archive IN LISTS archives)
        get_filename_component(found "${archive}" ABSOLUTE)
    endforeach()
    set(${result} "${found}" PARENT_SCOPE)
endfunction()
