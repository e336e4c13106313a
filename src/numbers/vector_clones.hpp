#pragma once

// ATTNREG_CLONES before a function: the widest vectors of the machine that runs the program, chosen when it is loaded;
// not in builds for one CPU, and not under a sanitizer, whose start-up comes after that choice.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(ATTNREG_NATIVE)
#define ATTNREG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ATTNREG_CLONES
#endif
