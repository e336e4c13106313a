# What all targets of this project have in common.

include_guard(GLOBAL)

# Language level, warnings, CPU and sanitizers of one of our targets; nothing of it reaches users of the library.
function(attnreg_configure_target target)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF UNITY_BUILD_MODE GROUP)
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_compile_options(
    ${target}
    PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow $<$<BOOL:${ATTNREG_WERROR}>:-Werror>
            $<$<BOOL:${ATTNREG_NATIVE}>:-march=native>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # False alarms: std::string operator+ from GCC 12 on (GCC bug 105651), and GCC's own AVX-512 header (105593).
    target_compile_options(${target} PRIVATE -Wno-restrict $<$<CONFIG:Release>:-Wno-stringop-overflow>
                                             $<$<BOOL:${ATTNREG_NATIVE}>:-Wno-maybe-uninitialized>
                                             $<$<BOOL:${ATTNREG_NATIVE}>:-Wno-uninitialized>)
  endif()
  if(ATTNREG_SANITIZE)
    # GCC with sanitizers takes members of std::regex for uninitialised (GCC bug 105616).
    target_compile_options(${target} PRIVATE -fsanitize=${ATTNREG_SANITIZE} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=all $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
    target_link_options(${target} PRIVATE -fsanitize=${ATTNREG_SANITIZE})
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "EXECUTABLE")
      target_sources(${target} PRIVATE "${PROJECT_SOURCE_DIR}/tests/support/sanitizer_options.cpp")
      set_source_files_properties("${PROJECT_SOURCE_DIR}/tests/support/sanitizer_options.cpp" PROPERTIES
                                  SKIP_UNITY_BUILD_INCLUSION ON SKIP_PRECOMPILE_HEADERS ON)
    endif()
  endif()
endfunction()

# Compiles through ccache where it is installed and no other launcher was asked for. Without the sloppiness ccache
# would compile anew whatever uses a precompiled header: it cannot see macros and times in it.
macro(attnreg_use_ccache)
  if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
    find_program(ATTNREG_CCACHE ccache)
    mark_as_advanced(ATTNREG_CCACHE)
    if(ATTNREG_CCACHE)
      set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env CCACHE_SLOPPINESS=pch_defines,time_macros
                                      "${ATTNREG_CCACHE}")
    endif()
  endif()
endmacro()

# Writes the header that tells the program what it was built from. The git revision is the one at configure time.
function(attnreg_write_build_info path)
  set(revision "unknown")
  find_package(Git QUIET)
  if(Git_FOUND AND EXISTS "${PROJECT_SOURCE_DIR}/.git")
    execute_process(
      COMMAND "${GIT_EXECUTABLE}" describe --always --dirty --abbrev=12 --exclude=*
      WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
      OUTPUT_VARIABLE described
      OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
      RESULT_VARIABLE failed)
    if(NOT failed)
      set(revision "${described}")
    endif()
  endif()

  if(MPI_CXX_LIBRARY_VERSION_STRING)
    # "Open MPI v4.1.4, package: ..., ident: ..., ..."; MPICH puts each property on its own line.
    string(REGEX REPLACE "[,\n].*" "" mpi_version "${MPI_CXX_LIBRARY_VERSION_STRING}")
    string(REGEX REPLACE "[ \t]+" " " mpi_version "${mpi_version}")
  else()
    set(mpi_version "MPI ${MPI_CXX_VERSION}")
  endif()

  set(hdf5_version none)
  if(attnreg_hdf5)
    set(hdf5_version "${HDF5_VERSION}")
  endif()

  set(compiler "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
  string(TOUPPER "${CMAKE_BUILD_TYPE}" build_type_upper)
  string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${build_type_upper}}" flags)
  if(ATTNREG_NATIVE)
    string(APPEND flags " -march=native")
  endif()
  if(ATTNREG_SANITIZE)
    string(APPEND flags " -fsanitize=${ATTNREG_SANITIZE}")
  endif()
  string(STRIP "${flags}" flags)
  string(REPLACE "\"" "\\\"" flags "${flags}")
  if(ATTNREG_NATIVE)
    set(native true)
  else()
    set(native false)
  endif()
  configure_file("${PROJECT_SOURCE_DIR}/src/app/report/build_info.hpp.in" "${path}" @ONLY)
endfunction()

# Writes the header with the parts of launch/*.sh that `attnreg jobscript` copies: what follows their line "# ----".
function(attnreg_write_launch_scripts path)
  foreach(kind IN ITEMS slurm pbs hostfile)
    set(script "${PROJECT_SOURCE_DIR}/launch/${kind}.sh")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${script}")
    file(READ "${script}" text)
    string(FIND "${text}" "# ---- " mark)
    string(SUBSTRING "${text}" ${mark} -1 text)
    string(FIND "${text}" "\n\n" mark)
    math(EXPR mark "${mark} + 2")
    string(SUBSTRING "${text}" ${mark} -1 ${kind}_script)
  endforeach()
  configure_file("${PROJECT_SOURCE_DIR}/src/app/node/launch_scripts.hpp.in" "${path}" @ONLY)
endfunction()
