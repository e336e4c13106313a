#include "problems/problem_work.hpp"

#include <algorithm>
#include <exception>
#include <limits>

#include "numbers/exact_sum.hpp"

namespace attnreg {

ProblemWork::ProblemWork(const Communicator& communicator, const ProblemOptions& options, const std::string& directory)
    : communicator_(communicator),
      options_(options),
      directory_(directory),
      source_(communicator, options),
      partition_(RowPartition::in_blocks(options.rows, ProblemRows::block_rows, communicator.size())) {}

void ProblemWork::for_each_range(const std::function<void(Index first_local, Index rows)>& visit) const {
  const Index blocks = (rows_local() + ProblemRows::block_rows - 1) / ProblemRows::block_rows;
  std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic)
  for (Index block = 0; block < blocks; ++block) {
    try {
      const Index from = block * ProblemRows::block_rows;
      visit(from, std::min(ProblemRows::block_rows, rows_local() - from));
    } catch (...) {
#pragma omp critical(attnreg_problem_failure)
      failure = std::current_exception();
    }
  }
  communicator_.agree([&] {
    if (failure) std::rethrow_exception(failure);
  });
}

void ProblemWork::for_each_block(const VisitBlock& visit) const {
  for_each_range([&](Index first_local, Index count) {
    RowMajorMatrix rows(count, columns());
    source_.fill(first_row() + first_local, rows);
    visit(first_local, rows);
  });
}

double ProblemWork::sum(const Eigen::VectorXd& terms) const { return exact_sum(communicator_, terms, rows_global()); }

double ProblemWork::max(const Eigen::VectorXd& values) const {
  return communicator_.max(values.size() == 0 ? -std::numeric_limits<double>::infinity() : values.maxCoeff());
}

}  // namespace attnreg
