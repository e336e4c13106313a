#pragma once

#include <cstdint>

#include "support/reference.hpp"

/// Matrices whose leverage scores differ in kind, and their scores by dense algebra. The same on all ranks.
namespace attnreg::reference {

enum class Rows {
  gaussian,  ///< N(0, 1) entries: all scores near d / n
  cauchy,    ///< Gaussian rows times |Cauchy|: some scores near 1
  spiky,     ///< 0.01 Gaussian rows, and 4 d rows that are 5 times a unit vector, with most of the scores
};
inline constexpr Rows all_rows[] = {Rows::gaussian, Rows::cauchy, Rows::spiky};

RowMajorMatrix score_problem(Rows kind, Index n, Index d, std::uint64_t seed = 1);

/// The scores of diag(weights)^{1/2} A: row norms of an orthonormal basis, by QR with column pivoting.
VectorXd dense_scores(const RowMajorMatrix& A, const VectorXd& weights);
VectorXd dense_scores(const RowMajorMatrix& A);

}  // namespace attnreg::reference
