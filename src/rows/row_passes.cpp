#include "rows/row_passes.hpp"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "kernels/csr_kernels.hpp"
#include "rows/packed_columns.hpp"
#include "rows/weighted_gram.hpp"

namespace attnreg {

using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

/// The products A x that several requests want without compensation, as one matrix product; nothing if there are few.
class SharedProducts {
 public:
  explicit SharedProducts(std::span<const RowPasses::MapRequest> requests) {
    constexpr std::size_t kFew = 3;
    for (const auto& request : requests)
      if (request.x != nullptr && !request.compensated) wanted_.push_back(&request);
    if (wanted_.size() <= kFew) wanted_.clear();
    if (empty()) return;
    MatrixXd X(wanted_[0]->x->size(), static_cast<Index>(wanted_.size()));
    for (std::size_t k = 0; k < wanted_.size(); ++k) X.col(static_cast<Index>(k)) = *wanted_[k]->x;
    columns_.emplace(X);
  }

  bool empty() const { return wanted_.empty(); }
  void multiply(const Tile& tile) const {
    if (empty()) return;
    columns_->multiply(tile, [&](Index first, const RowMajorMatrix& Y) {
      const Index last = std::min(first + Y.cols(), static_cast<Index>(wanted_.size()));
      for (Index k = first; k < last; ++k)
        wanted_[static_cast<std::size_t>(k)]->z->segment(tile.first_local(), tile.rows()) = Y.col(k - first);
    });
  }

 private:
  std::vector<const RowPasses::MapRequest*> wanted_;
  std::optional<PackedColumns> columns_;
};

/// The requests' maps of one tile, their columns side by side.
void map_tile(const Tile& tile, std::span<const RowPasses::MapRequest> requests, const SharedProducts& products,
              RowPasses::MapSums& sums) {
  products.multiply(tile);
  const Index rows = tile.rows(), columns = sums.columns.cols();
  RowMajorMatrix U(rows, columns), own;
  Index first_column = 0;
  double* scalars = sums.scalars.data();
  for (const auto& [x, compensated, z, width, count, map] : requests) {
    if (x != nullptr && compensated) tile.multiply(x->data(), *compensated, z->data() + tile.first_local());
    if (x != nullptr && !compensated && products.empty()) tile.multiply(x->data(), z->data() + tile.first_local());
    if (map != nullptr && width == columns) {
      (*map)(tile.first_local(), rows, U.data(), scalars);
    } else if (map != nullptr) {
      own.resize(rows, width);
      (*map)(tile.first_local(), rows, own.data(), scalars);
      U.middleCols(first_column, width) = own;
    }
    first_column += width;
    scalars += count;
  }
  if (columns > 0) tile.add_transpose_multiply(U.data(), columns, sums.columns.data());
}

/// The rows of either sign, summed per thread.
struct GramParts {
  WeightedGram positive, negative;

  GramParts& operator+=(GramParts& other) {
    positive += other.positive;
    negative += other.negative;
    return *this;
  }
};

MatrixXd full_symmetric(const RowMajorMatrix& lower) {
  MatrixXd full = lower.triangularView<Eigen::Lower>();
  full.triangularView<Eigen::StrictlyUpper>() = full.transpose();
  return full;
}

}  // namespace

RowPasses::RowPasses(Communicator communicator, RowPartition partition, const RowPointers& rows,
                     std::shared_ptr<const void> owner)
    : communicator_(std::move(communicator)),
      partition_(std::move(partition)),
      rows_(rows),
      owner_(std::move(owner)),
      reads_(std::make_shared<double>(0)),
      row_norms_(std::make_shared<VectorXd>()) {
  if (rows.columns < 1 || partition_.rows_global() < 1)
    throw InvalidArgument("A is " + std::to_string(partition_.rows_global()) + " x " + std::to_string(rows.columns) +
                              ": it needs at least one row and one column",
                          Error::Scope::all_ranks);
  if (partition_.ranks() != communicator_.size())
    throw InvalidArgument("the row partition is for " + std::to_string(partition_.ranks()) + " ranks, but there are " +
                              std::to_string(communicator_.size()),
                          Error::Scope::all_ranks);
}

int RowPasses::pass_threads() const { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

void RowPasses::on_threads(int threads, const std::function<void(int)>& body) {
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

void RowPasses::visit_tiles(int thread, int threads, const std::function<void(const Tile&)>& visit) const {
  const std::int64_t begin = first_row(), end = begin + rows_local(), tile = tile_rows(columns());
  const std::int64_t first_tile = begin / tile, tiles = begin == end ? 0 : (end + tile - 1) / tile - first_tile;
  std::vector<double> scratch;
  for (std::int64_t k = tiles * thread / threads; k < tiles * (thread + 1) / threads; ++k) {
    const std::int64_t from = std::max(begin, (first_tile + k) * tile), to = std::min(end, (first_tile + k + 1) * tile);
    visit(Tile(rows_, static_cast<Index>(from - begin), static_cast<Index>(to - from), scratch));
  }
}

void RowPasses::visit_rows(std::span<const Index> rows_local, const RowVisitor& visit) const {
  const auto threads = static_cast<std::size_t>(pass_threads()), width = static_cast<std::size_t>(columns());
  on_threads(pass_threads(), [&](int thread) {
    const auto part = static_cast<std::size_t>(thread), count = rows_local.size();
    std::vector<double> scratch;
    for (std::size_t k = count * part / threads; k < count * (part + 1) / threads; ++k)
      visit(k, std::span<const double>(Tile(rows_, rows_local[k], 1, scratch).dense().data(), width));
  });
}

std::int64_t RowPasses::entries_local() const {
  return is_sparse() ? rows_.sparse->entries() : std::int64_t{rows_local()} * columns();
}

double RowPasses::bytes_local() const {
  const double item = storage() == Storage::float32 ? sizeof(float) : sizeof(double);
  const double entry = is_sparse() ? item + sizeof(std::int32_t) : item;
  return entry * static_cast<double>(entries_local()) +
         (is_sparse() ? static_cast<double>(sizeof(std::int64_t)) * static_cast<double>(rows_local() + 1) : 0);
}

VectorXd RowPasses::multiply(const VectorXd& x) const {
  VectorXd z;
  mapped({.x = &x, .z = &z});
  return z;
}

VectorXd RowPasses::multiply(const VectorXd& x, Compensated compensated) const {
  VectorXd z;
  mapped({.x = &x, .compensated = compensated, .z = &z});
  return z;
}

MatrixXd RowPasses::multiply_columns(const MatrixXd& X) const {
  MatrixXd Z(rows_local(), X.cols());
  const PackedColumns columns(X);
  pass(0, [&](const Tile& tile, int&) {
    columns.multiply(tile, [&](Index first, const RowMajorMatrix& Y) {
      const Index width = std::min(Y.cols(), X.cols() - first);
      Z.block(tile.first_local(), first, tile.rows(), width) = Y.leftCols(width);
    });
  });
  return Z;
}

MatrixXd RowPasses::transpose_multiply(const MatrixXd& U) const {
  return transpose_map(U.cols(), 0,
                       [&](Index first, Index rows, double* part, double*) {
                         Eigen::Map<RowMajorMatrix>(part, rows, U.cols()) = U.middleRows(first, rows);
                       })
      .columns;
}

RowPasses::MapSums& RowPasses::MapSums::operator+=(const MapSums& other) {
  columns += other.columns;
  scalars += other.scalars;
  return *this;
}

RowPasses::MapSums RowPasses::transpose_map(Index columns, Index scalars, const RowMap& map) const {
  return mapped({.columns = columns, .scalars = scalars, .map = &map});
}

RowPasses::MapSums RowPasses::product_map(const VectorXd& x, VectorXd& z, Index columns, Index scalars,
                                          const RowMap& map) const {
  return mapped({.x = &x, .z = &z, .columns = columns, .scalars = scalars, .map = &map});
}

RowPasses::MapSums RowPasses::product_map(const VectorXd& x, Compensated compensated, VectorXd& z, Index columns,
                                          Index scalars, const RowMap& map) const {
  return mapped({.x = &x, .compensated = compensated, .z = &z, .columns = columns, .scalars = scalars, .map = &map});
}

std::shared_ptr<const RowPasses> RowPasses::joined(PassServer& server) const {
  auto passes = std::make_shared<RowPasses>(*this);
  passes->communicator_ = communicator_.joined(server);
  passes->reads_ = std::make_shared<double>(0);
  passes->server_ = &server;
  return passes;
}

RowPasses::MapSums RowPasses::mapped(const MapRequest& request) const {
  if (server_ != nullptr) return server_->map(request, *reads_);
  return std::move(maps({&request, 1}).front());
}

std::vector<RowPasses::MapSums> RowPasses::maps(std::span<const MapRequest> requests) const {
  Index columns = 0, scalars = 0;
  for (const auto& request : requests) {
    columns += request.columns, scalars += request.scalars;
    if (request.x != nullptr) request.z->resize(rows_local());
  }
  const MapSums zero{MatrixXd::Zero(this->columns(), columns), VectorXd::Zero(scalars)};
  const SharedProducts products(requests);
  MapSums all = pass(zero, [&](const Tile& tile, MapSums& sums) { map_tile(tile, requests, products, sums); });
  std::vector<MapSums> results;
  columns = scalars = 0;
  for (const auto& request : requests) {
    results.push_back(
        {all.columns.middleCols(columns, request.columns), all.scalars.segment(scalars, request.scalars)});
    columns += request.columns, scalars += request.scalars;
  }
  return results;
}

VectorXd RowPasses::normal_product(const VectorXd& p, const RowCurvature& weights, VectorXd& y) const {
  if (server_ != nullptr) return server_->normal_product(p, weights, y, *reads_);
  y.resize(rows_local());
  const VectorXd zero = VectorXd::Zero(columns() + 1);
  return pass(
      zero, [&](const Tile& tile, VectorXd& sum) { tile.add_normal_product(p.data(), weights, y.data(), sum.data()); });
}

RowPasses::SignedGram RowPasses::signed_gram(const VectorXd& weights, const VectorXd& centre) const {
  if (is_sparse()) return sparse_signed_gram(weights, centre);
  const WeightedGram zero(columns());
  const auto add_tile = [&](const auto* A, const Tile& tile, GramParts& sums) {
    kernels::add_signed_gram(A + tile.first_local() * columns(), tile.rows(), columns(),
                             weights.data() + tile.first_local(), centre.data(), sums.positive.lower().data(),
                             sums.negative.lower().data());
  };
  const bool at_once = tile_rows(columns()) >= 256;  // enough rows for one call; else they are gathered
  auto parts = pass(GramParts{zero, zero}, [&](const Tile& tile, GramParts& sums) {
    if (at_once && rows_.singles != nullptr) return add_tile(rows_.singles, tile, sums);
    if (at_once) return add_tile(rows_.doubles, tile, sums);
    const auto rows = tile.dense();
    for (Index i = 0; i < tile.rows(); ++i) {
      const double weight = weights[tile.first_local() + i];
      if (weight != 0) (weight > 0 ? sums.positive : sums.negative).add(weight, rows.row(i) - centre.transpose());
    }
  });
  return {parts.positive.full(), parts.negative.full()};
}

RowPasses::SignedGram RowPasses::sparse_signed_gram(const VectorXd& weights, const VectorXd& centre) const {
  std::array<std::vector<Index>, 2> rows;  // of positive and of negative weight
  std::array<std::vector<double>, 2> sizes;
  for (Index i = 0; i < rows_local(); ++i) {
    if (weights[i] == 0) continue;
    const std::size_t sign = weights[i] > 0 ? 0 : 1;
    rows[sign].push_back(i);
    sizes[sign].push_back(std::abs(weights[i]));
  }
  *reads_ += 1;
  return {full_symmetric(sparse_gram(rows[0], sizes[0], centre)),
          full_symmetric(sparse_gram(rows[1], sizes[1], centre))};
}

// The rows about 0, and then their centre: sum w (a - c)(a - c)^T = sum w a a^T - m c^T - c m^T + (sum w) c c^T, where
// m = sum w a. What it loses to rounding is about eps of the diagonal of the first term.
RowMajorMatrix RowPasses::sparse_gram(std::span<const Index> rows_local, std::span<const double> weights,
                                      const VectorXd& centre, std::span<const double> ridge) const {
  std::vector<double> totals(weights.begin(), weights.end());
  for (std::size_t k = 0; k < ridge.size(); ++k) totals[k] += ridge[k];
  const auto threads = static_cast<std::size_t>(pass_threads());
  std::vector<RowMajorMatrix> grams(threads, RowMajorMatrix::Zero(columns(), columns()));
  std::vector<VectorXd> means(threads, VectorXd::Zero(columns()));
  on_threads(pass_threads(), [&](int thread) {
    const auto part = static_cast<std::size_t>(thread);
    const std::size_t first = rows_local.size() * part / threads, last = rows_local.size() * (part + 1) / threads;
    kernels::with_block(*rows_.sparse, 0, rows_.sparse->rows(), [&](const auto& block) {
      kernels::add_gram(block, rows_local.subspan(first, last - first), std::span(totals).subspan(first, last - first),
                        columns(), grams[part].data());
      for (std::size_t k = first; k < last; ++k)
        kernels::add_scaled_row(block, rows_local[k], weights[k], means[part].data());
    });
  });
  for (std::size_t k = 1; k < threads; ++k) grams[0] += grams[k], means[0] += means[k];
  if (!centre.isZero(0)) {
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    grams[0].noalias() += (total * centre - means[0]) * centre.transpose() - centre * means[0].transpose();
  }
  return std::move(grams[0]);
}

VectorXd RowPasses::absolute_transpose_multiply(const VectorXd& u) const {
  const VectorXd zero = VectorXd::Zero(columns());
  return pass(zero, [&](const Tile& tile, VectorXd& sum) {
    tile.add_absolute_transpose_multiply(u.data() + tile.first_local(), sum.data());
  });
}

const VectorXd& RowPasses::row_norms() const {
  if (row_norms_->size() == rows_local()) return *row_norms_;
  row_norms_->resize(rows_local());
  pass(0, [&](const Tile& tile, int&) { tile.squared_norms(row_norms_->data() + tile.first_local()); });
  *row_norms_ = row_norms_->cwiseSqrt();
  *reads_ -= 1;
  return *row_norms_;
}

}  // namespace attnreg
