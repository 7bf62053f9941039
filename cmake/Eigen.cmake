# seqmix::eigen: the headers and Eigen, for interop/eigen.hpp; there only where Eigen is.
# Searched without a version: the version files of 3.4 refuse 5, and those of 5 differ about ranges. Eigen is headers
# alone, so the build machine's copy serves a cross compiler too.
if(NOT TARGET Eigen3::Eigen)
    find_package(Eigen3 QUIET NO_MODULE NO_CMAKE_FIND_ROOT_PATH)
endif()
if(TARGET Eigen3::Eigen)
    if(DEFINED Eigen3_VERSION AND (Eigen3_VERSION VERSION_LESS 3.4 OR Eigen3_VERSION VERSION_GREATER_EQUAL 6))
        message(STATUS "seqmix: Eigen ${Eigen3_VERSION} is not in 3.4 up to 5; seqmix::eigen is left out")
    else()
        add_library(seqmix_eigen INTERFACE)
        add_library(seqmix::eigen ALIAS seqmix_eigen)
        target_link_libraries(seqmix_eigen INTERFACE seqmix Eigen3::Eigen)
    endif()
endif()
