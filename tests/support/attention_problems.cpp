#include "support/attention_problems.hpp"

#include <cmath>
#include <utility>

#include "support/dense_algebra.hpp"

namespace attnreg::attention_problems {

RowMajorMatrix softmax_rows(RowMajorMatrix Z) {
  for (Index j = 0; j < Z.rows(); ++j) {
    Z.row(j) = (Z.row(j).array() - Z.row(j).maxCoeff()).exp();
    Z.row(j) /= Z.row(j).sum();
  }
  return Z;
}

VectorXd joined(const AttentionUnknowns& unknowns) {
  VectorXd all(unknowns.X.size() + unknowns.Y.size());
  all << flat(unknowns.X), flat(unknowns.Y);
  return all;
}

AttentionSequence distributed(const Communicator& comm, const Whole& whole, reference::Layout layout) {
  const auto partition = reference::make_partition(layout, whole.queries.rows(), whole.keys.rows(), comm.size());
  const auto first = static_cast<Index>(partition.begin(comm.rank()));
  const Index rows = partition.rows_local(comm.rank());
  AttentionSequence sequence{partition,    whole.queries.middleRows(first, rows), whole.keys,
                             whole.values, whole.target.middleRows(first, rows),  std::nullopt};
  if (whole.weights) sequence.weights = whole.weights->middleRows(first, rows);
  return sequence;
}

Planted plant(const Shape& shape, Index rank, double spread, int sequences, std::uint64_t seed) {
  Planted planted;
  planted.unknowns.X =
      reference::random_matrix(shape.d1, rank, seed) * reference::random_matrix(shape.d2, rank, seed + 1).transpose();
  planted.unknowns.X *= spread / planted.unknowns.X.norm();
  planted.unknowns.Y = reference::random_matrix(shape.d3, shape.dv, seed + 2);
  for (int k = 0; k < sequences; ++k) {
    const std::uint64_t own = seed + 10 * static_cast<std::uint64_t>(k);
    Whole whole{reference::random_matrix(shape.n1, shape.d1, own + 3),
                reference::random_matrix(shape.n2, shape.d2, own + 4),
                {},
                {},
                {}};
    whole.target = softmax_rows(whole.queries * planted.unknowns.X * whole.keys.transpose());
    if (shape.d3 > 0) {
      whole.values = reference::random_matrix(shape.n2, shape.d3, own + 5);
      whole.target = whole.target * *whole.values * planted.unknowns.Y;
    }
    planted.sequences.push_back(std::move(whole));
  }
  return planted;
}

MatrixXd model_of(const AttentionObjective& objective) {
  const Index D = objective.dimension();
  MatrixXd M(D, D);
  const auto square = [&](const VectorXd& v) { return std::pow(objective.preconditioner().norm(v), 2); };
  for (Index i = 0; i < D; ++i)
    for (Index j = 0; j < D; ++j)
      M(i, j) = (square(VectorXd::Unit(D, i) + VectorXd::Unit(D, j)) - square(VectorXd::Unit(D, i)) -
                 square(VectorXd::Unit(D, j))) /
                2;
  return M;
}

double smallest_eigenvalue(const MatrixXd& symmetric) { return reference::eigenvalues(symmetric)[0]; }

std::vector<AttentionSequence> Attention::sequences(const Planted& planted, reference::Layout layout) const {
  std::vector<AttentionSequence> all;
  for (const auto& whole : planted.sequences) all.push_back(distributed(comm_, whole, layout));
  return all;
}

}  // namespace attnreg::attention_problems
