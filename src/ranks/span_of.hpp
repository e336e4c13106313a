#pragma once

#include <cstddef>
#include <span>

namespace attnreg {

/// The numbers of a dense Eigen matrix or vector without gaps, in the order of its memory.
template <class Dense>
std::span<typename Dense::Scalar> span_of(Dense& values) {
  return {values.data(), static_cast<std::size_t>(values.size())};
}
template <class Dense>
std::span<const typename Dense::Scalar> span_of(const Dense& values) {
  return {values.data(), static_cast<std::size_t>(values.size())};
}

}  // namespace attnreg
