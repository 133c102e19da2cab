# Says which archive the package finds for some flags: cmake -DPACKAGE=... -DFLAGS=... -P flags.cmake
include("${PACKAGE}/cmake/archive.cmake")
jostle_archive(found "${FLAGS}")
message(STATUS "links ${found}")
