#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/row_partition.hpp"
#include "ranks/joint_sums.hpp"
#include "rows/tile.hpp"

namespace attnreg {

class PassServer;

/// The *passes* over the rows of a `RowMatrix`: one streaming read of the local rows, shared tile by tile between OpenMP threads; the threads'
/// accumulators are merged in a fixed order, so equal rank and thread counts give equal bits. Nothing else loops over
/// rows of A. Passes are local: they return this rank's part of a sum, and the caller adds the parts of all ranks in
/// one all-reduce together with what else it has to sum. Each counts as one read of A.
class RowPasses {
 public:
  /// Local. Rows of any storage, kept alive by `owner` unless that is null. `InvalidArgument` on all ranks if A has no
  /// rows or columns, or if the partition is for another number of ranks.
  RowPasses(Communicator communicator, RowPartition partition, const RowPointers& rows, std::shared_ptr<const void> owner);

  const Communicator& communicator() const { return communicator_; }
  const RowPartition& partition() const { return partition_; }
  std::int64_t rows_global() const { return partition_.rows_global(); }
  Index rows_local() const { return partition_.rows_local(communicator_.rank()); }
  std::int64_t first_row() const { return partition_.begin(communicator_.rank()); }
  Index columns() const { return rows_.columns; }
  Storage storage() const { return rows_.type; }
  bool is_sparse() const { return rows_.sparse != nullptr; }
  std::int64_t entries_local() const;  ///< stored entries of this rank: rows x columns unless sparse
  double bytes_local() const;          ///< of the stored entries, with the indices and offsets of sparse rows

  /// Local. Reads of A so far: passes over all local rows, counted alike on all ranks.
  double reads() const { return *reads_; }

  /// Local, one read. z = A x. x: d; result: rows_local.
  Eigen::VectorXd multiply(const Eigen::VectorXd& x) const;
  /// Local, one read. z = A x - shift 1.
  Eigen::VectorXd multiply(const Eigen::VectorXd& x, Compensated compensated) const;
  /// Local, one read. Z = A X for a few columns. X: d x k; result: rows_local x k.
  Eigen::MatrixXd multiply_columns(const Eigen::MatrixXd& X) const;

  /// Local, one read. This rank's part of A^T U. U: rows_local x k, k small; result: d x k.
  Eigen::MatrixXd transpose_multiply(const Eigen::MatrixXd& U) const;

  /// Local, one read. This rank's part of A^T u, u as in `RowCurvature` with y = A p: the fused Hessian product. p: d;
  /// y: resized to rows_local; result: d + 1, the last number being sum_i curvature_i (y_i - centre).
  Eigen::VectorXd normal_product(const Eigen::VectorXd& p, const RowCurvature& weights, Eigen::VectorXd& y) const;

  /// Fills U (rows x columns, row-major) for the local rows [first, first + rows) and adds to the scalars.
  using RowMap = std::function<void(Index first_local, Index rows, double* U, double* scalars)>;
  /// This rank's part of the sums over rows: A^T U, d x columns, and the scalars.
  struct MapSums {
    Eigen::MatrixXd columns;
    Eigen::VectorXd scalars;
    MapSums& operator+=(const MapSums& other);
  };
  /// A pass of the kind below: z = A x where there is an x, then a map of the rows of the tile.
  struct MapRequest {
    const Eigen::VectorXd* x = nullptr;
    std::optional<Compensated> compensated{};
    Eigen::VectorXd* z = nullptr;  ///< resized to rows_local
    Index columns = 0, scalars = 0;
    const RowMap* map = nullptr;
  };
  /// Local, one read. Several of them at once.
  std::vector<MapSums> maps(std::span<const MapRequest> requests) const;

  /// Local, one read. A^T U, U made tile by tile and not kept.
  MapSums transpose_map(Index columns, Index scalars, const RowMap& map) const;
  /// Local, one read. The same with z = A x made for the rows of a tile before `map` sees them; z: rows_local.
  MapSums product_map(const Eigen::VectorXd& x, Eigen::VectorXd& z, Index columns, Index scalars,
                      const RowMap& map) const;
  /// Local, one read. The same with z = A x - shift 1.
  MapSums product_map(const Eigen::VectorXd& x, Compensated compensated, Eigen::VectorXd& z, Index columns,
                      Index scalars, const RowMap& map) const;

  /// This rank's part of sum_i weights_i (a_i - centre)(a_i - centre)^T, the rows of either sign apart, both d x d
  /// symmetric and full.
  struct SignedGram {
    Eigen::MatrixXd positive;  ///< the rows with weights_i > 0
    Eigen::MatrixXd negative;  ///< those with weights_i < 0, with |weights_i|
  };
  /// Local, one read and d^2 flops a row. weights: rows_local; centre: d.
  SignedGram signed_gram(const Eigen::VectorXd& weights, const Eigen::VectorXd& centre) const;

  /// Local, one read. This rank's part of |A|^T u, the entries' absolute values. u: rows_local; result: d.
  Eigen::VectorXd absolute_transpose_multiply(const Eigen::VectorXd& u) const;

  /// Local. Euclidean norms of the local rows, made by the first call with a read that belongs to the loading of A and
  /// is not counted.
  const Eigen::VectorXd& row_norms() const;

  /// Local, not counted as a read (see `visit_rows`). This rank's part of sum_k weights_k (a_k - centre)(a_k -
  /// centre)^T + ridge_k a_k a_k^T over the given rows of a sparse A, lower triangle, d x d; (entries of a row)^2 / 2
  /// flops each. ridge: one per given row, or empty for 0.
  RowMajorMatrix sparse_gram(std::span<const Index> rows_local, std::span<const double> weights,
                             const Eigen::VectorXd& centre, std::span<const double> ridge = {}) const;

  /// Local, not counted (see `visit_rows`). Rows [first, first + out.rows()) and columns [first, d) of this rank's part
  /// of G = sum_k weights_k (a_k - shares_k centre)(a_k - shares_k centre)^T over the given rows are added to `out`: a
  /// block row of a G that nobody holds whole. weights: >= 0, one per row; shares: likewise, for dense A; sparse rows
  /// are taken about 0. out: any height x (d - first). 2 height (d - first) flops a row, sparse 2 (entries)^2 height /
  /// d.
  void add_gram_panel(std::span<const Index> rows_local, const Eigen::VectorXd& weights, const Eigen::VectorXd& shares,
                      const Eigen::VectorXd& centre, Index first, RowMajorMatrix& out) const;
  /// Local, not counted. sum_k weights_k a_k over the given rows of a sparse A: d.
  Eigen::VectorXd sparse_sum(std::span<const Index> rows_local, const Eigen::VectorXd& weights) const;

  /// Sees row `rows_local[position]`, in double; called from several threads at once.
  using RowVisitor = std::function<void(std::size_t position, std::span<const double> row)>;

  /// Local. The same rows for one of several tasks: its passes are made together with those of the others, and cost a
  /// share of a read each. `server` must outlive it.
  std::shared_ptr<const RowPasses> joined(PassServer& server) const;

  /// Local. Calls `visit` for the rows at the given local positions only, shared between the threads. Not counted; the
  /// caller counts the rows of all ranks / n, so that the ranks keep counting alike.
  void visit_rows(std::span<const Index> rows_local, const RowVisitor& visit) const;
  void count_reads(double reads) const { *reads_ += reads; }  ///< Local. The same number on every rank.

  /// Local, one read. Calls `function(tile, accumulator)` for every tile, each thread with its own copy of `zero`, and
  /// returns the copies' sum in thread order. `Accumulator` needs `operator+=`.
  template <class Accumulator, class Function>
  Accumulator pass(Accumulator zero, Function&& function) const;

 private:
  MapSums mapped(const MapRequest& request) const;
  SignedGram sparse_signed_gram(const Eigen::VectorXd& weights, const Eigen::VectorXd& centre) const;
  void add_sparse_gram_panel(std::span<const Index> rows_local, const Eigen::VectorXd& weights, Index first,
                             RowMajorMatrix& out) const;

  /// Calls `body(thread, threads)` on every OpenMP thread; an exception of a thread is thrown after all have ended.
  static void on_threads(int threads, const std::function<void(int)>& body);
  int pass_threads() const;
  /// Tiles of this thread, in order.
  void visit_tiles(int thread, int threads, const std::function<void(const Tile&)>& visit) const;

  Communicator communicator_;
  RowPartition partition_;
  RowPointers rows_;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<double> reads_;
  std::shared_ptr<Eigen::VectorXd> row_norms_;
  PassServer* server_ = nullptr;
};

/// Makes the passes of several tasks together. Collective, if the tasks are. `reads` grows by the task's share.
class PassServer : public JointSums {
 public:
  virtual RowPasses::MapSums map(const RowPasses::MapRequest& request, double& reads) = 0;
  virtual Eigen::VectorXd normal_product(const Eigen::VectorXd& p, const RowCurvature& weights, Eigen::VectorXd& y,
                                         double& reads) = 0;
};

template <class Accumulator, class Function>
Accumulator RowPasses::pass(Accumulator zero, Function&& function) const {
  const int threads = pass_threads();
  std::vector<Accumulator> parts(static_cast<std::size_t>(threads - 1), zero);
  parts.push_back(std::move(zero));
  on_threads(threads, [&](int thread) {
    auto& part = parts[static_cast<std::size_t>(thread)];
    visit_tiles(thread, threads, [&](const Tile& tile) { function(tile, part); });
  });
  for (std::size_t k = 1; k < parts.size(); ++k) parts[0] += parts[k];
  *reads_ += 1;
  return std::move(parts[0]);
}

}  // namespace attnreg
