#pragma once

#include <array>
#include <cstdint>

namespace attnreg {

/// Local. Philox4x32-10: a bijection of the counters for every key. Salmon, Moraes, Dror, Shaw, "Parallel random
/// numbers: as easy as 1, 2, 3", SC 2011.
std::array<std::uint32_t, 4> philox4x32_10(const std::array<std::uint32_t, 4>& counter,
                                           const std::array<std::uint32_t, 2>& key);

}  // namespace attnreg
