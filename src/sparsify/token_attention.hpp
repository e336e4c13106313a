#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "attention/visible_keys.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

inline constexpr Index kTokenChunk = 256;    ///< keys that are treated together
inline constexpr Index kTokenQueries = 128;  ///< queries that are treated together, from multiples of it on

/// What the queries make of each key: sums over all queries, n_k numbers each.
struct KeySums {
  VectorXd mass;     ///< sum_i P_ij
  VectorXd squares;  ///< sum_i P_ij^2
  VectorXd output;   ///< sum_i P_ij^2 |v_j - O_i|^2
};

/// The attention O = P V of one head, P_ij = exp(scale q_i . k_j) / sum over the keys that query i sees, and P by
/// blocks of queries. Queries are spread over the ranks, keys and values replicated: 8 n_k (d + d_v) bytes, and as much
/// again while they are gathered. The means of keys and of values are taken off, which changes nothing but the size of
/// the numbers: logits of a query change by one number, and outputs by the mean of the values.
///
/// Sums over queries are exact (`ExactSum`) sums of those of `kTokenQueries` queries. So they have the same bits on any
/// number of ranks whose rows begin at multiples of it, as those of dense files do for d <= 256.
class TokenAttention {
 public:
  /// Collective; as `apply_attention`, with its failures. mask: as there. It must outlive this.
  TokenAttention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values, double scale,
                 const AttentionMask* mask);

  const Communicator& communicator() const { return communicator_; }
  std::int64_t queries_global() const { return partition_.rows_global(); }
  Index key_count() const { return keys_.rows(); }
  double scale() const { return scale_; }
  const RowMajorMatrix& queries() const { return queries_; }  ///< this rank's, n x d
  const RowMajorMatrix& keys() const { return keys_; }        ///< n_k x d, of mean 0
  const RowMajorMatrix& values() const { return values_; }    ///< n_k x d_v, of mean 0
  const Eigen::RowVectorXd& value_mean() const { return value_mean_; }
  const RowMajorMatrix& output() const { return output_; }  ///< O of the values of mean 0, this rank's queries
  const VectorXd& log_normaliser() const { return log_normaliser_; }
  const std::optional<VisibleKeys>& visible() const { return visible_; }
  double size() const { return size_; }  ///< |O|_F, the mean of the values included. Replicated
  /// A power of two, by which the values, and all that is made of them here, are multiplied, so that the largest is
  /// about 1, and their units do not matter; 1 where all are 0.
  double value_scale() const { return value_scale_; }
  double spread() const { return spread_; }  ///< mean over the queries of sum_j P_ij |v_j - O_i|^2. Replicated

  /// P of some queries and keys.
  struct Block {
    Index first = 0;                ///< local number of the first query
    Index rows = 0;                 ///< queries
    std::vector<RowMajorMatrix> P;  ///< rows x up to `kTokenChunk`, for each chunk of the list of keys
  };
  /// Local. Calls `use` for the blocks of this rank's queries in order. 2 n d flops a key, on all threads.
  void visit(std::span<const Index> keys, const std::function<void(const Block&)>& use) const;

  /// Collective. One visit of all keys, and one all-reduce of 72 n_k bytes.
  KeySums key_sums() const;

  /// Collective. Gram matrices of the features x_j of keys, x_j^T x_l = sum_i P_ij P_il (<v_j - O_i, v_l - O_i> +
  /// spread): sum_j w_j x_j is what weights w do to all outputs at once, times the normaliser, and to the normalisers.
  /// Of each chunk of the list with itself, or of all pairs of chunks a >= b in the order (0, 0), (1, 0), (1, 1), ...
  /// 4 n flops a query for a pair of keys, 6 between chunks; one all-reduce of 24 bytes a pair of keys.
  std::vector<MatrixXd> feature_grams(std::span<const Index> keys, bool all_pairs) const;

 private:
  double bound_of_sums() const;  ///< of sums over queries of features' products
  RowMajorMatrix chunk_of(const RowMajorMatrix& rows, std::span<const Index> keys, Index chunk) const;

  Communicator communicator_;
  RowPartition partition_;
  double scale_;
  RowMajorMatrix queries_, keys_, values_;
  Eigen::RowVectorXd value_mean_;
  std::optional<VisibleKeys> visible_;
  RowMajorMatrix output_;
  VectorXd log_normaliser_;
  double size_ = 0, spread_ = 0, value_scale_ = 1;
};

}  // namespace attnreg
