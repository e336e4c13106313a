#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "attention/visible_keys.hpp"
#include "attnreg/apply_attention.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

inline constexpr Index kKeyBlockRows = 256;    ///< keys that pass by at a time
inline constexpr Index kQueryBlockRows = 128;  ///< queries that a thread treats at a time: 256 KiB of logits

/// Throws `InvalidArgument` on all ranks unless the columns of queries and keys, and the rows of keys and values, agree
/// in number. Local; shapes are replicated.
void check_attention_shapes(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix* values);

/// Collective. The mask as the queries of this rank see it; none without one. Throws as `VisibleKeys`, on all ranks.
std::optional<VisibleKeys> visible_keys(const RowMatrix& queries, const RowMatrix& keys, const AttentionMask* mask);

/// Local. Replaces the rows of inner products q_i . k_j by rows of P. `first_row` is the number of the first row in
/// messages. `InvalidArgument` (this rank), as `apply_attention`.
void normalise_attention(const AttentionKernel& kernel, std::int64_t first_row, RowMajorMatrix& products);

/// Local. Throws `NotFinite` (this rank) for the first row of its output that is not finite, as sums of large values
/// are.
void require_finite_output(std::int64_t first_query, const RowMajorMatrix& output);

/// Local, on the calling thread. Adds W V to the rows of `out` from `first_row` on.
void add_weighted_values(const RowMajorMatrix& W, const RowMajorMatrix& V, Index first_row, RowMajorMatrix& out);

/// Queries of this rank that are treated together, and the keys and values that pass by.
struct AttentionBlock {
  Index first_query = 0;         ///< local
  RowMajorMatrix& products;      ///< q_i . k_j; the callee's to overwrite
  const RowMajorMatrix& values;  ///< v_j, one row per column of `products`
  std::int64_t first_key = 0;    ///< global

  /// Sets the products with hidden keys to `value`. Local.
  void fill_hidden(const std::optional<VisibleKeys>& visible, double value) const {
    if (visible) visible->fill_hidden(products, first_query, first_key, value);
  }
};

/// Collective. Calls `add(block)` for every pair of a block of this rank's queries and a block of keys: several threads
/// at once, each with queries of its own; the keys of one query come in order. `add` must not throw. Costs as
/// `apply_attention`.
void visit_attention_blocks(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                            const std::function<void(const AttentionBlock&)>& add);

}  // namespace attnreg
