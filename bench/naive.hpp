#pragma once

#include <Eigen/Core>
#include <span>

#include "matrix.hpp"

namespace attnreg::bench {

// The formulas, one entry of A after another: what the kernels are compared with. Row vectors hold this rank's rows.

/// Local. Largest difference, relative to the largest element; infinite for numbers or shapes that cannot be compared.
double difference(const Eigen::Ref<const Eigen::MatrixXd>& found, const Eigen::Ref<const Eigen::MatrixXd>& expected);

/// Local. A v. v: d; result: rows_local.
Eigen::VectorXd naive_multiply(const BenchMatrix& matrix, const Eigen::VectorXd& v);

/// Local. This rank's part of A^T u, summed in long double. u: rows_local; result: d.
Eigen::VectorXd naive_transpose(const BenchMatrix& matrix, const Eigen::VectorXd& u);

/// Collective. 1/2 |softmax(A v) - b|^2 + 1/2 sum_i ridge_i (a_i^T v)^2. v: d; b, ridge: rows_local.
double naive_value(const BenchMatrix& matrix, const Eigen::VectorXd& v, const Eigen::VectorXd& b,
                   const Eigen::VectorXd& ridge);

/// Collective. Leverage scores in diag(weights)^{1/2} A of the given local rows, by Cholesky of the Gram matrix; n d^2
/// flops, one all-reduce of 8 d^2 bytes. weights: rows_local; result: one per given row.
Eigen::VectorXd naive_scores(const BenchMatrix& matrix, const Eigen::VectorXd& weights, std::span<const Index> rows);

}  // namespace attnreg::bench
