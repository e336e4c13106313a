#include "algebra/scalapack_grid.hpp"

#include <mpi.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "errors/refuse.hpp"

extern "C" {
int Csys2blacs_handle(MPI_Comm communicator);
void Cfree_blacs_system_handle(int handle);
void Cblacs_gridmap(int* context, int* ranks, int leading_dimension, int rows, int columns);
void Cblacs_gridexit(int context);
}

namespace attnreg {

namespace {

constexpr Index kLargestBlock = Index{1} << 20;
constexpr std::int64_t kLargestInt = std::numeric_limits<int>::max();

}  // namespace

LinearSolverOptions with_grid(int ranks, LinearSolverOptions options) {
  if (options.block_size < 1 || options.block_size > kLargestBlock)
    refuse("block size " + std::to_string(options.block_size) + ": give 1 to " + std::to_string(kLargestBlock));
  if (options.grid_rows == 0 && options.grid_columns == 0) {
    options.grid_rows = static_cast<int>(std::sqrt(static_cast<double>(ranks)));
    options.grid_columns = ranks / options.grid_rows;
  }
  const auto processes = std::int64_t{options.grid_rows} * options.grid_columns;
  if (options.grid_rows < 1 || options.grid_columns < 1 || processes > ranks)
    refuse("a process grid of " + std::to_string(options.grid_rows) + " x " + std::to_string(options.grid_columns) +
           " for " + std::to_string(ranks) + " ranks: give 1 to " + std::to_string(ranks) + " processes");
  return options;
}

ProcessGrid::ProcessGrid(const Communicator& communicator, const LinearSolverOptions& options)
    : communicator_(communicator.handle()) {
  const LinearSolverOptions complete = with_grid(communicator.size(), options);
  rows_ = complete.grid_rows;
  columns_ = complete.grid_columns;
  block_size_ = complete.block_size;
  std::vector<int> ranks;  // column by column
  for (int column = 0; column < columns_; ++column)
    for (int row = 0; row < rows_; ++row) ranks.push_back(row * columns_ + column);
  context_ = system_handle_ = Csys2blacs_handle(communicator_.handle());
  Cblacs_gridmap(&context_, ranks.data(), rows_, rows_, columns_);
}

ProcessGrid::~ProcessGrid() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized != 0) return;
  if (!is_idle()) Cblacs_gridexit(context_);
  Cfree_blacs_system_handle(system_handle_);
}

namespace scalapack {

void require_32_bits(std::int64_t local_rows, std::int64_t local_columns, std::int64_t block) {
  const bool fits = local_rows <= kLargestInt && local_columns <= kLargestInt &&
                    (local_columns == 0 || local_rows <= kLargestInt / local_columns) &&
                    local_rows + local_columns + 2 * block <= kLargestInt / block;
  if (fits) return;
  throw OutOfMemory("a process would hold " + std::to_string(local_rows) + " x " + std::to_string(local_columns) +
                        " entries in blocks of " + std::to_string(block) +
                        ": ScaLAPACK counts entries and work space in 32 bits; use more ranks or smaller blocks",
                    Error::Scope::all_ranks);
}

}  // namespace scalapack

}  // namespace attnreg
