#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <span>

#include "attnreg/loss.hpp"

namespace attnreg {

// One function per file of the family; `make_loss` lists them.
std::unique_ptr<Loss> make_softmax_loss();
std::unique_ptr<Loss> make_cross_entropy_loss();

/// -inf for no values: the identity of a maximum over ranks.
inline double largest(std::span<const double> values) {
  return values.empty() ? -std::numeric_limits<double>::infinity() : *std::max_element(values.begin(), values.end());
}

}  // namespace attnreg
