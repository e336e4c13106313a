#include "rows/row_passes.hpp"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "errors/refuse.hpp"
#include "rows/packed_columns.hpp"

namespace attnreg {

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

/// The norm of a row whose squares under- or overflow. Those of floats do not.
double stable_norm(const RowPointers& rows, Index row) {
  const auto norm = [](const auto& values) { return static_cast<double>(values.stableNorm()); };
  const double* const doubles = rows.sparse != nullptr ? rows.sparse->values.data() : rows.doubles;
  const auto offset = [&](Index i) {
    return rows.sparse != nullptr ? static_cast<Index>(rows.sparse->offsets[static_cast<std::size_t>(i)])
                                  : i * rows.columns;
  };
  const Index begin = offset(row), entries = offset(row + 1) - begin;
  if (rows.type == Storage::float64) return norm(Eigen::Map<const VectorXd>(doubles + begin, entries));
  const float* const singles = rows.sparse != nullptr ? rows.sparse->singles.data() : rows.singles;
  return Eigen::Map<const Eigen::VectorXf>(singles + begin, entries).cast<double>().norm();
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
    refuse("A is " + std::to_string(partition_.rows_global()) + " x " + std::to_string(rows.columns) +
           ": it needs at least one row and one column");
  if (partition_.ranks() != communicator_.size())
    refuse("the row partition is for " + std::to_string(partition_.ranks()) + " ranks, but there are " +
           std::to_string(communicator_.size()));
}

int RowPasses::threads() { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

void RowPasses::share(Index count, const std::function<void(int, Index, Index)>& body) {
  const int threads = RowPasses::threads();
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(threads));
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) {
    try {
      body(thread, count * thread / threads, count * (thread + 1) / threads);
    } catch (...) {
      failures[static_cast<std::size_t>(thread)] = std::current_exception();
    }
  }
  for (const auto& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

void RowPasses::visit_tiles(TileSize size, const std::function<void(int, const Tile&)>& visit) const {
  const std::int64_t begin = first_row(), end = begin + rows_local(), tile = tile_rows(columns());
  const std::int64_t first_tile = begin / tile, tiles = begin == end ? 0 : (end + tile - 1) / tile - first_tile;
  share(tiles, [&](int thread, Index first, Index last) {
    const Index step = size == TileSize::cached ? 1 : last - first;
    std::vector<double> scratch;
    for (Index k = first; k < last; k += step) {
      const std::int64_t from = std::max(begin, (first_tile + k) * tile);
      const std::int64_t to = std::min(end, (first_tile + k + step) * tile);
      visit(thread, Tile(rows_, static_cast<Index>(from - begin), static_cast<Index>(to - from), scratch));
    }
  });
}

void RowPasses::visit_rows(std::span<const Index> rows_local, const RowVisitor& visit) const {
  share(static_cast<Index>(rows_local.size()), [&](int, Index first, Index last) {
    std::vector<double> scratch;
    for (auto k = static_cast<std::size_t>(first); k < static_cast<std::size_t>(last); ++k)
      visit(k, {Tile(rows_, rows_local[k], 1, scratch).dense().data(), static_cast<std::size_t>(columns())});
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
  for (Index i = 0; i < rows_local(); ++i) {
    constexpr double kSmallest = 1e-280, kLargest = 1e300;  // of squares that lost nothing to under- or overflow
    double& square = (*row_norms_)[i];
    square = square > kSmallest && square < kLargest ? std::sqrt(square) : stable_norm(rows_, i);
  }
  *reads_ -= 1;
  return *row_norms_;
}

}  // namespace attnreg
