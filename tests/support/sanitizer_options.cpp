// What programs with sanitizers do, wherever they are started, unless ASAN_OPTIONS and others say otherwise.

extern "C" {

const char* __asan_default_options() { return "fast_unwind_on_malloc=0"; }  // libraries have no frame pointers
const char* __ubsan_default_options() { return "print_stacktrace=1"; }
const char* __lsan_default_options() { return "print_suppressions=0"; }

/// Memory that Open MPI 4.1 and what it loads keep until the process ends. Libraries only: nothing of attnreg.
const char* __lsan_default_suppressions() {
  return "leak:libmpi.so\nleak:libopen-rte.so\nleak:libopen-pal.so\nleak:libhwloc.so\nleak:libevent\n";
}
}
