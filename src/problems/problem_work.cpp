#include "problems/problem_work.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <exception>
#include <limits>

#include "algebra/dense_factors.hpp"
#include "numbers/exact_sum.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

/// Haar distributed: the orthogonal factor of a Gaussian matrix, with the signs that make R's diagonal positive.
Eigen::MatrixXd random_rotation(std::uint64_t seed, Eigen::Index d) {
  RowMajorMatrix gaussian(d, d);
  RandomStream(seed, Purpose::problem_rotation).normal_rows(0, gaussian);
  return orthonormal_columns(gaussian);
}

}  // namespace

ProblemWork::ProblemWork(const Communicator& communicator, const ProblemOptions& options, const std::string& directory)
    : communicator_(communicator),
      options_(options),
      directory_(directory),
      source_(communicator, options),
      partition_(RowPartition::in_blocks(options.rows, ProblemRows::block_rows, communicator.size())) {}

void ProblemWork::for_each_range(const std::function<void(Index first_local, Index rows)>& visit) const {
  const Index blocks = (rows_local() + ProblemRows::block_rows - 1) / ProblemRows::block_rows;
  std::exception_ptr failure;
  const InWork work("problem", "rows", static_cast<double>(rows_local()));
#pragma omp parallel for schedule(dynamic)
  for (Index block = 0; block < blocks; ++block) {
    try {
      const Index from = block * ProblemRows::block_rows;
      const Index rows = std::min(ProblemRows::block_rows, rows_local() - from);
      visit(from, rows);
      InWork::add(rows);
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

ProblemRows::ProblemRows(const Communicator& communicator, const ProblemOptions& options)
    : options_(options),
      entries_(options.seed, Purpose::problem_rows),
      factors_(options.seed, Purpose::problem_row_scale),
      columns_(options.seed, Purpose::problem_columns),
      solution_(static_cast<Eigen::Index>(options.columns)) {
  RandomStream(options.seed, Purpose::problem_solution).normals(0, span_of(solution_));
  if (options.preset == Preset::illcond) rotate(communicator);
  if (options.preset != Preset::easy && options.preset != Preset::coherent) solution_ *= options.spread;
}

void ProblemRows::rotate(const Communicator& communicator) {
  const Eigen::Index d = solution_.size();
  Eigen::MatrixXd Q;
  communicator.agree([&] {
    spectrum_.resize(d, d);
    Q = communicator.is_root() ? random_rotation(options_.seed, d) : Eigen::MatrixXd(d, d);
  });
  communicator.broadcast(span_of(Q));
  Eigen::VectorXd sigma = Eigen::VectorXd::Ones(d), y(d);
  for (Eigen::Index k = 0; k < d; ++k) {
    if (k > 0) sigma[k] = std::pow(options_.decay, -static_cast<double>(k) / static_cast<double>(d - 1));
    y[k] = std::pow(sigma[k], 1 - options_.x_power) * solution_[k];
  }
  // A x = G diag(sigma) Q x = G y: |y| = sqrt(d) gives logits of standard deviation 1.
  y *= std::sqrt(static_cast<double>(d)) / y.norm();
  solution_ = Q.transpose() * y.cwiseQuotient(sigma);
  spectrum_ = sigma.asDiagonal() * Q;
}

double ProblemRows::row_factor(std::int64_t row) const {
  std::array<double, 3> normal;
  factors_.normals(row, normal);
  return std::abs(normal[2]) / std::sqrt(0.5 * (normal[0] * normal[0] + normal[1] * normal[1]));
}

void ProblemRows::fill(std::int64_t first, RowMajorMatrix& rows) const {
  entries_.normal_rows(first, rows);
  rows *= 1 / std::sqrt(static_cast<double>(rows.cols()));
  if (options_.preset == Preset::illcond) rows = rows * spectrum_;
  if (options_.preset == Preset::coherent)
    for (Eigen::Index i = 0; i < rows.rows(); ++i) rows.row(i) *= row_factor(first + i);
  if (options_.type == Storage::float32) rows = rows.cast<float>().cast<double>().eval();
}

void ProblemRows::fill_sparse(std::int64_t row, std::span<std::int32_t> columns, std::span<double> values) const {
  const auto k = static_cast<std::int64_t>(columns.size());
  entries_.normals(row, values);
  for (std::int64_t j = 0; j < k; ++j) {
    const std::int64_t begin = j * options_.columns / k, end = (j + 1) * options_.columns / k;
    const double place = columns_.uniform(row, static_cast<std::uint32_t>(j)) * static_cast<double>(end - begin);
    columns[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(begin + static_cast<std::int64_t>(place));
  }
  const double scale = 1 / std::sqrt(static_cast<double>(k));
  for (double& value : values) {
    value *= scale;
    if (options_.type == Storage::float32) value = static_cast<float>(value);
  }
}

}  // namespace attnreg
