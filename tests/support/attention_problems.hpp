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
