#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "losses/loss.hpp"
#include "losses/loss_bounds.hpp"

namespace attnreg {

/// The losses by name. Throws `InvalidArgument` (all ranks) that lists them.
std::unique_ptr<Loss> make_loss(std::string_view name);
const std::vector<std::string_view>& loss_names();
/// Local. What a certificate needs to know of a loss, by its name; every loss has them, else `InternalError`.
const LossBounds& loss_bounds(std::string_view loss);

// One function for each member of the family; `make_loss` lists them.
std::unique_ptr<Loss> make_softmax_loss();
std::unique_ptr<Loss> make_cross_entropy_loss();
std::unique_ptr<Loss> make_exp_loss();
std::unique_ptr<Loss> make_cosh_loss();
std::unique_ptr<Loss> make_sinh_loss();
std::unique_ptr<Loss> make_rescaled_exp_loss();
std::unique_ptr<Loss> make_rescaled_cosh_loss();
std::unique_ptr<Loss> make_rescaled_sinh_loss();

}  // namespace attnreg
