#pragma once

#include <cstdint>

namespace attnreg::kernels {

/// Whether rows that are asked for some rows ahead go into the first-level cache. Intel's has ways enough for the four
/// streams of a pass and what is ahead in each of them. AMD's has 8: there they go into the second level, which takes
/// 0.6 to 0.9 of the time (docs/performance.md).
#if defined(__x86_64__)
inline const bool prefetches_into_first_level = __builtin_cpu_is("intel") != 0;
#else
inline constexpr bool prefetches_into_first_level = true;
#endif

/// Asks for the cache line of an address, which may lie beyond the end of the data.
inline __attribute__((always_inline)) void prefetch_line(std::uintptr_t address) {
  const void* const line = reinterpret_cast<const void*>(address);
  if (prefetches_into_first_level)
    __builtin_prefetch(line, 0, 3);
  else
    __builtin_prefetch(line, 0, 2);
}

}  // namespace attnreg::kernels
