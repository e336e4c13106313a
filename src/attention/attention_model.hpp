#pragma once

#include <Eigen/Core>
#include <optional>

#include "attention/attention_parameters.hpp"
#include "attention/attention_passes.hpp"
#include "newton/objective.hpp"

namespace attnreg {

/// Where a model of the Hessian is made, and for which unknowns.
struct ModelPoint {
  const AttentionParameters& parameters;
  const Eigen::VectorXd& u;  ///< the unknowns of X
  const AttentionUnknowns& at;
  bool with_Y = false;  ///< Y is among the unknowns, behind u; else it is eliminated
};

/// Collective, one pass. The positive curvature as a dense matrix M; with eliminated Y its Schur complement. The
/// curvature of row j is a_j a_j^T (x) C_j, C_j d2 x d2. Both factors are symmetric, so that all rows together are one
/// product of p1 x n1 and n1 x p2 matrices, p = d (d + 1) / 2: n1 p2 (2 n2 + 2 p1) flops; pairs (query, key) drawn by
/// their leverage scores, products of those of A1 and A2, would take c D of them, c D^3 flops, which is more as soon as
/// c d1 d2 > n1 / 2. Rank 0 adds up and factors (D^3 / 3 flops), the factor is broadcast: 8 D^2 bytes; before that an
/// all-reduce of 8 bytes tells of a stop. Empty if M is not finite, or if the ranks were asked to stop.
std::optional<Preconditioner> dense_model(AttentionPasses& passes, const ModelPoint& point);

/// Collective, 3 passes, 4 with values. One Kronecker product for X (two, for P and Q), one for Y. With C_j as above:
///
///     K2 = sum_j s_j C_j / d1,   s_j = a_j^T K1^-1 a_j;     K1 = sum_j <C_j, K2^-1> / d2 a_j a_j^T,
///
/// K1 = A1^T A1 at first, so that s_j are the leverage scores of the queries; then K2, K1, K2 in turn (the "flip-flop"
/// of matrix-normal covariances; Dutilleul 1999). P: K1 (x) Q^T K2 Q, Q: K2 (x) P^T K1 P; Y: 2 K^T K (x) I, K = F A3.
/// O(d1^2 + d2^2 + d3^2) memory. Empty if a factor is not finite, or if the ranks were asked to stop.
std::optional<Preconditioner> kronecker_model(AttentionPasses& passes, const ModelPoint& point);

/// Local. Flops of a dense model on the rank with the most to do; of a Hessian product, all ranks alike.
double dense_model_flops(const AttentionPasses& passes);
double product_flops(const AttentionPasses& passes);

}  // namespace attnreg
