include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# Headers alone: everything goes to share/, which serves every architecture.
set(seqmix_package_dir ${CMAKE_INSTALL_DATADIR}/cmake/seqmix)
set(seqmix_pkgconfig_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/seqmix DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    FILES_MATCHING PATTERN "*.hpp")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/seqmix)

install(TARGETS seqmix EXPORT seqmixTargets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT seqmixTargets NAMESPACE seqmix:: DESTINATION ${seqmix_package_dir})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/seqmixConfig.cmake.in
    ${PROJECT_BINARY_DIR}/package/seqmixConfig.cmake
    INSTALL_DESTINATION ${seqmix_package_dir}
    NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/seqmixConfigVersion.cmake
    COMPATIBILITY SameMajorVersion
    ARCH_INDEPENDENT)

# Paths relative to the .pc file keep the installed tree movable; absolute install folders (Nix) are taken as they are.
if(IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_DATADIR}")
    set(seqmix_pc_includedir ${CMAKE_INSTALL_FULL_INCLUDEDIR})
else()
    file(RELATIVE_PATH seqmix_pc_relative
        ${CMAKE_INSTALL_FULL_DATADIR}/pkgconfig ${CMAKE_INSTALL_FULL_INCLUDEDIR})
    set(seqmix_pc_includedir "\${pcfiledir}/${seqmix_pc_relative}")
endif()
configure_file(${CMAKE_CURRENT_LIST_DIR}/seqmix.pc.in ${PROJECT_BINARY_DIR}/package/seqmix.pc @ONLY)

install(FILES
    ${PROJECT_BINARY_DIR}/package/seqmixConfig.cmake
    ${PROJECT_BINARY_DIR}/package/seqmixConfigVersion.cmake
    DESTINATION ${seqmix_package_dir})
install(FILES ${PROJECT_BINARY_DIR}/package/seqmix.pc DESTINATION ${seqmix_pkgconfig_dir})
