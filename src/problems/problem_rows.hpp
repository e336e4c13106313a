#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <span>

#include "numbers/random.hpp"
#include "problems/problem_generator.hpp"

namespace attnreg {

/// The rows of A of an artificial problem as a function of their index, and x_true as far as it does not depend on
/// them. Replicated: every rank can make every row. Members are const and safe to call from several threads.
class ProblemRows {
 public:
  /// Blocks of rows start at multiples of this, and are shorter only at the end of A. Part of the definition of the
  /// data: products of other shapes may round otherwise.
  static constexpr Eigen::Index block_rows = 1024;
  /// No normal number of `RandomStream` exceeds sqrt(2 ln 2^53) = 8.572.
  static constexpr double largest_normal = 8.6;

  /// Collective. For illcond rank 0 makes the rotation, 3 d^3 flops, and broadcasts its 8 d^2 bytes.
  ProblemRows(const Communicator& communicator, const ProblemOptions& options);

  /// Local. Fills `rows` (k x d) with rows [first, first + k) as they are stored; not for sparse. Illcond needs whole
  /// blocks.
  void fill(std::int64_t first, RowMajorMatrix& rows) const;

  /// Local. The k columns, increasing, and values of a row of sparse.
  void fill_sparse(std::int64_t row, std::span<std::int32_t> columns, std::span<double> values) const;

  /// Local. x_true; for coherent before the projection and scaling.
  const Eigen::VectorXd& solution() const { return solution_; }

 private:
  /// diag(sigma) Q for illcond, and the x_true that goes with it.
  void rotate(const Communicator& communicator);
  /// |t_2| of a row.
  double row_factor(std::int64_t row) const;

  ProblemOptions options_;
  RandomStream entries_, factors_, columns_;
  Eigen::VectorXd solution_;
  Eigen::MatrixXd spectrum_;  ///< diag(sigma) Q, d x d
};

}  // namespace attnreg
