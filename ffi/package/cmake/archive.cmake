# Sets `result` to the archive for a processor, in GCC's words for it (cortex-m4, rv32imafc), whose calls pass floats
# in registers of an Arm's floating-point unit if `hard`; to nothing where the package has none. The folders are those
# that Arduino looks into: src/PROCESSOR, and below it FPU-hard. For calls, all units are the same.
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
