#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/row_partition.hpp"

namespace attnreg {

/// The type in which the rows are held; sums are always accumulated in double.
enum class Storage { float32, float64 };

using RowMajorMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Consecutive rows that lie in one tile of the global numbering, in double.
struct Tile {
  Index first_local;                      ///< position of the first row in this rank's rows
  Eigen::Map<const RowMajorMatrix> rows;  ///< rows x columns
};

/// A, n x d with n >> d, its rows spread over the ranks in contiguous blocks, each held by one rank.
///
/// It offers *passes*: one streaming read of the local rows, shared tile by tile between OpenMP threads; the threads'
/// accumulators are merged in a fixed order, so equal rank and thread counts give equal bits. Nothing else loops over
/// rows of A. Passes are local: they return this rank's part of a sum, and the caller adds the parts of all ranks in
/// one all-reduce together with what else it has to sum. Each counts as one read of A.
class RowMatrix {
 public:
  /// Local. Takes over `rows` (rows_local x d); `InvalidArgument` (this rank) if they do not fit the partition.
  RowMatrix(Communicator communicator, RowPartition partition, RowMajorMatrix rows);
  RowMatrix(Communicator communicator, RowPartition partition,
            Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> rows);

  /// Local. Uses rows in the caller's memory, row-major without gaps, which must outlive the matrix.
  static RowMatrix view(Communicator communicator, RowPartition partition, const double* rows, Index columns);
  static RowMatrix view(Communicator communicator, RowPartition partition, const float* rows, Index columns);

  const Communicator& communicator() const { return communicator_; }
  const RowPartition& partition() const { return partition_; }
  std::int64_t rows_global() const { return partition_.rows_global(); }
  Index rows_local() const { return partition_.rows_local(communicator_.rank()); }
  std::int64_t first_row() const { return partition_.begin(communicator_.rank()); }
  Index columns() const { return columns_; }
  Storage storage() const { return is_single_ ? Storage::float32 : Storage::float64; }

  /// Local. Reads of A so far: passes over all local rows, counted alike on all ranks.
  double reads() const { return *reads_; }

  /// Local, one read. z = A x. x: d; result: rows_local.
  Eigen::VectorXd multiply(const Eigen::VectorXd& x) const;

  /// Local, one read. This rank's part of A^T U. U: rows_local x k, k small; result: d x k.
  Eigen::MatrixXd transpose_multiply(const Eigen::MatrixXd& U) const;

  /// Fills the weights of one tile from its part of y = A p. Both spans cover rows [first_local, ...).
  using RowWeights = std::function<void(Index first_local, std::span<const double> y, std::span<double> weights)>;

  /// Local, one read. This rank's part of A^T u with u = weights(A p), tile by tile; also y = A p. The fused Hessian
  /// product. p: d; y: resized to rows_local; result: d.
  Eigen::VectorXd normal_product(const Eigen::VectorXd& p, const RowWeights& weights, Eigen::VectorXd& y) const;

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

  /// Sees row `rows_local[position]`, in double; called from several threads at once.
  using RowVisitor = std::function<void(std::size_t position, std::span<const double> row)>;

  /// Local. Calls `visit` for the rows at the given local positions only, shared between the threads. Not counted; the
  /// caller counts the rows of all ranks / n, so that the ranks keep counting alike.
  void visit_rows(std::span<const Index> rows_local, const RowVisitor& visit) const;
  void count_reads(double reads) const { *reads_ += reads; }  ///< Local. The same number on every rank.

  /// Local, one read. Calls `function(tile, accumulator)` for every tile, each thread with its own copy of `zero`, and
  /// returns the copies' sum in thread order. `Accumulator` needs `operator+=`.
  template <class Accumulator, class Function>
  Accumulator pass(const Accumulator& zero, Function&& function) const;

 private:
  RowMatrix(Communicator communicator, RowPartition partition, Index columns);
  void check_rows(Index rows) const;

  /// Calls `body(thread, threads)` on every OpenMP thread; an exception of a thread is thrown after all have ended.
  static void on_threads(int threads, const std::function<void(int)>& body);
  int pass_threads() const;
  /// Tiles of this thread, in order; `scratch` receives float rows in double.
  void visit_tiles(int thread, int threads, const std::function<void(const Tile&)>& visit) const;

  Communicator communicator_;
  RowPartition partition_;
  Index columns_;
  std::shared_ptr<const void> owner_;  ///< keeps owned rows alive
  const double* double_ = nullptr;
  const float* single_ = nullptr;
  bool is_single_ = false;  ///< the pointers of an empty rank may be null
  std::shared_ptr<double> reads_;
  std::shared_ptr<Eigen::VectorXd> row_norms_;
};

template <class Accumulator, class Function>
Accumulator RowMatrix::pass(const Accumulator& zero, Function&& function) const {
  const int threads = pass_threads();
  std::vector<Accumulator> parts(static_cast<std::size_t>(threads), zero);
  on_threads(threads, [&](int thread) {
    auto& part = parts[static_cast<std::size_t>(thread)];
    visit_tiles(thread, threads, [&](const Tile& tile) { function(tile, part); });
  });
  for (std::size_t k = 1; k < parts.size(); ++k) parts[0] += parts[k];
  *reads_ += 1;
  return std::move(parts[0]);
}

}  // namespace attnreg
