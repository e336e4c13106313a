#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace attnreg::kernels {

// Elementary functions of many numbers at once, with the widest vectors of the machine. An element's result does not
// depend on its place or on the other elements. Both spans have the same length and may be the same memory; 1 to 2.5 ns
// an element with AVX2. Local.

/// y_i = exp(x_i), within 1 ulp (1 unit of the smallest number where the result is subnormal). exp(0) = 1 exactly;
/// 0 for x_i < -746, infinite above 709.8, NaN for NaN.
void exp(std::span<const double> x, std::span<double> y);

/// y_i = exp(x_i) - 1, within 2 ulp also next to 0. -1 far below 0, infinite for x_i > 709, NaN for NaN.
void expm1(std::span<const double> x, std::span<double> y);

/// y_i = ln x_i, within 4 ulp, of x_i > 0 that are not subnormal.
void log(std::span<const double> x, std::span<double> y);

/// Counters (first + k, 0, iteration) of Philox4x32-10 with a key, as `RandomStream` has them.
struct PhiloxStream {
  std::array<std::uint32_t, 2> key;
  std::uint32_t iteration;
  std::uint64_t first;
};

/// y_k uniform on (0, 1), 52 bits of counter k; the bits of `RandomStream::uniform`, in a quarter of the time.
void open_uniforms(const PhiloxStream& stream, std::span<double> y);

}  // namespace attnreg::kernels
