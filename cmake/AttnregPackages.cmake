# Before a build of the Python package, where nobody reads a list first: names the Debian packages that are missing, and
# stops. With the variable ATTNREG_SKIP_PACKAGES set, as on systems that have the libraries from elsewhere, it does not
# look. CMake and Ninja come from PyPI.
find_program(ATTNREG_DPKG_QUERY dpkg-query)
mark_as_advanced(ATTNREG_DPKG_QUERY)
if(NOT ATTNREG_DPKG_QUERY OR DEFINED ENV{ATTNREG_SKIP_PACKAGES})
  return()
endif()
execute_process(
  COMMAND bash -c ". launch/packages.sh && missing_packages \"\${build_packages[@]}\" python3-dev && echo \"\${missing[@]}\""
  WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
  OUTPUT_VARIABLE missing
  OUTPUT_STRIP_TRAILING_WHITESPACE)
string(REGEX REPLACE "(^| )(cmake|ninja-build)($| )" " " missing "${missing}")
string(STRIP "${missing}" missing)
if(missing)
  message(FATAL_ERROR "These Debian packages are missing: sudo apt-get install ${missing}\n"
                      "(If the libraries are there from elsewhere, set ATTNREG_SKIP_PACKAGES=1.)")
endif()
