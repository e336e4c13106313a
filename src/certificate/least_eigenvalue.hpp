#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>

namespace attnreg {

/// A symmetric operator on a subspace of R^D, known by its products. Vectors are replicated.
struct SymmetricOperator {
  std::function<Eigen::VectorXd(const Eigen::VectorXd&)> product;
  std::function<Eigen::VectorXd(const Eigen::VectorXd&)> project;  ///< onto the subspace, orthogonally
  Eigen::Index size = 0;                                           ///< D
  Eigen::Index dimension = 0;                                      ///< of the subspace
};

struct LanczosOptions {
  int most_steps = 300;      ///< products; as many vectors of length D are kept
  int complete_up_to = 128;  ///< a subspace of that dimension is gone through
  double relative = 0.01;    ///< stop where twice in a row the residual is this part of |eigenvalue|, or
  double rounding = 1e-14;   ///< where residual and eigenvalue are below this part of the largest |eigenvalue|
  std::uint64_t seed = 1;    ///< of the first vector
};

/// What was found. Replicated.
struct LeastEigenvalue {
  double value = 0;          ///< the Rayleigh quotient of `vector`: no eigenvalue is smaller than the least one
  double residual = 0;       ///< |H v - value v|: an eigenvalue is that near
  double largest = 0;        ///< estimate of the largest |eigenvalue|, from below
  Eigen::VectorXd vector;    ///< D, |v| = 1
  int steps = 0;             ///< products
  bool is_finite = false;    ///< false: a product was not finite, or the subspace is empty; the rest is of no use
  bool is_settled = false;   ///< the residual is as small as was asked for
  bool is_complete = false;  ///< the whole subspace was gone through: no eigenvalue was missed
};

/// Collective, if products are. The least eigenvalue by the method of Lanczos with full reorthogonalisation, from a
/// seeded random vector: that it is the least one is a matter of this vector unless `is_complete`; it fails to have a
/// part along an eigenvector with probability 0. Operations besides the products: 4 D k^2 for k steps.
LeastEigenvalue least_eigenvalue(const SymmetricOperator& H, const LanczosOptions& options);

}  // namespace attnreg
