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

Table causal_table(Index n1, Index n2) {
  Table table(n1, n2);
  for (Index i = 0; i < n1; ++i)
    for (Index j = 0; j < n2; ++j) table(i, j) = j <= i + n2 - n1 ? 1 : 0;
  return table;
}

Table random_table(Index n1, Index n2, std::uint64_t seed) {
  const RowMajorMatrix numbers = reference::random_matrix(n1, n2, seed);
  Table table(n1, n2);
  for (Index i = 0; i < n1; ++i)
    for (Index j = 0; j < n2; ++j) table(i, j) = j < n2 - 2 && (numbers(i, j) > -0.3 || j == i % (n2 - 2)) ? 1 : 0;
  return table;
}

AttentionMask mask_of(const Table& table, const RowPartition& partition, int rank) {
  return {table.middleRows(static_cast<Index>(partition.begin(rank)), partition.rows_local(rank))};
}

Whole part_of(const Whole& whole, const Table& table, Index i) {
  std::vector<Index> seen;
  for (Index j = 0; j < table.cols(); ++j)
    if (table(i, j) != 0) seen.push_back(j);
  Whole part{whole.queries.row(i), whole.keys(seen, Eigen::all), whole.target.row(i), {}, {}};
  if (whole.values)
    part.values = (*whole.values)(seen, Eigen::all);
  else
    part.target = RowMajorMatrix(whole.target.row(i))(Eigen::all, seen);
  if (whole.weights) part.weights = RowMajorMatrix(whole.weights->row(i))(Eigen::all, seen);
  return part;
}

RowMajorMatrix masked_softmax(const Whole& whole, const RowMajorMatrix& X, const Table& table) {
  RowMajorMatrix F = whole.queries * X * whole.keys.transpose();
  for (Index i = 0; i < F.rows(); ++i) {
    double sum = 0;
    for (Index j = 0; j < F.cols(); ++j) sum += F(i, j) = table(i, j) != 0 ? std::exp(F(i, j)) : 0;
    F.row(i) /= sum;
  }
  return F;
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
