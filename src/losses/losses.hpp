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
/// softmax and cross-entropy over rows that stand for others, see `LossRows::terms`:
///
///     softmax        phi = 1/2 sum_i h_i (f_i - b_i)^2,          f_i = exp(z_i) / sum_j v_j exp(z_j),
///     cross-entropy  phi = beta ln sum_j v_j exp(z_j) - <b, z>,  beta = <b, 1>.
///
/// Both have centred Hessians, with the weights v_i f_i of the centre. No loss of this name: null.
std::unique_ptr<Loss> make_sampled_loss(std::string_view name);
/// Local. What a certificate needs to know of a loss, by its name; every loss has them, else `InternalError`.
const LossBounds& loss_bounds(std::string_view loss);

// One function for each member of the family; `make_loss` lists them.
std::unique_ptr<Loss> make_softmax_loss();
std::unique_ptr<Loss> make_cross_entropy_loss();
std::unique_ptr<Loss> make_sampled_softmax_loss();
std::unique_ptr<Loss> make_sampled_cross_entropy_loss();
std::unique_ptr<Loss> make_exp_loss();
std::unique_ptr<Loss> make_cosh_loss();
std::unique_ptr<Loss> make_sinh_loss();
std::unique_ptr<Loss> make_rescaled_exp_loss();
std::unique_ptr<Loss> make_rescaled_cosh_loss();
std::unique_ptr<Loss> make_rescaled_sinh_loss();

}  // namespace attnreg
