#include "heads/layer_passes.hpp"

#include <array>
#include <cmath>

#include "errors/refuse.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

/// A3^T of the keys of one sequence that are kept: d3 x keys.
MatrixXd values_of(const HeadRows& rows, const AttentionSequence& sequence) {
  MatrixXd values(sequence.values->cols(), rows.key_count());
  for (Index k = 0; k < values.cols(); ++k)
    values.col(k) = sequence.values->row(rows.keys[static_cast<std::size_t>(k)]).transpose();
  return values;
}

/// M becomes F o (M - <f, m>), column by column: the derivative of softmax, which is symmetric.
void multiply_softmax(MatrixPart F, MatrixXd& M) {
  for (Index j = 0; j < M.cols(); ++j)
    M.col(j).array() = F.col(j).array() * (M.col(j).array() - F.col(j).dot(M.col(j)));
}

MatrixXd normal_solved(const MatrixXd& L, MatrixXd columns) {
  L.triangularView<Eigen::Lower>().solveInPlace(columns);
  L.transpose().triangularView<Eigen::Upper>().solveInPlace(columns);
  return columns;
}

}  // namespace

Whitening value_metric(const HeadInputs& inputs, const std::vector<AttentionSequence>& sequences) {
  const Index d3 = sequences[0].values->cols();
  MatrixXd G = MatrixXd::Zero(d3, d3);
  for (const auto& rows : inputs.rows())
    add_gram_of_rows(
        values_of(rows, sequences[rows.index]).middleCols(rows.share_begin, rows.share_end - rows.share_begin), G);
  Whitening metric = whitening(inputs.communicator(), summed_gram(inputs.communicator(), std::move(G)));
  require(metric.dimension() > 0, "the values are all 0 or overflow: nothing can be learnt from outputs");
  return metric;
}

LayerPasses::LayerPasses(const HeadInputs& inputs, const std::vector<AttentionSequence>& sequences,
                         const Whitening& queries, const Whitening& keys, const Whitening& values)
    : FactorRows(inputs, queries, keys) {
  values_.resize(values.dimension(), inputs.K().cols());
  target_.resize(sequences[0].target.cols(), inputs.A().cols());
  std::array<double, 2> sums{};
  for (const auto& rows : inputs.rows()) {
    const AttentionSequence& sequence = sequences[rows.index];
    values_.middleCols(rows.first_key, rows.key_count()) = transposed_times(values.W, values_of(rows, sequence));
    for (Index k = 0; k < rows.queries(); ++k)
      target_.col(rows.first_query + k) = sequence.target.row(rows.rows[static_cast<std::size_t>(k)]).transpose();
    sums[1] += static_cast<double>(rows.share_end - rows.share_begin);
  }
  sums[0] = target_.squaredNorm();
  inputs.communicator().sum(sums);
  target_square_ = sums[0];
  keys_global_ = sums[1];
}

MatrixXd LayerPasses::attention(const HeadRows& rows, const HeadRowsAt& at, Index first, Index count) const {
  MatrixXd F = logits(rows, at, first, count);
  to_softmax(F, rows.visible_keys(first, count));
  return F;
}

/// The best Y for `seen`, with one correction from its residual: the normal equations square the condition.
void LayerPasses::find_best_Y(LayerPoint& point) const {
  const Index k3 = value_dimension(), dv = columns();
  const double ridge = ridges_.values;
  MatrixXd normal = MatrixXd::Zero(k3, k3);
  add_gram_of_rows(point.seen, normal);
  mirror(normal);
  VectorXd sums(k3 * k3 + k3 * dv);
  sums << normal.reshaped(), times_transposed(point.seen, target_).reshaped();
  communicator().sum(span_of(sums));
  point.L.resize(k3, k3);
  point.Y.resize(k3, dv);
  if (communicator().is_root()) {
    normal = sums.head(k3 * k3).reshaped(k3, k3);
    const VectorXd scale = normal.diagonal();
    normal.diagonal().array() += ridge;
    DampedFactor factor = damped_factor(std::move(normal), scale.array() + ridge);
    if (factor.ridge > 0)
      point.L = factor.L;
    else
      point.L.setConstant(std::numeric_limits<double>::quiet_NaN());
    point.Y = normal_solved(point.L, sums.tail(k3 * dv).reshaped(k3, dv));
  }
  communicator().broadcast(span_of(point.L));
  communicator().broadcast(span_of(point.Y));
  MatrixXd residual = times_transposed(point.seen, target_ - transposed_times(point.Y, point.seen));
  communicator().sum(span_of(residual));
  if (communicator().is_root()) point.Y += normal_solved(point.L, residual - ridge * point.Y);
  communicator().broadcast(span_of(point.Y));
}

LayerPoint LayerPasses::linearise(const HeadFactors& u) {
  const InWork passes("passes", "queries", 3 * static_cast<double>(inputs_.A().cols()));
  LayerPoint point;
  point.at = rows_at(u);
  point.seen.resize(value_dimension(), target_.cols());
  for (const auto& rows : inputs_.rows()) {
    MatrixXd& F = point.F.emplace_back(rows.key_count(), rows.queries());
    for_each_block(
        rows, [&](Index first, Index count) { F.middleCols(first, count) = attention(rows, point.at, first, count); });
    point.seen.middleCols(rows.first_query, rows.queries()) =
        times(values_.middleCols(rows.first_key, rows.key_count()), F);
  }
  if (held_)
    point.Y = *held_;
  else
    find_best_Y(point);
  point.values = transposed_times(point.Y, values_);
  const MatrixXd misfit = transposed_times(point.Y, point.seen) - target_;
  PullBack pull_back{MatrixXd(point.at.a.rows(), point.at.a.cols()),
                     MatrixXd::Zero(point.at.c.rows(), point.at.c.cols())};
  VectorXd sums = VectorXd::Zero(u.size() + 3);
  for (std::size_t k = 0; k < inputs_.rows().size(); ++k) {
    const HeadRows& rows = inputs_.rows()[k];
    add_outputs(k, point, misfit, pull_back);
    sums[u.size() + 1] += curvature(k, point);
    sums[u.size() + 2] += static_cast<double>(rows.key_count() * rows.queries());
  }
  sums[u.size()] = misfit.squaredNorm();
  sums.head(u.size()) = pulled_back(u, pull_back, false);
  communicator().sum(span_of(sums));
  ++reads_;
  point.misfit = sums[u.size()];
  point.ridge = ridges_.factors;
  point.gradient = sums.head(u.size()) + point.ridge * u.numbers();
  point.value = 0.5 * (point.misfit + point.ridge * u.numbers().squaredNorm());
  if (!held_) point.value += 0.5 * ridges_.values * point.Y.squaredNorm();
  point.mean_curvature = sums[u.size() + 1] / sums[u.size() + 2] / static_cast<double>(inputs_.sequences());
  return point;
}

/// The sum of f_k^2 |v_k - o|^2 over a sequence: the curvature of its logits.
double LayerPasses::curvature(std::size_t k, const LayerPoint& point) const {
  const HeadRows& rows = inputs_.rows()[k];
  const auto v = point.values.middleCols(rows.first_key, rows.key_count());
  const VectorXd squares = v.colwise().squaredNorm().transpose();
  double sum = 0;
  for_each_block(rows, [&](Index first, Index count) {
    const auto F = point.F[k].middleCols(first, count);
    const MatrixXd O = times(v, F), products = transposed_times(v, O);
    for (Index j = 0; j < count; ++j)
      sum +=
          (F.col(j).array().square() * (squares.array() - 2 * products.col(j).array() + O.col(j).squaredNorm())).sum();
  });
  return sum;
}

/// Adds a sequence to the pull-back of a derivative in the outputs, dv x queries.
void LayerPasses::add_outputs(std::size_t k, const LayerPoint& point, MatrixPart outputs, PullBack& pull_back) const {
  const HeadRows& rows = inputs_.rows()[k];
  const auto v = point.values.middleCols(rows.first_key, rows.key_count());
  for_each_block(rows, [&](Index first, Index count) {
    const Index query = rows.first_query + first;
    MatrixXd R = transposed_times(v, outputs.middleCols(query, count));
    multiply_softmax(point.F[k].middleCols(first, count), R);
    pull_back.to_a.middleCols(query, count) = times(keys_at(rows, point.at), R);
    if (point.at.c.size() > 0)
      add_times_transposed(point.at.a.middleCols(query, count), R,
                           pull_back.to_c.middleCols(rows.first_key, rows.key_count()));
  });
}

VectorXd LayerPasses::product(const HeadFactors& u, const LayerPoint& around, const VectorXd& p) {
  const InWork passes("passes", "queries", 2 * static_cast<double>(inputs_.A().cols()));
  const HeadRowsAt move = rows_at(u.with(p));
  MatrixXd change(columns(), target_.cols());  // of F A3 Y, with Y as it is
  for (std::size_t k = 0; k < inputs_.rows().size(); ++k) {
    const HeadRows& rows = inputs_.rows()[k];
    const auto c = keys_at(rows, around.at), dc = keys_at(rows, move);
    for_each_block(rows, [&](Index first, Index count) {
      const Index query = rows.first_query + first;
      MatrixXd Z = transposed_times(c, move.a.middleCols(query, count));
      if (!u.is_full()) add_transposed_times(dc, around.at.a.middleCols(query, count), Z);
      multiply_softmax(around.F[k].middleCols(first, count), Z);
      change.middleCols(query, count) = times(around.values.middleCols(rows.first_key, rows.key_count()), Z);
    });
  }
  if (around.L.size() > 0) {
    MatrixXd along = times_transposed(around.seen, change);
    communicator().sum(span_of(along));
    change -= transposed_times(normal_solved(around.L, std::move(along)), around.seen);
  }
  PullBack pull_back{MatrixXd(around.at.a.rows(), around.at.a.cols()),
                     MatrixXd::Zero(around.at.c.rows(), around.at.c.cols())};
  for (std::size_t k = 0; k < inputs_.rows().size(); ++k) add_outputs(k, around, change, pull_back);
  VectorXd result = pulled_back(u, pull_back, false);
  communicator().sum(span_of(result));
  ++products_;
  return result + around.ridge * p;
}

double LayerPasses::error(const HeadFactors& u, const MatrixXd& Y) const {
  const InWork pass("pass", "queries", static_cast<double>(inputs_.A().cols()));
  const HeadRowsAt at = rows_at(u);
  const MatrixXd values = transposed_times(Y, values_);
  std::array<double, 1> sum{};
  for (const auto& rows : inputs_.rows())
    for_each_block(rows, [&](Index first, Index count) {
      const MatrixXd O = times(values.middleCols(rows.first_key, rows.key_count()), attention(rows, at, first, count));
      sum[0] += (O - target_.middleCols(rows.first_query + first, count)).squaredNorm();
    });
  communicator().sum(sum);
  return sum[0] > 0 ? std::sqrt(sum[0] / target_square_) : 0;
}

}  // namespace attnreg
