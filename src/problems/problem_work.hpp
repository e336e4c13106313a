#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <string>

#include "problems/problem_rows.hpp"

namespace attnreg {

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

}  // namespace attnreg
