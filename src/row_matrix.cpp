#include "attnreg/row_matrix.hpp"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <string>
#include <vector>

#include "lapack.hpp"
#include "packed_columns.hpp"
#include "row_kernels.hpp"

namespace attnreg {

namespace {

/// d x d lower triangles summed per thread.
struct GramParts {
  RowMajorMatrix positive, negative;

  GramParts& operator+=(const GramParts& other) {
    positive += other.positive;
    negative += other.negative;
    return *this;
  }
};

/// C += P^T P in the lower triangle, P: k x d. BLAS is faster for large d, but not safe from several threads at once
/// (packed_columns.hpp).
void add_outer_products(const Eigen::Ref<const RowMajorMatrix>& P, bool single_threaded, RowMajorMatrix& C) {
  if (P.rows() == 0) return;
  if (!single_threaded) return add_product(P.transpose(), P, Part::lower, C);
  const int order = static_cast<int>(P.cols()), rows = static_cast<int>(P.rows());
  const double one = 1;
  dsyrk_("U", "N", &order, &rows, &one, P.data(), &order, &one, C.data(), &order);  // column-major: P^T, and C^T
}

Eigen::MatrixXd full_symmetric(const RowMajorMatrix& lower) {
  Eigen::MatrixXd full = lower.triangularView<Eigen::Lower>();
  full.triangularView<Eigen::StrictlyUpper>() = full.transpose();
  return full;
}

}  // namespace

RowMatrix::RowMatrix(Communicator communicator, RowPartition partition, Index columns)
    : communicator_(std::move(communicator)),
      partition_(std::move(partition)),
      columns_(columns),
      reads_(std::make_shared<double>(0)),
      row_norms_(std::make_shared<Eigen::VectorXd>()) {
  if (columns < 1 || partition_.rows_global() < 1)
    throw InvalidArgument("A is " + std::to_string(partition_.rows_global()) + " x " + std::to_string(columns) +
                              ": it needs at least one row and one column",
                          Error::Scope::all_ranks);
  if (partition_.ranks() != communicator_.size())
    throw InvalidArgument("the row partition is for " + std::to_string(partition_.ranks()) + " ranks, but there are " +
                              std::to_string(communicator_.size()),
                          Error::Scope::all_ranks);
}

RowMatrix::RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrix rows)
    : RowMatrix(std::move(communicator), std::move(partition), rows.cols()) {
  check_rows(rows.rows());
  auto owner = std::make_shared<const RowMajorMatrix>(std::move(rows));
  double_ = owner->data();
  owner_ = std::move(owner);
}

RowMatrix::RowMatrix(Communicator communicator, RowPartition partition,
                     Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> rows)
    : RowMatrix(std::move(communicator), std::move(partition), rows.cols()) {
  check_rows(rows.rows());
  auto owner = std::make_shared<const decltype(rows)>(std::move(rows));
  single_ = owner->data();
  owner_ = std::move(owner);
  is_single_ = true;
}

void RowMatrix::check_rows(Index rows) const {
  if (rows != rows_local())
    throw InvalidArgument("rank " + std::to_string(communicator_.rank()) + " owns " + std::to_string(rows_local()) +
                          " rows but was given " + std::to_string(rows));
}

RowMatrix RowMatrix::view(Communicator communicator, RowPartition partition, const double* rows, Index columns) {
  RowMatrix matrix(std::move(communicator), std::move(partition), columns);
  matrix.double_ = rows;
  return matrix;
}

RowMatrix RowMatrix::view(Communicator communicator, RowPartition partition, const float* rows, Index columns) {
  RowMatrix matrix(std::move(communicator), std::move(partition), columns);
  matrix.single_ = rows;
  matrix.is_single_ = true;
  return matrix;
}

int RowMatrix::pass_threads() const { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

void RowMatrix::on_threads(int threads, const std::function<void(int)>& body) {
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(threads));
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) {
    try {
      body(thread);
    } catch (...) {
      failures[static_cast<std::size_t>(thread)] = std::current_exception();
    }
  }
  for (const auto& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

void RowMatrix::visit_tiles(int thread, int threads, const std::function<void(const Tile&)>& visit) const {
  const std::int64_t begin = first_row(), end = begin + rows_local(), tile = tile_rows(columns_);
  const std::int64_t first_tile = begin / tile, tiles = begin == end ? 0 : (end + tile - 1) / tile - first_tile;
  std::vector<double> scratch(is_single_ ? static_cast<std::size_t>(std::min(tile, end - begin) * columns_) : 0);
  for (std::int64_t k = tiles * thread / threads; k < tiles * (thread + 1) / threads; ++k) {
    const std::int64_t from = std::max(begin, (first_tile + k) * tile), to = std::min(end, (first_tile + k + 1) * tile);
    const Index first = static_cast<Index>(from - begin), rows = static_cast<Index>(to - from);
    const double* data = double_ + (is_single_ ? 0 : first * columns_);
    if (is_single_) {
      std::copy_n(single_ + first * columns_, rows * columns_, scratch.begin());
      data = scratch.data();
    }
    visit(Tile{first, Eigen::Map<const RowMajorMatrix>(data, rows, columns_)});
  }
}

void RowMatrix::visit_rows(std::span<const Index> rows_local, const RowVisitor& visit) const {
  const auto threads = static_cast<std::size_t>(pass_threads()), width = static_cast<std::size_t>(columns_);
  on_threads(pass_threads(), [&](int thread) {
    const auto part = static_cast<std::size_t>(thread), count = rows_local.size();
    std::vector<double> scratch(is_single_ ? width : 0);
    for (std::size_t k = count * part / threads; k < count * (part + 1) / threads; ++k) {
      const Index offset = rows_local[k] * columns_;
      const double* row = is_single_ ? scratch.data() : double_ + offset;
      if (is_single_) std::copy_n(single_ + offset, columns_, scratch.begin());
      visit(k, std::span<const double>(row, width));
    }
  });
}

Eigen::VectorXd RowMatrix::multiply(const Eigen::VectorXd& x) const {
  Eigen::VectorXd z(rows_local());
  pass(0, [&](const Tile& tile, int&) {
    kernels::multiply(tile.rows.data(), tile.rows.rows(), columns_, x.data(), z.data() + tile.first_local);
  });
  return z;
}

Eigen::MatrixXd RowMatrix::transpose_multiply(const Eigen::MatrixXd& U) const {
  const Eigen::MatrixXd zero = Eigen::MatrixXd::Zero(columns_, U.cols());
  return pass(zero, [&](const Tile& tile, Eigen::MatrixXd& sum) {
    for (Index k = 0; k < U.cols(); ++k)
      kernels::add_transpose_multiply(tile.rows.data(), tile.rows.rows(), columns_, &U(tile.first_local, k),
                                      sum.col(k).data());
  });
}

Eigen::VectorXd RowMatrix::normal_product(const Eigen::VectorXd& p, const RowWeights& weights,
                                          Eigen::VectorXd& y) const {
  y.resize(rows_local());
  const Eigen::VectorXd zero = Eigen::VectorXd::Zero(columns_);
  return pass(zero, [&](const Tile& tile, Eigen::VectorXd& sum) {
    const Index rows = tile.rows.rows();
    double* tile_y = y.data() + tile.first_local;
    kernels::multiply(tile.rows.data(), rows, columns_, p.data(), tile_y);
    std::array<double, 1024> u;  // no tile has more rows
    weights(tile.first_local, std::span<const double>(tile_y, static_cast<std::size_t>(rows)),
            std::span<double>(u.data(), static_cast<std::size_t>(rows)));
    kernels::add_transpose_multiply(tile.rows.data(), rows, columns_, u.data(), sum.data());
  });
}

RowMatrix::SignedGram RowMatrix::signed_gram(const Eigen::VectorXd& weights, const Eigen::VectorXd& centre) const {
  const RowMajorMatrix zero = RowMajorMatrix::Zero(columns_, columns_);
  const bool single_threaded = pass_threads() == 1;
  const auto parts = pass(GramParts{zero, zero}, [&](const Tile& tile, GramParts& sums) {
    const Index rows = tile.rows.rows();
    RowMajorMatrix packed(rows, columns_);  // rows of positive weight from the top, of negative from the bottom
    Index top = 0, bottom = rows;
    for (Index i = 0; i < rows; ++i) {
      const double weight = weights[tile.first_local + i];
      if (weight == 0) continue;
      const Index to = weight > 0 ? top++ : --bottom;
      packed.row(to) = std::sqrt(std::abs(weight)) * (tile.rows.row(i) - centre.transpose());
    }
    add_outer_products(packed.topRows(top), single_threaded, sums.positive);
    add_outer_products(packed.bottomRows(rows - bottom), single_threaded, sums.negative);
  });
  return {full_symmetric(parts.positive), full_symmetric(parts.negative)};
}

Eigen::VectorXd RowMatrix::absolute_transpose_multiply(const Eigen::VectorXd& u) const {
  const Eigen::VectorXd zero = Eigen::VectorXd::Zero(columns_);
  return pass(zero, [&](const Tile& tile, Eigen::VectorXd& sum) {
    kernels::add_absolute_transpose_multiply(tile.rows.data(), tile.rows.rows(), columns_, u.data() + tile.first_local,
                                             sum.data());
  });
}

const Eigen::VectorXd& RowMatrix::row_norms() const {
  if (row_norms_->size() == rows_local()) return *row_norms_;
  row_norms_->resize(rows_local());
  pass(0, [&](const Tile& tile, int&) {
    row_norms_->segment(tile.first_local, tile.rows.rows()) = tile.rows.rowwise().norm();
  });
  *reads_ -= 1;
  return *row_norms_;
}

}  // namespace attnreg
