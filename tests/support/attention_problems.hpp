#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "attention/attention_objective.hpp"
#include "attnreg/attention_regression.hpp"
#include "support/reference.hpp"

namespace attnreg::attention_problems {

using Eigen::MatrixXd;
using Eigen::VectorXd;

VectorXd joined(const AttentionUnknowns& unknowns);

/// Whole matrices, and this rank's rows of them.
struct Whole {
  RowMajorMatrix queries, keys, target;
  std::optional<RowMajorMatrix> values, weights;
};

AttentionSequence distributed(const Communicator& comm, const Whole& whole, reference::Layout layout);

/// A planted head: B = softmax(A1 X A2^T), X of the given rank, logits of standard deviation about `spread`; with d3 >
/// 0 B = softmax(A1 X A2^T) A3 Y.
struct Planted {
  AttentionUnknowns unknowns;
  std::vector<Whole> sequences;
};

struct Shape {
  Index n1 = 40, n2 = 24, d1 = 4, d2 = 3, d3 = 0, dv = 0;
};

RowMajorMatrix softmax_rows(RowMajorMatrix Z);

Planted plant(const Shape& shape, Index rank, double spread, int sequences, std::uint64_t seed);

/// Masks, all queries x all keys.
using Table = AttentionMask::Rows;
Table causal_table(Index n1, Index n2);
/// About six in ten keys, the diagonal among them; the last two are seen by none.
Table random_table(Index n1, Index n2, std::uint64_t seed);
AttentionMask mask_of(const Table& table, const RowPartition& partition, int rank);
/// The keys that query i sees, and nothing else of the sequence.
Whole part_of(const Whole& whole, const Table& table, Index i);
/// softmax(A1 X A2^T) over the keys that are seen, else 0.
RowMajorMatrix masked_softmax(const Whole& whole, const RowMajorMatrix& X, const Table& table);

/// M of the objective's preconditioner, from its norm.
MatrixXd model_of(const AttentionObjective& objective);

double smallest_eigenvalue(const MatrixXd& symmetric);

class Attention : public testing::Test {
 protected:
  const Communicator comm_{MPI_COMM_WORLD};

  std::vector<AttentionSequence> sequences(const Planted& planted,
                                           reference::Layout layout = reference::Layout::random) const;
};

}  // namespace attnreg::attention_problems
