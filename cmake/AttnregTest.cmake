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
if(ATTNREG_SANITIZE)
  # Open MPI and what it loads leak on purpose; the frames between them and malloc have no frame pointers.
  list(APPEND ATTNREG_TEST_ENVIRONMENT ASAN_OPTIONS=fast_unwind_on_malloc=0 UBSAN_OPTIONS=print_stacktrace=1
       "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/support/lsan.supp:print_suppressions=0")
endif()

# attnreg_add_test(name SOURCES file... RANKS 1 2 ... [THREADS 1] [TIMEOUT 60] [LABELS label...])
#
# One executable, and one test `name.np<ranks>` for each number of ranks.
function(attnreg_add_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "THREADS;TIMEOUT" "SOURCES;RANKS;LABELS")
  add_executable(${name} ${arg_SOURCES})
  attnreg_configure_target(${name})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/tests")
  target_compile_definitions(${name} PRIVATE ATTNREG_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
  target_link_libraries(${name} PRIVATE attnreg::attnreg attnreg_test_main GTest::gmock nlohmann_json::nlohmann_json
                                        Random123::Random123 PkgConfig::OPENBLAS PkgConfig::LIBZIP)
  attnreg_add_ranks(${name} RANKS ${arg_RANKS} THREADS ${arg_THREADS} TIMEOUT ${arg_TIMEOUT} LABELS ${arg_LABELS})
endfunction()

# attnreg_add_ranks(name RANKS 1 2 ... [THREADS 1] [TIMEOUT 60] [LABELS label...])
#
# Registers an executable of attnreg_add_test with more ranks or threads: `name.np<ranks>`, `name.np<ranks>.omp<threads>`.
function(attnreg_add_ranks name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "THREADS;TIMEOUT" "RANKS;LABELS")
  if(NOT arg_RANKS)
    message(FATAL_ERROR "test ${name}: RANKS is missing")
  endif()
  if(NOT arg_THREADS)
    set(arg_THREADS 1)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  math(EXPR watchdog_seconds "${arg_TIMEOUT} - 10")
  foreach(ranks IN LISTS arg_RANKS)
    set(test ${name}.np${ranks})
    if(arg_THREADS GREATER 1)
      string(APPEND test .omp${arg_THREADS})
    endif()
    math(EXPR processors "${ranks} * ${arg_THREADS}")
    add_test(NAME ${test} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} $<TARGET_FILE:${name}>)
    set_tests_properties(
      ${test}
      PROPERTIES ENVIRONMENT
                 "${ATTNREG_TEST_ENVIRONMENT};OMP_NUM_THREADS=${arg_THREADS};OMP_WAIT_POLICY=passive;ATTNREG_TEST_WATCHDOG_SECONDS=${watchdog_seconds}"
                 TIMEOUT ${arg_TIMEOUT}
                 PROCESSORS ${processors}
                 LABELS "${arg_LABELS}")
  endforeach()
endfunction()
