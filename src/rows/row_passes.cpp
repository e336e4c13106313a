#include "rows/row_passes.hpp"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "errors/faults.hpp"
#include "errors/refuse.hpp"
#include "kernels/csr_kernels.hpp"
#include "numbers/compensated_sum.hpp"
#include "ranks/activity.hpp"
#include "ranks/block_calls.hpp"
#include "ranks/span_of.hpp"
#include "ranks/stop.hpp"

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

/// The sums of all requests, side by side, over the tiles so far. Their rounding does not grow with the rows: few rows
/// are summed at a time, and the roundings of adding such parts are summed, too.
///
/// Many columns of dense rows are summed in groups, as `kernels::add_transposed_block` has them.
class TileSums {
 public:
  TileSums(Index d, Index columns, Index scalars, bool is_sparse)
      : d_(d),
        columns_(columns),
        groups_(is_sparse || columns < kMany ? 0 : (columns + kernels::kGroupColumns - 1) / kernels::kGroupColumns),
        sums_(d, stored_columns()),
        part_(MatrixXd::Zero(d, stored_columns())),
        scalars_(static_cast<std::size_t>(scalars)) {}

  Index columns() const { return columns_; }
  Index stored_columns() const { return groups_ > 0 ? groups_ * kernels::kGroupColumns : columns_; }  ///< of U
  std::size_t scalars() const { return scalars_.size(); }

  void add_scalars(std::span<const double> of_tile) {
    for (std::size_t k = 0; k < of_tile.size(); ++k) scalars_[k] += of_tile[k];
  }
  /// Adds A^T U. The dense kernels add up four rows before they add them to a sum, the sparse ones one.
  void add_columns(const Tile& tile, const double* U) {
    const Index terms = (tile.is_sparse() ? 32 : 128) * tile.columns(), k = stored_columns();
    const Index step = std::max<Index>(1, terms * tile.rows() / std::max<Index>(1, tile.entries()));
    for (Index first = 0; first < tile.rows(); first += step) {
      const Index rows = std::min(step, tile.rows() - first);
      if (groups_ > 0)
        tile.add_transposed_block(first, rows, U + first * k, groups_, part_.data());
      else
        tile.add_transpose_multiply(first, rows, U + first * k, k, part_.data());
      faults::flip("sums", span_of(part_));
      entries_of_part_ += tile.entries() * rows / tile.rows();
      if (entries_of_part_ >= terms) add_part();
    }
  }
  struct Added {
    VectorXd before;  // the largest number of each column that something was added to
    MatrixXd sums;    // d x columns: what was added
  };
  /// The same, and what it has added: parts as they are when they go into the sums, less what they had before.
  Added add_kept_columns(const Tile& tile, const double* U) {
    const MatrixXd before = part_;
    MatrixXd added = -before;
    kept_ = &added;
    add_columns(tile, U);
    kept_ = nullptr;
    added += part_;
    return {by_columns(before).cwiseAbs().colwise().maxCoeff().transpose(), by_columns(std::move(added))};
  }
  TileSums& operator+=(const TileSums& other) {
    sums_ += other.sums_;
    part_ += other.part_;
    for (std::size_t k = 0; k < scalars(); ++k) scalars_[k] += other.scalars_[k];
    return *this;
  }
  RowPasses::MapSums values() {
    add_part();
    VectorXd values(static_cast<Index>(scalars()));
    std::ranges::transform(scalars_, values.begin(), &CompensatedSum::value);
    return {by_columns(sums_.values()), std::move(values)};
  }

 private:
  static constexpr Index kMany = 8;  // columns for which groups pay

  void add_part() {
    sums_ += part_;
    if (kept_ != nullptr) *kept_ += part_;
    part_.setZero();
    entries_of_part_ = 0;
  }

  MatrixXd by_columns(MatrixXd sums) const {
    if (groups_ == 0) return sums;
    MatrixXd result(d_, columns_);
    for (Index first = 0; first < columns_; first += kernels::kGroupColumns) {
      const Eigen::Map<const RowMajorMatrix> group(sums.data() + d_ * first, d_, kernels::kGroupColumns);
      const Index width = std::min(kernels::kGroupColumns, columns_ - first);
      result.middleCols(first, width) = group.leftCols(width);
    }
    return result;
  }

  Index d_, columns_, groups_;
  CompensatedMatrix sums_;
  MatrixXd part_;
  MatrixXd* kept_ = nullptr;  // of a tile that is kept
  Index entries_of_part_ = 0;
  std::vector<CompensatedSum> scalars_;
};

/// Where a request wants this tile kept; none: it does not.
RowPasses::KeptTile* kept_in(const RowPasses::MapRequest& request, const Tile& tile) {
  if (request.kept == nullptr) return nullptr;
  const auto found = std::ranges::lower_bound(*request.kept, tile.first_local(), {}, &RowPasses::KeptTile::first_local);
  return found != request.kept->end() && found->first_local == tile.first_local() ? &*found : nullptr;
}

/// Adds A^T U, and keeps what the requests want of it.
void add_tile(const Tile& tile, std::span<const RowPasses::MapRequest> requests, const RowMajorMatrix& U,
              std::span<const double> scalars_of_tile, TileSums& sums) {
  if (std::ranges::none_of(requests, [&](const auto& request) { return kept_in(request, tile) != nullptr; }))
    return sums.add_columns(tile, U.data());
  const auto added = sums.add_kept_columns(tile, U.data());
  Index column = 0;
  const double* scalars = scalars_of_tile.data();
  for (const auto& request : requests) {
    if (auto* const kept = kept_in(request, tile)) {
      kept->U = U.middleCols(column, request.columns);
      kept->scalars = Eigen::Map<const VectorXd>(scalars, request.scalars);
      kept->sums = added.sums.middleCols(column, request.columns);
      kept->before = added.before.segment(column, request.columns);
    }
    column += request.columns;
    scalars += request.scalars;
  }
}

/// The requests' maps of one tile, their columns side by side.
void map_tile(const Tile& tile, std::span<const RowPasses::MapRequest> requests, const SharedProducts& products,
              TileSums& sums) {
  products.multiply(tile);
  const Index rows = tile.rows(), columns = sums.columns(), stored = sums.stored_columns();
  RowMajorMatrix U(rows, stored), own;
  U.rightCols(stored - columns).setZero();
  Index first_column = 0;
  std::vector<double> of_tile(sums.scalars());
  double* scalars = of_tile.data();
  for (const auto& [x, compensated, z, width, count, map, row_norms, projection, kept] : requests) {
    if (row_norms.norms != nullptr) {
      auto own_norms = row_norms.norms->segment(tile.first_local(), rows);
      tile.squared_norms(row_norms.factor->data(), own_norms.data());
      own_norms = own_norms.cwiseSqrt();
    }
    if (projection.squares != nullptr) {
      auto squares = projection.squares->segment(tile.first_local(), rows);
      squares.setZero();
      projection.N->multiply(tile, [&](Index, const RowMajorMatrix& Y) { squares += Y.rowwise().squaredNorm(); });
    }
    if (x != nullptr && compensated) tile.multiply(x->data(), *compensated, z->data() + tile.first_local());
    if (x != nullptr && !compensated && products.empty()) tile.multiply(x->data(), z->data() + tile.first_local());
    if (map && width == stored) {
      map(tile.first_local(), rows, U.data(), scalars);
    } else if (map) {
      own.resize(rows, width);
      map(tile.first_local(), rows, own.data(), scalars);
      U.middleCols(first_column, width) = own;
    }
    first_column += width;
    scalars += count;
  }
  sums.add_scalars(of_tile);
  if (columns > 0) add_tile(tile, requests, U, of_tile, sums);
}

}  // namespace

RowPasses::RowPasses(Communicator communicator, RowPartition partition, const RowPointers& rows,
                     std::shared_ptr<const void> owner)
    : communicator_(std::move(communicator)),
      partition_(std::move(partition)),
      rows_(rows),
      owner_(std::move(owner)),
      reads_(std::make_shared<double>(0)),
      row_norms_(std::make_shared<VectorXd>()),
      tile_hashes_(std::make_shared<TileHashes>()) {
  if (rows.columns < 1 || partition_.rows_global() < 1)
    refuse("A is " + std::to_string(partition_.rows_global()) + " x " + std::to_string(rows.columns) +
           ": it needs at least one row and one column");
  if (partition_.ranks() != communicator_.size())
    refuse("the row partition is for " + std::to_string(partition_.ranks()) + " ranks, but there are " +
           std::to_string(communicator_.size()));
}

int RowPasses::parts(double work, double least) {
  if (omp_in_parallel()) return 1;
  if (runs_in_block()) return static_cast<int>(std::clamp(work / least, 1.0, double{most_parts_of_block}));
  return omp_get_max_threads();
}

int RowPasses::threads_of(int parts) { return std::min(parts, omp_get_max_threads()); }

void RowPasses::share(int parts, Index count, const std::function<void(int, Index, Index)>& body) {
  const int threads = threads_of(parts);
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(parts));
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int part = 0; part < parts; ++part) {
    try {
      body(part, count * part / parts, count * (part + 1) / parts);
    } catch (...) {
      failures[static_cast<std::size_t>(part)] = std::current_exception();
    }
  }
  for (const auto& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

namespace {

/// So that a visit takes a second at most, after which it is seen how far the pass is, and whether it is to stop.
Index many_tiles(Index columns) {
  constexpr double kProducts = 0x1p31, kFewestRows = 1024;
  const auto d = static_cast<double>(std::max<Index>(columns, 1));
  const auto rows = static_cast<Index>(std::max(kFewestRows, kProducts / (d * d)));
  return std::max<Index>(1, rows / static_cast<Index>(tile_rows(columns)));
}

}  // namespace

void RowPasses::visit_tiles(int parts, TileSize size, const std::function<void(int, const Tile&)>& visit) const {
  const std::int64_t begin = first_row(), end = begin + rows_local(), tile = tile_rows(columns());
  const std::int64_t first_tile = begin / tile, tiles = begin == end ? 0 : (end + tile - 1) / tile - first_tile;
  const InWork read("read of A", "rows", static_cast<double>(rows_local()));
  const bool hashes = tile_hashes_->wanted && size == TileSize::cached;
  std::vector<std::uint64_t> made(hashes ? static_cast<std::size_t>(tiles) : 0);
  share(parts, tiles, [&](int part, Index first, Index last) {
    const Index step = size == TileSize::cached ? 1 : many_tiles(columns());
    std::vector<double> scratch;
    for (Index k = first; k < last && !is_in_vain(); k += step) {
      const std::int64_t from = std::max(begin, (first_tile + k) * tile);
      const std::int64_t to = std::min(end, (first_tile + std::min(k + step, last)) * tile);
      const auto first_local = static_cast<Index>(from - begin), rows = static_cast<Index>(to - from);
      if (hashes) made[static_cast<std::size_t>(k)] = hash_of_rows(first_local, rows);
      visit(part, Tile(rows_, first_local, rows, scratch));
      InWork::add(to - from);
    }
  });
  if (hashes && !is_in_vain()) *tile_hashes_ = {.made = std::move(made)};
}

void RowPasses::visit_rows(std::span<const Index> rows_local, const RowVisitor& visit) const {
  share(static_cast<Index>(rows_local.size()), [&](int, Index first, Index last) {
    std::vector<double> scratch;
    for (auto k = static_cast<std::size_t>(first); k < static_cast<std::size_t>(last) && !is_in_vain(); ++k)
      visit(k, {Tile(rows_, rows_local[k], 1, scratch).dense().data(), static_cast<std::size_t>(columns())});
  });
}

std::int64_t RowPasses::entries_local() const {
  return is_sparse() ? rows_.sparse->entries() : std::int64_t{rows_local()} * columns();
}

double RowPasses::bytes_local() const {
  const auto item = static_cast<double>(item_bytes(storage()));
  const double entry = is_sparse() ? item + sizeof(std::int32_t) : item;
  return entry * static_cast<double>(entries_local()) +
         (is_sparse() ? static_cast<double>(sizeof(std::int64_t)) * static_cast<double>(rows_local() + 1) : 0);
}

VectorXd RowPasses::multiply(const VectorXd& x, std::optional<Compensated> compensated) const {
  VectorXd z;
  map({.x = &x, .compensated = compensated, .z = &z});
  return z;
}

MatrixXd RowPasses::transpose_multiply(const MatrixXd& U) const {
  const RowMap copy = [&](Index first, Index rows, double* part, double*) {
    Eigen::Map<RowMajorMatrix>(part, rows, U.cols()) = U.middleRows(first, rows);
  };
  return map({.columns = U.cols(), .map = copy}).columns;
}

std::shared_ptr<const RowPasses> RowPasses::transformed(std::shared_ptr<const ColumnTransform> transform) const {
  auto passes = std::make_shared<RowPasses>(*this);
  passes->row_norms_ = std::make_shared<VectorXd>();
  if (!is_sparse()) {
    passes->rows_.transform = transform.get();
    passes->owner_ = std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<const ColumnTransform>>>(
        owner_, std::move(transform));
    return passes;
  }
  const CsrView& own = *rows_.sparse;
  CsrRows rows;
  rows.columns = own.columns;
  rows.offsets.assign(own.offsets.begin(), own.offsets.end());
  rows.indices.assign(own.indices.begin(), own.indices.end());
  rows.values.resize(rows.indices.size());
  kernels::with_block(own, 0, own.rows(), [&](const auto& block) {
    for (std::size_t k = 0; k < rows.indices.size(); ++k)
      rows.values[k] = (block.values[k] - transform->centre[rows.indices[k]]) * transform->factor[rows.indices[k]];
  });
  auto held = std::make_shared<const HeldCsr>(std::move(rows));
  passes->tile_hashes_ = std::make_shared<TileHashes>();  // dense ones are the same rows in memory
  passes->rows_.sparse = &held->view;
  passes->owner_ = std::move(held);
  return passes;
}

std::shared_ptr<const RowPasses> RowPasses::joined(PassServer& server) const {
  auto passes = std::make_shared<RowPasses>(*this);
  passes->communicator_ = communicator_.joined(server);
  passes->reads_ = std::make_shared<double>(0);
  passes->server_ = &server;
  return passes;
}

RowPasses::MapSums RowPasses::map(const MapRequest& request) const {
  if (server_ != nullptr) return server_->map(request, *reads_);
  return std::move(maps({&request, 1}).front());
}

std::vector<RowPasses::MapSums> RowPasses::maps(std::span<const MapRequest> requests) const {
  Index columns = 0, scalars = 0;
  for (const auto& request : requests) {
    columns += request.columns, scalars += request.scalars;
    if (request.x != nullptr) request.z->resize(rows_local());
    if (request.row_norms.norms != nullptr) request.row_norms.norms->resize(rows_local());
    if (request.projection.squares != nullptr) request.projection.squares->resize(rows_local());
  }
  const SharedProducts products(requests);
  const MapSums all =
      pass(TileSums(this->columns(), columns, scalars, is_sparse()), [&](const Tile& tile, TileSums& sums) {
        map_tile(tile, requests, products, sums);
      }).values();
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

VectorXd RowPasses::row_norms(const VectorXd& factor) const {
  VectorXd norms;
  maps(std::array{MapRequest{.row_norms = {&factor, &norms}}});
  *reads_ -= 1;
  return norms;
}

const VectorXd& RowPasses::row_norms() const {
  if (row_norms_->size() == rows_local()) return *row_norms_;
  *row_norms_ = row_norms(VectorXd::Ones(columns()));
  std::vector<Index> lost;  // rows whose squares may have under- or overflowed
  for (Index i = 0; i < rows_local(); ++i)
    if (!((*row_norms_)[i] > 1e-140 && (*row_norms_)[i] < 1e150)) lost.push_back(i);
  visit_rows(lost, [&](std::size_t k, std::span<const double> row) {
    (*row_norms_)[lost[k]] = Eigen::Map<const VectorXd>(row.data(), columns()).stableNorm();
  });
  return *row_norms_;
}

}  // namespace attnreg
