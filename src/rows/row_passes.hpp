#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <limits>
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

/// The rows that a pass sees at once.
enum class TileSize {
  cached,  ///< `tile_rows`, which stay in the second-level cache
  many,    ///< as many of a thread as 2^31 products of columns take, for functions that cut them up themselves
};

/// The *passes* over the rows of a `RowMatrix`: one streaming read of the local rows, shared tile by tile between
/// OpenMP threads; the threads' accumulators are merged in a fixed order, so equal rank and thread counts give equal
/// bits. On blocks (`Communicator::in_blocks`) any counts do. Nothing else loops over rows of A, but the Gram matrices
/// of sparse ones (gram.cpp). Passes are local: they return this rank's part of a sum, and the caller adds the parts of
/// all ranks in one all-reduce together with what else it has to sum. Each counts as one read of A.
class RowPasses {
 public:
  /// Local. Rows of any storage, kept alive by `owner` unless that is null. `InvalidArgument` on all ranks if A has no
  /// rows or columns, or if the partition is for another number of ranks.
  RowPasses(Communicator communicator, RowPartition partition, const RowPointers& rows,
            std::shared_ptr<const void> owner);

  const Communicator& communicator() const { return communicator_; }
  const RowPartition& partition() const { return partition_; }
  std::int64_t rows_global() const { return partition_.rows_global(); }
  Index rows_local() const { return partition_.rows_local(communicator_.rank()); }
  std::int64_t first_row() const { return partition_.begin(communicator_.rank()); }
  Index columns() const { return rows_.columns; }
  Storage storage() const { return rows_.type(); }
  bool is_sparse() const { return rows_.sparse != nullptr; }
  const CsrView* sparse() const { return rows_.sparse; }  ///< the rows, if they are sparse
  std::int64_t entries_local() const;                     ///< stored entries of this rank: rows x columns unless sparse
  double bytes_local() const;  ///< of the stored entries, with the indices and offsets of sparse rows

  /// Local. Reads of A so far: passes over all local rows, counted alike on all ranks.
  double reads() const { return *reads_; }

  /// Local, one read. z = A x, or A x - shift 1. x: d; result: rows_local.
  Eigen::VectorXd multiply(const Eigen::VectorXd& x, std::optional<Compensated> compensated = {}) const;

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
  };
  /// Norms |a_i o factor| of the rows, to be made in a pass, before its map. factor: d.
  struct RowNorms {
    const Eigen::VectorXd* factor;
    Eigen::VectorXd* norms;  ///< resized to rows_local; none: not wanted
  };
  /// Squared norms |a_i^T N|^2 of the rows, to be made in a pass: 2 d flops for each column of N and row.
  struct Projection {
    const PackedColumns* N = nullptr;
    Eigen::VectorXd* squares = nullptr;  ///< resized to rows_local; none: not wanted
  };
  /// What a pass keeps of a tile, as it went into the sums, for those who want to make it again.
  struct KeptTile {
    Index first_local = 0, rows = 0;  ///< of a whole tile, or of what this rank has of it
    RowMajorMatrix U{};               ///< rows x columns, as the map made it; empty: the pass was in vain
    Eigen::VectorXd scalars{};        ///< the map's
    Eigen::MatrixXd sums{};           ///< d x columns: what was added of A^T U
    Eigen::VectorXd before{};         ///< of each column the largest number that the rows were added to
  };
  /// z = A x, or A x - shift 1, where there is an x; then A^T U, U made tile by tile and not kept. `map` sees the z of
  /// the rows of its tile.
  struct MapRequest {
    const Eigen::VectorXd* x = nullptr;
    std::optional<Compensated> compensated{};
    Eigen::VectorXd* z = nullptr;  ///< resized to rows_local
    Index columns = 0, scalars = 0;
    RowMap map{};
    RowNorms row_norms{};
    Projection projection{};
    std::vector<KeptTile>* kept = nullptr;  ///< tiles that are wanted, in order: the pass fills in the rest
  };
  /// Local, one read. One of them, and several at once.
  MapSums map(const MapRequest& request) const;
  std::vector<MapSums> maps(std::span<const MapRequest> requests) const;

  /// Local, one read. This rank's part of |A|^T u, the entries' absolute values. u: rows_local; result: d.
  Eigen::VectorXd absolute_transpose_multiply(const Eigen::VectorXd& u) const;

  /// Local. Euclidean norms of the local rows, made by the first call with a read that belongs to the loading of A and
  /// is not counted; of a_i o factor each call makes them.
  const Eigen::VectorXd& row_norms() const;
  Eigen::VectorXd row_norms(const Eigen::VectorXd& factor) const;

  /// This rank's rows of a tile of the global numbering.
  struct TileRows {
    std::int64_t tile = 0;
    Index first_local = 0, rows = 0;
  };
  std::vector<TileRows> tiles() const;  ///< Local.

  /// Local. Adds the local rows [first, first + count) as they are held, to be sent. Of sparse ones the offsets, from 0
  /// on, the indices and the values.
  void pack_rows(Index first_local, Index count, std::vector<char>& bytes) const;
  /// Local. `hash_of_packed` of each of `tiles`. They are made once: by the pass that `hash_in_next_pass` has asked to,
  /// else by the first call, which takes a read.
  const std::vector<std::uint64_t>& tile_hashes() const;
  /// Local. Forgets the hashes, and has the next pass over dense rows make them, of each tile while it is in cache.
  void hash_in_next_pass() const { *tile_hashes_ = {.wanted = !is_sparse()}; }
  /// Local. packed: `count` rows of a matrix like this one.
  std::uint64_t hash_of_packed(std::span<const char> packed, Index count) const;

  /// Sees row `rows_local[position]`, in double; called from several threads at once.
  using RowVisitor = std::function<void(std::size_t position, std::span<const double> row)>;

  /// Local. The same rows with other columns; sparse ones are copied, their values as double: only entries that are
  /// stored are centred.
  std::shared_ptr<const RowPasses> transformed(std::shared_ptr<const ColumnTransform> transform) const;
  bool is_transformed() const { return rows_.transform != nullptr; }  ///< Local. Then tiles are copies.

  /// Local. The same rows for one of several tasks: its passes are made together with those of the others, and cost a
  /// share of a read each. `server` must outlive it.
  std::shared_ptr<const RowPasses> joined(PassServer& server) const;

  /// Local. Calls `visit` for the rows at the given local positions only, shared between the threads. Not counted; the
  /// caller counts the rows of all ranks / n, so that the ranks keep counting alike.
  void visit_rows(std::span<const Index> rows_local, const RowVisitor& visit) const;
  void count_reads(double reads) const { *reads_ += reads; }  ///< Local. The same number on every rank.

  /// Local, one read. Calls `function(tile, accumulator)` for every tile, each part with a `zero` of its own, and
  /// returns the parts' sum in their order. `Accumulator` needs `operator+=`. least: entries of A in a part of a block,
  /// see `parts`.
  template <class Accumulator, class Function>
  Accumulator pass(Accumulator zero, Function&& function, TileSize size = TileSize::cached,
                   double least = least_work) const;

  /// Local. Parts of a pass: one for each thread, or of a block a number that follows from its work alone, for `share`
  /// among the threads. Each costs a sum of its own: `least` of the work is worth that.
  static int parts(double work = std::numeric_limits<double>::infinity(), double least = least_work);
  static constexpr double least_work = 1 << 18;  ///< entries of A

  /// Local. Calls `body` for every part [first, last) of `count` things, on the threads; an exception of a part is
  /// thrown after all have ended.
  static void share(int parts, Index count, const std::function<void(int part, Index first, Index last)>& body);
  static void share(Index count, const std::function<void(int part, Index first, Index last)>& body) {
    share(parts(), count, body);
  }
  static int threads_of(int parts);  ///< Local. That work on them: a single one takes them in their order.

 private:
  friend class RemadeRows;

  std::uint64_t hash_of_rows(Index first_local, Index count) const;
  /// The tiles of every part, in order.
  void visit_tiles(int parts, TileSize size, const std::function<void(int part, const Tile&)>& visit) const;

  Communicator communicator_;
  RowPartition partition_;
  RowPointers rows_;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<double> reads_;
  std::shared_ptr<Eigen::VectorXd> row_norms_;
  struct TileHashes {
    bool wanted = false;  // of the next pass
    std::optional<std::vector<std::uint64_t>> made{};
  };
  std::shared_ptr<TileHashes> tile_hashes_;
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
Accumulator RowPasses::pass(Accumulator zero, Function&& function, TileSize size, double least) const {
  const int parts = RowPasses::parts(static_cast<double>(entries_local()), least);
  *reads_ += 1;
  if (parts > 1 && threads_of(parts) == 1) {  // one part after another, all in the same memory
    Accumulator sum = zero, own = zero;
    int current = 0;
    const auto go_to = [&](int part) {
      for (; current < part; ++current) {
        if (current == 0) continue;
        sum += own;
        if (current + 1 < parts) own = zero;
      }
    };
    visit_tiles(parts, size, [&](int part, const Tile& tile) {
      go_to(part);
      function(tile, part == 0 ? sum : own);
    });
    go_to(parts);
    return sum;
  }
  std::vector<Accumulator> sums(static_cast<std::size_t>(parts - 1), zero);
  sums.push_back(std::move(zero));
  visit_tiles(parts, size, [&](int part, const Tile& tile) { function(tile, sums[static_cast<std::size_t>(part)]); });
  for (std::size_t k = 1; k < sums.size(); ++k) sums[0] += sums[k];
  return std::move(sums[0]);
}

}  // namespace attnreg
