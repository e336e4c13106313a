#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

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

/// An artificial problem being made: its rows, and which of them are this rank's. Ranks get whole blocks.
class ProblemWork {
 public:
  /// Collective. The references must outlive the object.
  ProblemWork(const Communicator& communicator, const ProblemOptions& options, const std::string& directory);

  const Communicator& communicator() const { return communicator_; }
  const ProblemOptions& options() const { return options_; }
  const ProblemRows& source() const { return source_; }
  std::int64_t rows_global() const { return options_.rows; }
  Index columns() const { return static_cast<Index>(options_.columns); }
  std::int64_t first_row() const { return partition_.begin(communicator_.rank()); }
  Index rows_local() const { return partition_.rows_local(communicator_.rank()); }
  std::string path(const std::string& file) const { return directory_ + "/" + file; }

  /// Gets a block of this rank's rows; `first_local` is the position of the first.
  using VisitBlock = std::function<void(Index first_local, const RowMajorMatrix& rows)>;

  /// Collective. Hands the blocks of this rank's rows to `visit`, from several threads at once and in any order.
  void for_each_range(const std::function<void(Index first_local, Index rows)>& visit) const;

  /// Collective. Makes all blocks of this rank's rows and hands them to `visit`, from several threads at once and in
  /// any order.
  void for_each_block(const VisitBlock& visit) const;

  /// Collective. Sum and maximum over one value per row, the same bits for any number of ranks.
  double sum(const Eigen::VectorXd& terms) const;
  double max(const Eigen::VectorXd& values) const;

 private:
  const Communicator& communicator_;
  const ProblemOptions& options_;
  const std::string& directory_;
  ProblemRows source_;
  RowPartition partition_;
};

/// Collective. x_true of the coherent preset, up to its scale: orthogonal to the min(n, d) / 4 rows of largest norm (of
/// equal ones the first). Sets the two facts about row norms. Replicated.
Eigen::VectorXd orthogonal_solution(const ProblemWork& work, ProblemFacts& facts);

/// Collective. The scale at which softmax(scale z) has min(neff, (n + 1) / 2) effective rows, by bisection to 1e-10
/// relative; 1 for a single row. z: this rank's rows.
double scale_for_effective_rows(const ProblemWork& work, const Eigen::VectorXd& z);

}  // namespace attnreg
