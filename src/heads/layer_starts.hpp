#pragma once

#include <string>

#include "heads/gauss_newton.hpp"
#include "heads/layer_passes.hpp"

namespace attnreg {

/// Where a fit of a layer begins.
struct LayerStart {
  std::string name;  ///< "random X"
  HeadFactors u;
};

/// Start `number` = 0, 1, ...: a function of the seed. Any X comes in turn from a random Y, with what the means of B
/// say in it, and two steps on X for that Y; and from a random X with logits of standard deviation 1. Factors are
/// random with logits of 0.3. Y held: X = 0, or factors. Collective.
///
/// The random Y is what finds planted layers: with the right Y the problem in X has been seen to have no other minimum,
/// and its size is above what B shows, so that X is small at first.
LayerStart layer_start(LayerPasses& passes, Index rank, bool Y_is_held, int number, std::uint64_t seed);

}  // namespace attnreg
