#include "files/finite_check.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include "files/input_file.hpp"

namespace attnreg {
namespace {

template <class Scalar>
NonFinite find_by_exponents(std::span<const Scalar> values) {
  using Bits = std::conditional_t<sizeof(Scalar) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits exponent = std::bit_cast<Bits>(std::numeric_limits<Scalar>::infinity());
  const auto is_non_finite = [](Scalar value) { return (std::bit_cast<Bits>(value) & exponent) == exponent; };
  Bits count = 0;  // of the width of the values: the loop is then a vector loop; fewer than 2^30 values at a time
  NonFinite result;
  constexpr std::size_t block = std::size_t{1} << 20;
  for (std::size_t start = 0; start < values.size(); start += block, count = 0) {
    const auto part = values.subspan(start, std::min(block, values.size() - start));
    for (const Scalar value : part) count += static_cast<Bits>(is_non_finite(value));
    if (count != 0 && result.count == 0)
      result.first = static_cast<std::int64_t>(start) + (std::ranges::find_if(part, is_non_finite) - part.begin());
    result.count += static_cast<std::int64_t>(count);
  }
  return result;
}

}  // namespace

NonFinite find_non_finite(std::span<const double> values) { return find_by_exponents(values); }
NonFinite find_non_finite(std::span<const float> values) { return find_by_exponents(values); }

void refuse_value(const std::string& path, double value, const std::string& place, std::int64_t count,
                  const char* finder) {
  const std::string counted = std::to_string(count) + (count == 1 ? " value is" : " values are") + " not finite";
  if (std::isfinite(value))
    refuse_file(path, place + " is too large for float; " + counted +
                          " as float (rows and columns counted from 0); use --storage double");
  const char* const found = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  refuse_file(path, place + " is " + found + "; " + counted + " (rows and columns counted from 0); find them with " +
                        finder + " and drop or replace them");
}

}  // namespace attnreg
