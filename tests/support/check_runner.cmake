# Runs one test of `selftest` that misbehaves on one rank, and checks what the runner makes of it.
#
#   cmake -D "COMMAND=mpirun;-n;3;selftest" -D CASE=FailsOnOneRank -D RANK=2 -P check_runner.cmake

cmake_minimum_required(VERSION 3.25)

set(ENV{ATTNREG_SELFTEST_RANK} ${RANK})
if(CASE STREQUAL "LeavesTheOthersInABarrier")
  set(ENV{ATTNREG_TEST_WATCHDOG_SECONDS} 2)
endif()

execute_process(
  COMMAND ${COMMAND} --gtest_filter=Selftest.Passes:Selftest.${CASE}
  OUTPUT_VARIABLE output
  ERROR_VARIABLE output
  RESULT_VARIABLE code)
message("${output}")
message("exit code ${code}")

set(expected_FailsOnOneRank "[[]rank ${RANK}[]] [^\n]*selftest.cpp:[0-9]+: Failure\n[^[]*planted failure")
set(expected_ThrowsOnOneRank "[[]rank ${RANK}[]] [^[]*planted exception")
set(expected_LeavesTheOthersInABarrier
    "[[]rank ${RANK}[]] time limit of 2 s: waiting for the other ranks .*LeavesTheOthersInABarrier, after.*planted early return")
set(expected_LeaksOnOneRank "LeakSanitizer: detected memory leaks")

if(code EQUAL 0)
  message(FATAL_ERROR "the runner reports success")
endif()
if(NOT output MATCHES "[[]       OK []] Selftest.Passes")
  message(FATAL_ERROR "the test that passes is not reported")
endif()
if(NOT output MATCHES "${expected_${CASE}}")
  message(FATAL_ERROR "the message of rank ${RANK} is missing")
endif()
# Every failure is printed once, by the rank that had it.
string(REGEX MATCHALL "planted" planted "${output}")
list(LENGTH planted count)
if(CASE MATCHES "FailsOnOneRank|ThrowsOnOneRank" AND NOT count EQUAL 1)
  message(FATAL_ERROR "the message of rank ${RANK} is printed ${count} times")
endif()
