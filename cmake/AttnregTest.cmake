# Registration of tests that run under mpirun.

include_guard(GLOBAL)

find_package(GTest REQUIRED)
find_package(Threads REQUIRED)

# What a test needs to run anywhere, containers and root included. Set for tests only, never by the program.
set(ATTNREG_TEST_ENVIRONMENT
    OMPI_ALLOW_RUN_AS_ROOT=1
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    OMPI_MCA_rmaps_base_oversubscribe=1
    OMPI_MCA_hwloc_base_binding_policy=none
    OMPI_MCA_btl_base_warn_component_unused=0
    OMPI_MCA_btl_vader_single_copy_mechanism=none
    OMPI_MCA_mpi_yield_when_idle=1)
# What shortens the start of a rank: no drivers of networks that no test uses, which measure clocks when they are
# loaded, and no search for devices (0x18: of the PCI bus and of what is on it). hwloc's plugins, all of which are for
# devices or for XML that hwloc itself can read, bring X11, OpenCL and libxml2 along: they are looked for where none are.
list(APPEND ATTNREG_TEST_ENVIRONMENT OMPI_MCA_pml=ob1 HWLOC_COMPONENTS=-linux:0x18,-pci,-opencl,-gl
     "HWLOC_PLUGINS_PATH=${PROJECT_BINARY_DIR}/no-plugins")

# attnreg_add_tests(kind FILES file... [EXTRA file...] RANKS 1 2 ... [LABELS label...])
#
# One executable `<kind>_tests` of all files test_<name>.cpp, and of each file one test `<kind>.<name>.np<ranks>` for
# each number of ranks. Some files at a time are compiled as one, which saves most of the time; so each has a namespace
# of its own, test_<name>. EXTRA are sources that the library does not have.
function(attnreg_add_tests kind)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "FILES;EXTRA;RANKS;LABELS")
  set(target ${kind}_tests)
  add_executable(${target} ${arg_FILES} ${arg_EXTRA})
  attnreg_configure_target(${target})
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE BATCH UNITY_BUILD_BATCH_SIZE 5)
  target_precompile_headers(${target} REUSE_FROM attnreg_test_support)
  target_include_directories(${target} PRIVATE "${PROJECT_BINARY_DIR}/generated")
  target_link_libraries(${target} PRIVATE attnreg_test_support attnreg::attnreg attnreg_test_main GTest::gmock
                                          nlohmann_json::nlohmann_json Random123::Random123 PkgConfig::OPENBLAS
                                          PkgConfig::LIBZIP ${CMAKE_DL_LIBS})
  foreach(source IN LISTS arg_FILES)
    cmake_path(GET source STEM name)
    string(REGEX REPLACE "^test_" "${kind}." name "${name}")
    attnreg_add_ranks(${name} RANKS ${arg_RANKS} LABELS ${arg_LABELS})
  endforeach()
endfunction()

# attnreg_add_ranks(name RANKS 1 2 ... [THREADS 1] [TIMEOUT 180] [LABELS label...] [ARGUMENTS word...])
#
# Registers the executable `name`, or a file of attnreg_add_tests, with some numbers of ranks or threads:
# `name.np<ranks>`, `name.np<ranks>.omp<threads>`. TIMEOUT: four times as long under a sanitizer.
function(attnreg_add_ranks name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "THREADS;TIMEOUT" "RANKS;LABELS;ARGUMENTS")
  if(NOT arg_RANKS)
    message(FATAL_ERROR "test ${name}: RANKS is missing")
  endif()
  if(NOT arg_THREADS)
    set(arg_THREADS 1)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 180)
  endif()
  if(ATTNREG_SANITIZE)
    math(EXPR arg_TIMEOUT "4 * ${arg_TIMEOUT}")
  endif()
  if(name MATCHES "^(unit|parallel)\\.(.*)$")
    set(command $<TARGET_FILE:${CMAKE_MATCH_1}_tests> test_${CMAKE_MATCH_2}.cpp)
  else()
    set(command $<TARGET_FILE:${name}>)
  endif()
  math(EXPR watchdog_seconds "${arg_TIMEOUT} - 10")
  foreach(ranks IN LISTS arg_RANKS)
    set(test ${name}.np${ranks})
    if(arg_THREADS GREATER 1)
      string(APPEND test .omp${arg_THREADS})
    endif()
    math(EXPR processors "${ranks} * ${arg_THREADS}")
    add_test(NAME ${test} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} ${command} ${arg_ARGUMENTS})
    set_tests_properties(
      ${test}
      PROPERTIES ENVIRONMENT
                 "${ATTNREG_TEST_ENVIRONMENT};OMP_NUM_THREADS=${arg_THREADS};OMP_WAIT_POLICY=passive;ATTNREG_TEST_WATCHDOG_SECONDS=${watchdog_seconds}"
                 TIMEOUT ${arg_TIMEOUT}
                 PROCESSORS ${processors}
                 LABELS "${arg_LABELS}")
  endforeach()
endfunction()
