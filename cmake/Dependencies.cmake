# What seqmix's own tests, benchmarks and examples use; the library itself needs none of it. The system's copy comes
# first, FetchContent is for what is missing.
include(FetchContent)
if(POLICY CMP0135)
    cmake_policy(SET CMP0135 NEW)
endif()

# seqmix_fetch(<name> <version> <url> [TARGETS <targets...>] [options]): the targets' headers count as the system's, so
# that their warnings are not ours.
function(seqmix_fetch name version url)
    cmake_parse_arguments(PARSE_ARGV 3 arg "" "SOURCE_SUBDIR" "TARGETS")
    set(options "")
    if(arg_SOURCE_SUBDIR)
        set(options SOURCE_SUBDIR ${arg_SOURCE_SUBDIR})
    endif()
    message(STATUS "seqmix: no usable ${name} on this system, fetching ${version}")
    FetchContent_Declare(${name} URL ${url} ${options})
    FetchContent_MakeAvailable(${name})
    foreach(target IN LISTS arg_TARGETS)
        get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
        set_target_properties(${target} PROPERTIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${directories}")
    endforeach()
    string(TOLOWER ${name} lower)
    set(${lower}_SOURCE_DIR ${${lower}_SOURCE_DIR} PARENT_SCOPE)
endfunction()

# seqmix_header_library(<target> <folder>/<header>): headers of the build machine as a target. When cross compiling, the
# folder is linked into the build tree: the machine's own include folder holds the wrong C library.
function(seqmix_header_library target header)
    set(variable SEQMIX_${target}_INCLUDE_DIR)
    find_path(${variable} ${header} NO_CMAKE_FIND_ROOT_PATH)
    mark_as_advanced(${variable})
    if(NOT ${variable})
        return()
    endif()
    set(directory ${${variable}})
    if(CMAKE_CROSSCOMPILING)
        cmake_path(GET header PARENT_PATH folder)
        set(directory ${PROJECT_BINARY_DIR}/host-headers/${target})
        file(MAKE_DIRECTORY ${directory})
        file(CREATE_LINK ${${variable}}/${folder} ${directory}/${folder} SYMBOLIC)
    endif()
    add_library(${target} INTERFACE IMPORTED GLOBAL)
    target_include_directories(${target} INTERFACE ${directory})
endfunction()

# Threads for the executors; OpenMP where the compiler has it.
add_library(seqmix_threads INTERFACE)
find_package(Threads REQUIRED)
target_link_libraries(seqmix_threads INTERFACE Threads::Threads)
find_package(OpenMP QUIET COMPONENTS CXX)
if(TARGET OpenMP::OpenMP_CXX)
    target_link_libraries(seqmix_threads INTERFACE OpenMP::OpenMP_CXX)
endif()

# xsimd: only the include directory, since the target of Debian's 8.1 links to xtl.
seqmix_header_library(seqmix_xsimd xsimd/xsimd.hpp)
if(TARGET seqmix_xsimd)
    file(STRINGS ${SEQMIX_seqmix_xsimd_INCLUDE_DIR}/xsimd/config/xsimd_config.hpp seqmix_xsimd_version
        REGEX "define XSIMD_VERSION_(MAJOR|MINOR) [0-9]+")
    string(REGEX REPLACE "[^0-9;]" "" seqmix_xsimd_version "${seqmix_xsimd_version}")
    string(REPLACE ";" "." seqmix_xsimd_version "${seqmix_xsimd_version}")
    if(seqmix_xsimd_version VERSION_LESS 8.1 OR seqmix_xsimd_version VERSION_GREATER_EQUAL 15)
        message(WARNING "seqmix: tested with xsimd 8.1 up to 14, found ${seqmix_xsimd_version}")
    endif()
endif()

if(SEQMIX_BUILD_TESTS)
    # Both majors have Catch2::Catch2WithMain, but 2 only as some distributions build it.
    add_library(seqmix_catch INTERFACE)
    find_package(Catch2 QUIET)
    if(TARGET Catch2::Catch2WithMain AND Catch2_VERSION VERSION_GREATER_EQUAL 2.13)
        target_link_libraries(seqmix_catch INTERFACE Catch2::Catch2WithMain)
    else()
        seqmix_header_library(seqmix_catch2_headers catch2/catch.hpp)
        if(TARGET seqmix_catch2_headers)
            set(seqmix_catch2_main ${PROJECT_BINARY_DIR}/catch2_main.cpp)
            file(CONFIGURE OUTPUT ${seqmix_catch2_main}
                CONTENT "#define CATCH_CONFIG_MAIN\n#include <catch2/catch.hpp>\n")
            add_library(seqmix_catch2_main STATIC ${seqmix_catch2_main})
            target_compile_features(seqmix_catch2_main PRIVATE cxx_std_20)
            target_link_libraries(seqmix_catch2_main PUBLIC seqmix_catch2_headers)
            target_link_libraries(seqmix_catch INTERFACE seqmix_catch2_main)
        else()
            seqmix_fetch(Catch2 3.7.1 https://github.com/catchorg/Catch2/archive/refs/tags/v3.7.1.tar.gz
                TARGETS Catch2)
            target_link_libraries(seqmix_catch INTERFACE Catch2::Catch2WithMain)
        endif()
    endif()
endif()

if(SEQMIX_BUILD_BENCHMARKS)
    find_package(benchmark QUIET)
    if(NOT TARGET benchmark::benchmark)
        foreach(part IN ITEMS TESTING GTEST_TESTS INSTALL)
            set(BENCHMARK_ENABLE_${part} OFF CACHE INTERNAL "")
        endforeach()
        seqmix_fetch(benchmark 1.9.1 https://github.com/google/benchmark/archive/refs/tags/v1.9.1.tar.gz
            TARGETS benchmark)
    endif()
endif()

if(SEQMIX_BUILD_TESTS OR SEQMIX_BUILD_BENCHMARKS)
    if(NOT TARGET seqmix::eigen)
        # Eigen's own build is not wanted, only its headers.
        seqmix_fetch(Eigen 3.4.0 https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.gz
            SOURCE_SUBDIR no-build)
        add_library(seqmix_eigen INTERFACE)
        add_library(seqmix::eigen ALIAS seqmix_eigen)
        target_link_libraries(seqmix_eigen INTERFACE seqmix)
        target_include_directories(seqmix_eigen SYSTEM INTERFACE ${eigen_SOURCE_DIR})
    endif()
endif()

if(SEQMIX_BUILD_EXAMPLES)
    seqmix_header_library(seqmix_cli11 CLI/CLI.hpp)
endif()
