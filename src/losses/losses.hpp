#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "losses/loss.hpp"

namespace attnreg {

/// The losses by name. Throws `InvalidArgument` (all ranks) that lists them.
std::unique_ptr<Loss> make_loss(std::string_view name);
const std::vector<std::string_view>& loss_names();

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
