#include "algebra/distributed_matrix.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

using Eigen::MatrixXd;
using Eigen::VectorXd;

Index local_count(Index n, Index block, int process, int processes) {
  const Index blocks = n / block, extra = blocks % processes;
  const Index whole = (blocks / processes + (process < extra ? 1 : 0)) * block;
  return process == extra ? whole + n % block : whole;
}

Index global_index(Index local, Index block, int process, int processes) {
  return (local / block * processes + process) * block + local % block;
}

DistributedMatrix::DistributedMatrix(Empty, std::shared_ptr<const ProcessGrid> grid, Index rows, Index columns)
    : grid_(std::move(grid)), rows_(rows), columns_(columns) {
  if (grid_->is_idle()) return;
  process_row_ = grid_->row_of(grid_->communicator().rank());
  process_column_ = grid_->column_of(grid_->communicator().rank());
}

DistributedMatrix::DistributedMatrix(std::shared_ptr<const ProcessGrid> grid, Index rows, Index columns)
    : DistributedMatrix(Empty{}, std::move(grid), rows, columns) {
  const Index block = grid_->block_size();
  const Index most_rows = local_count(rows, block, 0, grid_->rows());
  const Index most_columns = local_count(columns, block, 0, grid_->columns());
  scalapack::require_32_bits(most_rows, most_columns, block);
  const auto shape = std::to_string(rows) + " x " + std::to_string(columns);
  require_memory(grid_->communicator(), 8.0 * static_cast<double>(most_rows) * static_cast<double>(most_columns),
                 "a " + shape + " matrix over " + std::to_string(grid_->rows()) + " x " +
                     std::to_string(grid_->columns()) + " processes");
  if (grid_->is_idle()) return;
  local_ = MatrixXd::Zero(local_count(rows, block, process_row_, grid_->rows()),
                          local_count(columns, block, process_column_, grid_->columns()));
}

DistributedMatrix DistributedMatrix::of(std::shared_ptr<const ProcessGrid> grid, const MatrixXd& replicated) {
  DistributedMatrix matrix(Empty{}, std::move(grid), replicated.rows(), replicated.cols());
  const ProcessGrid& processes = matrix.grid();
  if (processes.is_idle()) return matrix;
  const Index block = processes.block_size();
  matrix.local_.resize(local_count(replicated.rows(), block, matrix.process_row_, processes.rows()),
                       local_count(replicated.cols(), block, matrix.process_column_, processes.columns()));
  matrix.for_each([&](Index i, Index j, double& entry) { entry = replicated(i, j); });
  return matrix;
}

std::vector<Index> DistributedMatrix::indices_of(Index first, Index count, int process, int processes) const {
  const Index block = grid_->block_size();
  std::vector<Index> indices;
  for (Index local = local_count(first, block, process, processes);
       local < local_count(first + count, block, process, processes); ++local)
    indices.push_back(global_index(local, block, process, processes));
  return indices;
}

void DistributedMatrix::add_sum(const Communicator& communicator, const Eigen::Ref<const MatrixXd>& part,
                                Index first_row, Index first_column) {
  std::vector<double> packed;
  packed.reserve(static_cast<std::size_t>(part.size()));
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < communicator.size(); ++rank) {
    const auto before = static_cast<std::int64_t>(packed.size());
    if (!grid_->is_idle(rank)) {
      const auto rows = indices_of(first_row, part.rows(), grid_->row_of(rank), grid_->rows());
      for (const Index j : indices_of(first_column, part.cols(), grid_->column_of(rank), grid_->columns()))
        for (const Index i : rows) packed.push_back(part(i - first_row, j - first_column));
    }
    counts.push_back(static_cast<std::int64_t>(packed.size()) - before);
  }
  VectorXd own(counts[static_cast<std::size_t>(communicator.rank())]);
  communicator.sum_scatter(packed, counts, span_of(own));
  if (own.size() == 0) return;
  const Index block = grid_->block_size();
  const Index row = local_count(first_row, block, process_row_, grid_->rows());
  const Index column = local_count(first_column, block, process_column_, grid_->columns());
  const Index height = local_count(first_row + part.rows(), block, process_row_, grid_->rows()) - row;
  local_.block(row, column, height, own.size() / height) += own.reshaped(height, own.size() / height);
}

MatrixXd DistributedMatrix::replicated() const {
  MatrixXd all = MatrixXd::Zero(rows_, columns_);
  const std::vector<Index> rows = indices_of(0, rows_, process_row_, grid_->rows());
  for (Index c = 0; c < local_.cols(); ++c)
    for (Index r = 0; r < local_.rows(); ++r) all(rows[static_cast<std::size_t>(r)], column(c)) = local_(r, c);
  grid_->communicator().sum(span_of(all));  // one rank has each entry: exact
  return all;
}

template <class Function>
void DistributedMatrix::for_diagonal(Function&& function) const {
  const Index block = grid_->block_size();
  for (Index c = 0; c < local_.cols(); ++c) {
    const Index j = column(c);
    if (j < rows_ && j / block % grid_->rows() == process_row_)
      function(j, local_count(j, block, process_row_, grid_->rows()), c);
  }
}

VectorXd DistributedMatrix::diagonal() const {
  VectorXd all = VectorXd::Zero(std::min(rows_, columns_));
  for_diagonal([&](Index j, Index r, Index c) { all[j] = local_(r, c); });
  grid_->communicator().sum(span_of(all));
  return all;
}

void DistributedMatrix::set_diagonal(const VectorXd& diagonal) {
  for_diagonal([&](Index j, Index r, Index c) { local_(r, c) = diagonal[j]; });
}

bool DistributedMatrix::is_finite() const { return grid_->communicator().min(std::int64_t{local_.allFinite()}) != 0; }

}  // namespace attnreg
