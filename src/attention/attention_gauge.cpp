#include "attention/attention_gauge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "algebra/dense_factors.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

/// A matrix without its part in the column space of an orthonormal basis.
MatrixXd outside(const MatrixXd& basis, const MatrixXd& matrix) {
  if (basis.cols() == 0) return matrix;
  return matrix - basis * (basis.transpose() * matrix);
}

/// Calls use(j, count, G) for the queries j, ..., j + count - 1 of a block, which see the same keys: G = E^T E, E the
/// rows of `keys` that they see, minus the first of them where only differences matter.
template <class Use>
void for_each_view(const QueryBlock& block, const RowMajorMatrix& keys, bool only_differences, Use&& use) {
  std::vector<Index> visible;
  const Index count = block.is_masked() ? 1 : block.rows;
  for (Index j = 0; j < block.rows; j += count) {
    block.list_visible(j, visible);
    RowMajorMatrix E = visible.empty() ? keys : RowMajorMatrix(keys(visible, Eigen::all));
    if (only_differences) E.rowwise() -= E.row(0).eval();
    RowMajorMatrix G = RowMajorMatrix::Zero(E.cols(), E.cols());
    add_transposed_product(E, E, G);
    use(j, count, G);
  }
}

bool only_differences(const AttentionPasses& passes, const QueryBlock& block) {
  return passes.loss().is_shift_invariant() && !block.is_weighted();
}

/// Sums over all rows of Z, replicated.
struct SeenSquares {
  MatrixXd queries;      ///< of the queries that see more than one thing
  MatrixXd keys, views;  ///< of the keys that are seen, and of what is seen of them
  MatrixXd values;
  double rows;  ///< of `queries`
};

SeenSquares seen_squares(AttentionPasses& passes) {
  const auto [d1, d2, d3, dv] = passes.shape();
  auto sums =
      passes.sum({{d1, d1}, {d2, d2}, {d2, d2}, {d3, d3}, {1, 1}}, [&](const QueryBlock& block, MatrixSums& part) {
        const VectorXd counts = block.counts();
        const RowMajorMatrix keys = block.keys().rowwise() + block.view->centre.transpose();
        add_transposed_product(counts.asDiagonal() * keys, keys, part[1]);
        if (passes.with_values()) add_transposed_product(counts.asDiagonal() * block.values(), block.values(), part[3]);
        for_each_view(block, block.keys(), only_differences(passes, block), [&](Index j, Index count, const auto& G) {
          if ((G.array() == 0).all()) return;
          const RowMajorMatrix A = block.queries().middleRows(j, count);
          add_transposed_product(A, A, part[0]);
          part[2] += static_cast<double>(count) * G;
          part[4](0, 0) += static_cast<double>(count);
        });
      });
  return {sums[0], sums[1], sums[2], sums[3], sums[4](0, 0)};
}

/// Of a Gram matrix, an orthonormal basis of its null space, and W orthogonal to that with W^T gram W = 1; W is empty
/// where the matrix is not finite.
struct Spaces {
  MatrixXd null, W;
};

/// In columns of equal size; an eigenvalue is 0 where it drowns in rounding. Collective.
Spaces spaces_of(const Communicator& communicator, const MatrixXd& gram) {
  const Index d = gram.rows();
  if (d == 0) return {};
  VectorXd message = VectorXd::Constant(1 + d * d, -1);
  if (communicator.is_root()) {
    const VectorXd scale =
        gram.diagonal().unaryExpr([](double square) { return square > 0 ? 1 / std::sqrt(square) : 1.0; });
    const SymmetricEigen eigen = symmetric_eigen(scale.asDiagonal() * gram * scale.asDiagonal(), true);
    if (eigen.finite) {
      const Index null = (eigen.values.array() <= 4 * eigenvalue_rounding(d, eigen.values.norm())).count();
      MatrixXd vectors = scale.asDiagonal() * eigen.vectors;
      if (null > 0) vectors.leftCols(null) = orthonormal_columns(vectors.leftCols(null));
      vectors.rightCols(d - null) *= eigen.values.tail(d - null).cwiseSqrt().cwiseInverse().asDiagonal();
      vectors.rightCols(d - null) = outside(vectors.leftCols(null), vectors.rightCols(d - null));
      message[0] = static_cast<double>(null);
      message.tail(d * d) = vectors.reshaped();
    }
  }
  communicator.broadcast(span_of(message));
  if (message[0] < 0) return {MatrixXd(d, 0), MatrixXd(d, 0)};
  const auto null = static_cast<Index>(message[0]);
  const MatrixXd vectors = message.tail(d * d).reshaped(d, d);
  return {vectors.leftCols(null), vectors.rightCols(d - null)};
}

/// An orthonormal basis of the D = W1 C W2^T that no row of Z sees. With W1 and W2 from the sums over all rows,
/// whatever else is hidden stands out: the condition of A1 and A2 does not matter. Collective, one pass.
MatrixXd hidden_together(AttentionPasses& passes, const MatrixXd& W1, const MatrixXd& W2) {
  const Communicator& communicator = passes.communicator();
  const Index d1 = W1.cols(), d2 = W2.cols(), size = d1 * d2;
  auto sums = passes.sum(
      {{d1 * d1, d2 * d2}},
      [&](const QueryBlock& block, MatrixSums& part) {
        const bool differences = only_differences(passes, block);
        RowMajorMatrix keys = block.keys();
        if (differences) keys.rowwise() -= block.keys().row(0);  // an offset would cost digits below
        const RowMajorMatrix A = product(block.queries(), W1);
        const Index views = block.is_masked() ? block.rows : 1;
        RowMajorMatrix AA(views, d1 * d1), GG(views, d2 * d2);
        for_each_view(block, product(keys, W2), differences, [&](Index j, Index count, const RowMajorMatrix& G) {
          const RowMajorMatrix of_A = A.middleRows(j, count).transpose() * A.middleRows(j, count);
          AA.row(j / count) = flat(of_A);
          GG.row(j / count) = flat(G);
        });
        add_transposed_product(AA, GG, part[0]);
      },
      AttentionPasses::Receiver::root);
  VectorXd message = VectorXd::Zero(1);
  MatrixXd directions;
  if (communicator.is_root()) {
    MatrixXd N(size, size);
    for (Index a = 0; a < d1; ++a)
      for (Index b = 0; b < d1; ++b)
        N.block(a * d2, b * d2, d2, d2) = sums[0].row(a * d1 + b).reshaped<Eigen::RowMajor>(d2, d2);
    const SymmetricEigen eigen = symmetric_eigen(N, true);
    const Index null =
        eigen.finite ? (eigen.values.array() <= 4 * eigenvalue_rounding(size, eigen.values.norm())).count() : 0;
    directions.resize(W1.rows() * W2.rows(), null);
    for (Index k = 0; k < null; ++k)
      directions.col(k) = flat(W1 * eigen.vectors.col(k).reshaped<Eigen::RowMajor>(d1, d2) * W2.transpose());
    if (null > 0) directions = orthonormal_columns(directions);
    message[0] = static_cast<double>(null);
  }
  communicator.broadcast(span_of(message));
  directions.conservativeResize(W1.rows() * W2.rows(), static_cast<Index>(message[0]));
  communicator.broadcast(span_of(directions));
  return directions;
}

}  // namespace

AttentionGauge::AttentionGauge(AttentionPasses& passes, const std::vector<AttentionSequence>& sequences,
                               const AttentionParameters& parameters, const VectorXd& u, bool with_Y)
    : parameters_(parameters) {
  const AttentionShape& shape = passes.shape();
  const Communicator& communicator = passes.communicator();
  const bool masked = std::ranges::any_of(sequences, [](const auto& sequence) { return sequence.mask.has_value(); });
  const SeenSquares seen = seen_squares(passes);
  const Spaces queries = spaces_of(communicator, seen.queries), keys = spaces_of(communicator, seen.views);
  queries_ = queries.null;
  keys_ = keys.null;
  values_ = spaces_of(communicator, seen.values).null;
  const Index unseen = spaces_of(communicator, seen.keys).null.cols();

  const Index r = parameters.rank(), d1 = parameters.is_low_rank() ? r : shape.d2,
              d2 = parameters.is_low_rank() ? r : shape.d1;  // columns that a null space of A1, A2 is free in
  name(queries_.cols() * d1, "queries have " + std::to_string(queries_.cols()) + " null directions n, A1 n = 0" +
                                 (seen.rows < passes.rows_global() ? " but for queries that see one key only" : "") +
                                 ": X + n y^T");
  name(unseen * d2, "keys have " + std::to_string(unseen) + " null directions v, A2 v = 0: X + y v^T");
  name((keys_.cols() - unseen) * d2, "a shift of the logits, which the loss does not see: X + y v^T, A2 v constant" +
                                         std::string(masked ? " over the keys of each query" : ""));
  const Index left1 = shape.d1 - queries_.cols(), left2 = shape.d2 - keys_.cols();
  if (parameters.is_low_rank()) {
    dimension_ = (left1 + left2) * r;
    find_factor_gauge(communicator, u);
  } else {
    dimension_ = left1 * left2;
    const Index together = queries.W.cols() * keys.W.cols();
    if ((masked || sequences.size() > 1) && together > 0 && together <= kMostTogether)
      together_ = hidden_together(passes, queries.W, keys.W);
    name(together_.cols(), "X + D, D changes no logit that a query sees, or those of a query alike");
    dimension_ -= together_.cols();
  }
  name(values_.cols() * shape.dv,
       "values have " + std::to_string(values_.cols()) + " null directions n, A3 n = 0: Y + n z^T");
  if (with_Y) {
    d3_ = shape.d3;
    dv_ = shape.dv;
    dimension_ += (d3_ - values_.cols()) * dv_;
  }
}

void AttentionGauge::name(Index dimension, const std::string& text) {
  if (dimension > 0) names_.push_back(std::to_string(dimension) + ": " + text);
}

void AttentionGauge::find_factor_gauge(const Communicator& communicator, const VectorXd& u) {
  const Index r = parameters_.rank();
  P_ = outside(queries_, parameters_.P(u));
  Q_ = outside(keys_, parameters_.Q(u));
  VectorXd message = VectorXd::Zero(2 * r * (r + 1));
  if (communicator.is_root()) {
    const SymmetricEigen left = symmetric_eigen(P_.transpose() * P_, true);
    const SymmetricEigen right = symmetric_eigen(Q_.transpose() * Q_, true);
    if (left.finite && right.finite)
      message << left.values, right.values, left.vectors.reshaped(), right.vectors.reshaped();
  }
  communicator.broadcast(span_of(message));
  a_ = message.head(r).cwiseMax(0);
  b_ = message.segment(r, r).cwiseMax(0);
  U_ = message.segment(2 * r, r * r).reshaped(r, r);
  V_ = message.tail(r * r).reshaped(r, r);
  const double rounding = eigenvalue_rounding(r, a_.norm() + b_.norm());
  const Index moves = ((a_.replicate(1, r) + b_.transpose().replicate(r, 1)).array() > rounding).count();
  name(moves, "the factors, X = P Q^T = (P S)(Q S^-T)^T");
  dimension_ -= moves;
}

/// S of (P S, -Q S^T) that is nearest: P^T P S + S Q^T Q = P^T dP - dQ^T Q.
void AttentionGauge::leave_out_factor_gauge(RowMajorMatrix& dP, RowMajorMatrix& dQ) const {
  const double rounding = eigenvalue_rounding(a_.size(), a_.norm() + b_.norm());
  MatrixXd S = U_.transpose() * (P_.transpose() * dP - dQ.transpose() * Q_) * V_;
  for (Index j = 0; j < S.cols(); ++j)
    for (Index i = 0; i < S.rows(); ++i) S(i, j) = a_[i] + b_[j] > rounding ? S(i, j) / (a_[i] + b_[j]) : 0;
  S = U_ * S * V_.transpose();
  dP -= P_ * S;
  dQ += Q_ * S.transpose();
}

VectorXd AttentionGauge::project(const VectorXd& v) const {
  const VectorXd of_X = v.head(parameters_.size());
  VectorXd result(v.size());
  if (parameters_.is_low_rank()) {
    RowMajorMatrix dP = outside(queries_, parameters_.P(of_X));
    RowMajorMatrix dQ = outside(keys_, parameters_.Q(of_X));
    leave_out_factor_gauge(dP, dQ);
    result.head(of_X.size()) << flat(dP), flat(dQ);
  } else {
    const MatrixXd X = outside(queries_, parameters_.X(of_X));
    const VectorXd left = flat(RowMajorMatrix(outside(keys_, X.transpose()).transpose()));
    result.head(of_X.size()) = outside(together_, left);
  }
  if (dv_ > 0) {
    const Eigen::Map<const RowMajorMatrix> Y(v.data() + of_X.size(), d3_, dv_);
    result.tail(d3_ * dv_) = flat(RowMajorMatrix(outside(values_, Y)));
  }
  return result;
}

}  // namespace attnreg
