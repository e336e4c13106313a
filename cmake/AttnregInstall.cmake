# Installation: the library with its headers, the CMake package `attnreg`, and attnreg.pc.

include(CMakePackageConfigHelpers)

set(attnreg_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/attnreg")

install(TARGETS attnreg EXPORT attnreg ARCHIVE LIBRARY RUNTIME FILE_SET HEADERS)
install(EXPORT attnreg NAMESPACE attnreg:: FILE attnreg-targets.cmake DESTINATION "${attnreg_package_dir}")

configure_package_config_file(cmake/attnreg-config.cmake.in "${PROJECT_BINARY_DIR}/generated/attnreg-config.cmake"
                              INSTALL_DESTINATION "${attnreg_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/generated/attnreg-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/generated/attnreg-config.cmake"
              "${PROJECT_BINARY_DIR}/generated/attnreg-config-version.cmake" cmake/attnreg-openblas.cmake
        DESTINATION "${attnreg_package_dir}")

# pkg-config. A static library carries its dependencies in the public fields, so that plain `pkg-config --libs` links.
find_program(PKG_CONFIG_EXECUTABLE pkg-config REQUIRED)
set(pc_requires "eigen3 >= 3.4")
set(pc_requires_private "")
set(pc_libs "")
set(pc_cflags "-DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX")
if(ATTNREG_NATIVE)
  string(APPEND pc_cflags " -DEIGEN_MAX_ALIGN_BYTES=64")
endif()

set(pc_mpi "")
if(MPI_CXX_LIBRARY_VERSION_STRING MATCHES "Open MPI")
  pkg_check_modules(ATTNREG_MPI_PC QUIET ompi)
  set(pc_mpi ompi)
elseif(MPI_CXX_LIBRARY_VERSION_STRING MATCHES "MPICH")
  pkg_check_modules(ATTNREG_MPI_PC QUIET mpich)
  set(pc_mpi mpich)
endif()
if(pc_mpi AND ATTNREG_MPI_PC_FOUND)
  string(APPEND pc_requires ", ${pc_mpi}")
else()
  # An MPI without pkg-config file: what CMake found, spelled out.
  list(JOIN MPI_CXX_LIBRARIES " " pc_mpi_libraries)
  string(APPEND pc_libs " ${pc_mpi_libraries}")
  foreach(directory IN LISTS MPI_CXX_INCLUDE_DIRS)
    string(APPEND pc_cflags " -I${directory}")
  endforeach()
endif()

list(JOIN OpenMP_CXX_FLAGS " " pc_openmp)
set(pc_modules openblas libhwy libzip zlib ${attnreg_hdf5})
list(JOIN pc_modules ", " pc_modules)
if(BUILD_SHARED_LIBS)
  set(pc_requires_private "${pc_modules}")
else()
  string(APPEND pc_requires ", ${pc_modules}")
  string(APPEND pc_libs " ${SCALAPACK_LIBRARY} -lboost_context ${pc_openmp}")
endif()

# Relative to the file itself, so that the tree may be moved and `cmake --install --prefix` works.
file(RELATIVE_PATH pc_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
configure_file(cmake/attnreg.pc.in "${PROJECT_BINARY_DIR}/generated/attnreg.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/generated/attnreg.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
