#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <vector>

#include "attnreg/newton.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

enum class Start {
  zero,           ///< x0 = 0
  cross_entropy,  ///< a rough minimiser of the cross-entropy, from 0: w = 1e-4, stopped at 1e-2 of its own |g(0)|
  given,          ///< `RegressionOptions::x0`
};

struct RegressionOptions {
  std::string loss = "softmax";  ///< a name of `loss_names`
  Start start = Start::zero;
  Eigen::VectorXd x0;            ///< size d; only for `Start::given`
  /// `gradient_reference` is set by the solver: |g(0)|, whatever the start.
  NewtonOptions newton;
  std::function<void(const IterationRecord&)> on_start_iteration;  ///< the records of the cross-entropy start
};

/// How well f = softmax(A x) reproduces b.
struct FitQuality {
  double total_variation = 0;     ///< 1/2 sum |f - b|
  double kullback_leibler = 0;    ///< sum b ln(b / f), nats; NaN when some b < 0
  double r_squared = 0;           ///< 1 - sum (f - b)^2 / sum (b - mean b)^2; NaN for constant b
  double support_fitted = 0;      ///< 1 / sum f^2, effective number of rows
  double support_target = 0;      ///< (sum b)^2 / sum b^2
};

struct RegressionResult {
  Eigen::VectorXd x;              ///< d, replicated
  Eigen::VectorXd fitted;         ///< f, this rank's rows
  NewtonSummary summary;          ///< of the solve, the start's reads, collectives and seconds included
  int start_iterations = 0;       ///< of the cross-entropy start
  FitQuality fit;
  std::vector<std::string> warnings;  ///< plain sentences, replicated
};

/// Collective. Finds x with softmax(A x) ~ b: a (local) minimiser of phi(A x) + 1/2 |diag(w) A x|^2.
///
/// b, w: this rank's rows, finite. x is replicated. Memory beyond A: 6 rows_local + 4 d^2 doubles on rank 0. Throws
/// `InvalidArgument` on all ranks for wrong sizes, values that are not finite, an unknown loss, or cross-entropy with
/// sum b <= 0. Source: Deng, Li, Song 2023, arXiv 2304.10411, with the corrections of docs/algorithms.md.
RegressionResult solve_regression(const RowMatrix& A, const Eigen::VectorXd& b, const Eigen::VectorXd& w,
                                  const RegressionOptions& options);

/// Local, one read; collective for its two small sums. softmax(A x), this rank's rows.
Eigen::VectorXd predict(const RowMatrix& A, const Eigen::VectorXd& x);

}  // namespace attnreg
