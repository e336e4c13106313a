#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>

#include "objective/regression_objective.hpp"

namespace attnreg {

/// Why L has no minimiser: a direction v along which L decreases for ever, everywhere (docs/certificate.md, "Where no
/// minimiser exists"). Replicated.
struct Separation {
  bool exists = false;
  Eigen::VectorXd direction;           ///< v, d; the logits A v of all rows are within 1 of each other
  std::int64_t held = 0, falling = 0;  ///< rows whose a_i^T v is the largest; rows in which it is smaller
  double gap = 0;                      ///< smaller by at least so much; well above the rounding of A v
  double spread = 0;                   ///< among the held rows, which should be 0
  bool is_exact = false;               ///< the equality of the held rows does not rest on the rank of a rounded matrix
  std::string reason;                  ///< "no minimiser exists: ...", else empty
};

/// Collective. Decides whether a direction that may be nearly one of separation, x at the end of a solve or a Newton
/// step, is one, or leads to one: rows with b_i > 0, and those that do not fall behind them, are held at equal logits
/// by a projection, rows with w_i > 0 at 0, and the signs are then looked at. For cross-entropy and, where b can be
/// reproduced in the limit, softmax and rescaled-exp; for others, and where all b_i > 0, nothing is read. Per round, of
/// which there are up to 5: a Gram matrix of the held rows, 4 reads and 9 d^3 flops on rank 0; one read if one row is
/// held and w = 0. "Not found" does not say that there is none; with a ridge there is.
Separation find_separation(const RegressionObjective& objective, const Eigen::VectorXd& candidate);

/// Collective, one all-reduce of 16 bytes. Whether b and w alone show that L has a minimiser: that of cross-entropy,
/// which is convex, if all b_i > 0, or no w_i = 0, masked rows apart; any with a ridge.
bool minimiser_exists(const RegressionObjective& objective);

}  // namespace attnreg
