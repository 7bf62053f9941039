# The instruction sets that seqmix's own tests, benchmarks and examples are built for, and how. Users of the library
# choose their flags themselves: nothing from here reaches the seqmix target.
include(CheckCXXCompilerFlag)
include(CheckCXXSourceCompiles)

set(SEQMIX_FLAGS_scalar "")
set(SEQMIX_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(SEQMIX_FLAGS_avx2_vnni ${SEQMIX_FLAGS_avx2} -mavxvnni)
set(SEQMIX_FLAGS_avx512 ${SEQMIX_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl)
set(SEQMIX_FLAGS_avx512_vnni ${SEQMIX_FLAGS_avx512} -mavx512vnni)
set(SEQMIX_FLAGS_avx512_bf16 ${SEQMIX_FLAGS_avx512_vnni} -mavx512bf16)
set(SEQMIX_FLAGS_neon "")
set(SEQMIX_FLAGS_neon_i8mm -march=armv8.2-a+dotprod+bf16+i8mm)

# Asked of the compiler, not of CMAKE_SYSTEM_PROCESSOR, which names the machine and not what is compiled for.
check_cxx_source_compiles("
    #if !defined(__x86_64__) && !defined(_M_X64)
    #error
    #endif
    int main() {}" SEQMIX_TARGET_IS_X86_64)
check_cxx_source_compiles("
    #if !defined(__aarch64__) && !defined(_M_ARM64)
    #error
    #endif
    int main() {}" SEQMIX_TARGET_IS_AARCH64)
# Add products of int8 to the set before, and nothing else.
set(seqmix_int8_archs avx2_vnni avx512_vnni)
# Every set may run what stands before it. Object files are linked in this order, see seqmix_add_program. avx2_vnni is no part of
# AVX-512, but behind it it would be given code of AVX-512; before it, it gives away what avx2 lacks, in which only a product of
# bytes that the compiler finds in std:: could be its own.
set(seqmix_known_archs scalar)
if(SEQMIX_TARGET_IS_X86_64)
    list(APPEND seqmix_known_archs avx2 avx2_vnni avx512 avx512_vnni avx512_bf16)
elseif(SEQMIX_TARGET_IS_AARCH64)
    list(APPEND seqmix_known_archs neon neon_i8mm)
endif()
set(SEQMIX_ARCHS ${seqmix_known_archs} CACHE STRING "Instruction sets to build seqmix's own programs for")

set(seqmix_archs "")
foreach(arch IN LISTS seqmix_known_archs)
    if(arch IN_LIST SEQMIX_ARCHS)
        string(REPLACE ";" " " flags "${SEQMIX_FLAGS_${arch}}")
        check_cxx_compiler_flag("${flags}" SEQMIX_COMPILER_HAS_${arch})
        if(SEQMIX_COMPILER_HAS_${arch})
            list(APPEND seqmix_archs ${arch})
        else()
            message(WARNING "seqmix: this compiler does not know ${flags}: ${arch} is left out")
        endif()
    endif()
endforeach()
foreach(arch IN LISTS SEQMIX_ARCHS)
    if(NOT arch IN_LIST seqmix_known_archs)
        message(FATAL_ERROR "seqmix: SEQMIX_ARCHS has '${arch}'; here it may hold: ${seqmix_known_archs}")
    endif()
endforeach()
# seqmix_runnable(<variable> <sets...>): those of them that this machine runs, asked of examples/dispatch; all of them where no
# program can be run while configuring.
function(seqmix_runnable variable)
    set(${variable} ${ARGN} PARENT_SCOPE)
    if(NOT SEQMIX_BUILD_TESTS OR (CMAKE_CROSSCOMPILING AND NOT CMAKE_CROSSCOMPILING_EMULATOR))
        return()
    endif()
    set(source ${PROJECT_BINARY_DIR}/generated/print_runnable.cpp)
    list(TRANSFORM ARGN REPLACE "(.+)" "\"\\1\"" OUTPUT_VARIABLE names)
    list(JOIN names ", " names)
    file(CONFIGURE OUTPUT ${source} CONTENT "#include \"${PROJECT_SOURCE_DIR}/examples/dispatch/can_run.cpp\"
#include <cstdio>
#include <initializer_list>
int main()
{
    for (const char* arch : {${names}}) {
        if (can_run(arch)) { std::puts(arch); }
    }
}
")
    # Every time: the folder may be another machine's.
    unset(SEQMIX_RUNNABLE_STATUS CACHE)
    try_run(SEQMIX_RUNNABLE_STATUS compiled ${PROJECT_BINARY_DIR}/generated/print_runnable ${source}
        RUN_OUTPUT_VARIABLE output)
    mark_as_advanced(SEQMIX_RUNNABLE_STATUS)
    if(NOT compiled OR NOT SEQMIX_RUNNABLE_STATUS EQUAL 0)
        message(WARNING "seqmix: could not ask which instruction sets this machine runs; tests are built for all")
        return()
    endif()
    string(REGEX MATCHALL "[a-z0-9_]+" runnable "${output}")
    set(missing ${ARGN})
    list(REMOVE_ITEM missing ${runnable})
    if(missing)
        message(STATUS "seqmix: this machine does not run ${missing}: no test programs for it (-DSEQMIX_TEST_ARCHS=... has them built)")
    endif()
    set(${variable} ${runnable} PARENT_SCOPE)
endfunction()

# Link order, examples and benchmarks are built for all sets; tests for these of them, or for those that can run here: tests of
# another set would be compiled and then skipped.
set(SEQMIX_TEST_ARCHS "" CACHE STRING "Instruction sets to build test programs for; empty: all that this machine runs")
set(seqmix_test_archs ${seqmix_archs})
if(SEQMIX_TEST_ARCHS)
    set(seqmix_wanted ${SEQMIX_TEST_ARCHS})
else()
    seqmix_runnable(seqmix_wanted ${seqmix_archs})
endif()
foreach(arch IN LISTS seqmix_archs)
    if(NOT arch IN_LIST seqmix_wanted)
        list(REMOVE_ITEM seqmix_test_archs ${arch})
    endif()
endforeach()
# Mixers are written over tiles and know no set: where time is short, their tests run on the widest set, and the others have
# tests of the set itself, of tiles, and the golden vectors of all mixers.
set(SEQMIX_MIXER_TESTS all CACHE STRING "Sets that the tests of mixers are built for: all, or the widest")
set_property(CACHE SEQMIX_MIXER_TESTS PROPERTY STRINGS all widest)
set(seqmix_mixer_archs ${seqmix_test_archs})
list(REMOVE_ITEM seqmix_mixer_archs ${seqmix_int8_archs})
if(SEQMIX_MIXER_TESTS STREQUAL "widest" AND seqmix_mixer_archs)
    list(GET seqmix_mixer_archs -1 seqmix_mixer_archs)
endif()
message(STATUS "seqmix: instruction sets: ${seqmix_archs}; tested: ${seqmix_test_archs}; mixers' tests: ${seqmix_mixer_archs}")

# seqmix_list_archs(<folder> <sets...>): writes the list for programs that call one compiled set after another:
# #define SEQMIX_ARCH(name) ..., then #include <seqmix_archs.inc>.
function(seqmix_list_archs folder)
    list(TRANSFORM ARGN REPLACE "(.+)" "SEQMIX_ARCH(\\1)" OUTPUT_VARIABLE lines)
    list(JOIN lines "\n" lines)
    file(CONFIGURE OUTPUT ${folder}/seqmix_archs.inc CONTENT "${lines}\n")
endfunction()
seqmix_list_archs(${PROJECT_BINARY_DIR}/generated ${seqmix_archs})

# What every program of the project is compiled with.
add_library(seqmix_own INTERFACE)
target_link_libraries(seqmix_own INTERFACE seqmix)
if(TARGET seqmix_xsimd)
    target_link_libraries(seqmix_own INTERFACE seqmix_xsimd)
endif()
target_compile_options(seqmix_own INTERFACE -Wall -Wextra -Wshadow -Wconversion)
if(SEQMIX_WERROR)
    target_compile_options(seqmix_own INTERFACE -Werror)
endif()
if(SEQMIX_SANITIZE)
    target_compile_options(seqmix_own INTERFACE
        -fsanitize=${SEQMIX_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(seqmix_own INTERFACE -fsanitize=${SEQMIX_SANITIZE})
endif()

# Whether this machine runs an instruction set. Compiled without any -m flag: it is called before one knows.
add_library(seqmix_can_run STATIC ${PROJECT_SOURCE_DIR}/examples/dispatch/can_run.cpp)
target_include_directories(seqmix_can_run PUBLIC
    ${PROJECT_SOURCE_DIR}/examples/dispatch ${PROJECT_BINARY_DIR}/generated)
target_link_libraries(seqmix_can_run PRIVATE seqmix_own)

# seqmix_add_program(<name> MAIN <files...> ARCH_MACRO <macro> ARCH_SOURCES <files...>
#     [INT8] [ARCHS <sets...>] [LIBRARIES <targets...>] [OPTIONS <flags...>])
# One program of MAIN, compiled without -m flags, and of ARCH_SOURCES, compiled once per instruction set (of ARCHS, or of all; those
# that add only products of int8 are for programs with INT8) with its flags and -D<macro>=<set>.
# Weak symbols from elsewhere (std:: above all) may be defined by several of them, and the linker keeps the first that it
# meets: MAIN comes first, then the sets in ascending order, so that no set gets code that it can't run. MAIN is a library
# too because CMake puts the objects of libraries before a program's own.
function(seqmix_add_program name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "INT8" "ARCH_MACRO" "MAIN;ARCH_SOURCES;ARCHS;LIBRARIES;OPTIONS")
    set(libraries seqmix_own seqmix_can_run ${arg_LIBRARIES})
    if(NOT arg_ARCHS)
        set(arg_ARCHS ${seqmix_archs})
    endif()
    if(NOT arg_INT8)
        list(REMOVE_ITEM arg_ARCHS ${seqmix_int8_archs})
    endif()

    add_library(${name}_main OBJECT ${arg_MAIN})
    seqmix_list_archs(${PROJECT_BINARY_DIR}/generated/${name} ${arg_ARCHS})
    target_include_directories(${name}_main BEFORE PRIVATE ${PROJECT_BINARY_DIR}/generated/${name})
    target_link_libraries(${name}_main PRIVATE ${libraries})
    add_executable(${name} $<TARGET_OBJECTS:${name}_main>)
    set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
    target_link_libraries(${name} PRIVATE ${libraries})

    foreach(arch IN LISTS arg_ARCHS)
        add_library(${name}_${arch} OBJECT ${arg_ARCH_SOURCES})
        target_compile_definitions(${name}_${arch} PRIVATE ${arg_ARCH_MACRO}=${arch})
        target_compile_options(${name}_${arch} PRIVATE ${SEQMIX_FLAGS_${arch}} ${arg_OPTIONS})
        target_link_libraries(${name}_${arch} PRIVATE ${libraries})
        target_sources(${name} PRIVATE $<TARGET_OBJECTS:${name}_${arch}>)
    endforeach()
endfunction()
