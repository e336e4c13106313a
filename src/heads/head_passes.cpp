#include "heads/head_passes.hpp"

#include <array>
#include <cmath>

#include "algebra/blas_products.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

using Part = Eigen::Ref<MatrixXd>;

/// Y becomes J Y, column by column: w o (y - <w, y> / total).
void multiply_curvature(MatrixPart w, Eigen::Ref<const VectorXd> totals, Part Y) {
  for (Index j = 0; j < Y.cols(); ++j) {
    const double total = totals[j];
    const double mean = total > 0 ? w.col(j).dot(Y.col(j)) / total : 0;
    Y.col(j).array() = w.col(j).array() * (Y.col(j).array() - mean);
  }
}

/// KL(b | f) for each query, times s. Without cancellation: sum_k b_k (exp(-delta_k) - 1 + delta_k) over b_k > 0 with
/// delta = log b_k - log f_k, b / s and f being distributions, and f_k over the others.
double divergence(const TargetBlock& target, MatrixPart Z, const VectorXd& normalisers, MatrixPart F) {
  double sum = 0;
  VectorXd delta(Z.rows()), growth(Z.rows());
  for (Index j = 0; j < Z.cols(); ++j) {
    const double total = target.totals[j];
    if (!(total > 0)) continue;
    const auto b = target.B.col(j).array();
    delta =
        (b > kMissing)
            .select(target.log_odds.col(j).array() + (target.log_shift[j] + normalisers[j]) - Z.col(j).array(), 0.0);
    growth = -delta;
    kernels::expm1(span_of(growth), span_of(growth));
    sum += (b > kMissing).select(b * (growth + delta).array(), total * F.col(j).array()).sum();
  }
  return sum;
}

/// What a block of logits adds to the value; Z becomes the gradient in Z, `weights` and `totals` the curvature. Weights
/// stay empty where all are 1.
double use_logits(const TargetBlock& target, HeadLoss loss, Part Z, MatrixXd& weights, VectorXd& totals) {
  if (loss == HeadLoss::log_odds || loss == HeadLoss::weighted_log_odds) {
    const bool is_dense = target.weights.size() == 0;
    if (loss == HeadLoss::log_odds && is_dense) {
      Z -= target.log_odds;
      return 0.5 * Z.squaredNorm();
    }
    if (is_dense)
      weights = target.B;
    else if (loss == HeadLoss::log_odds)
      weights = target.weights;
    else
      weights = target.weights.cwiseProduct(target.B);
    totals = weights.colwise().sum().transpose();
    const MatrixXd difference = Z - target.log_odds;
    Z = difference;
    multiply_curvature(weights, totals, Z);
    return 0.5 * difference.cwiseProduct(Z).sum();
  }
  weights = Z;
  const VectorXd normalisers = to_softmax(weights, target.visible);
  if (loss == HeadLoss::softmax) {
    totals.setOnes(Z.cols());
    Z = weights - target.B;
    const double value = 0.5 * Z.squaredNorm();
    multiply_curvature(weights, totals, Z);
    return value;
  }
  const double value = divergence(target, Z, normalisers, weights);
  totals = target.totals;
  weights = weights * totals.asDiagonal();
  Z = weights - target.B;
  return value;
}

/// Numbers of keys that the query does not see become 0.
void hide(const HeadRows& rows, Index first, Part Z) {
  if (!rows.visible) return;
  for (Index j = 0; j < Z.cols(); ++j)
    for (Index k = 0; k < Z.rows(); ++k)
      if (!rows.sees(first + j, k)) Z(k, j) = 0;
}

}  // namespace

HeadValues HeadPasses::values(const HeadFactors& u) {
  const InWork pass("pass", "queries", static_cast<double>(inputs_.A().cols()));
  const HeadRowsAt at = rows_at(u);
  std::array<double, 3> sums{};
  for (std::size_t k = 0; k < inputs_.rows().size(); ++k) {
    const HeadRows& rows = inputs_.rows()[k];
    for_each_block(rows, [&](Index first, Index count) {
      const TargetBlock target = target_.block(k, first, count);
      MatrixXd Z = logits(rows, at, first, count), F = Z, weights;
      VectorXd totals;
      sums[1] += divergence(target, Z, to_softmax(F, target.visible), F);
      sums[2] += 0.5 * (F - target.B).squaredNorm();
      sums[0] += use_logits(target, HeadLoss::log_odds, Z, weights, totals);
    });
  }
  inputs_.communicator().sum(sums);
  ++reads_;
  const double size = target_.half_square();
  return {sums[0], sums[1], sums[2], size > 0 ? std::sqrt(sums[2] / size) : 0};
}

HeadLinearisation HeadPasses::linearise(const HeadFactors& u, HeadLoss loss) {
  const InWork pass("pass", "queries", static_cast<double>(inputs_.A().cols()));
  HeadLinearisation result;
  result.loss = loss;
  result.at = rows_at(u);
  PullBack pull_back{MatrixXd(result.at.a.rows(), result.at.a.cols()),
                     MatrixXd::Zero(result.at.c.rows(), result.at.c.cols())};
  VectorXd sums = VectorXd::Zero(u.size() + 3);
  for (std::size_t k = 0; k < inputs_.rows().size(); ++k) sums.tail<3>() += linearise_rows(k, result, pull_back);
  sums.head(u.size()) = pulled_back(u, pull_back, false);
  inputs_.communicator().sum(span_of(sums));
  ++reads_;
  result.gradient = sums.head(u.size());
  const auto [value, curvature, numbers] = std::array{sums[u.size()], sums[u.size() + 1], sums[u.size() + 2]};
  result.value = value;
  result.mean_curvature = (curvature / numbers + ridge_) / static_cast<double>(inputs_.sequences());
  return result;
}

/// Adds a sequence to the pull-back of the gradient, and its weights; what it adds to the value, to the sum of the
/// curvature and to the number of logits.
Eigen::Vector3d HeadPasses::linearise_rows(std::size_t k, HeadLinearisation& result, PullBack& pull_back) const {
  const HeadRows& rows = inputs_.rows()[k];
  const auto a = result.at.a.middleCols(rows.first_query, rows.queries());
  const auto c = keys_at(rows, result.at);
  const bool full = result.at.c.size() == 0, weighted = result.loss != HeadLoss::log_odds || !target_.is_dense();
  Eigen::MatrixXf all_weights;
  VectorXd all_totals(rows.queries());
  if (weighted) all_weights.resize(rows.key_count(), rows.queries());
  double value = 0, curvature = 0;
  for_each_block(rows, [&](Index first, Index count) {
    MatrixXd Z = logits(rows, result.at, first, count), ridge, weights;
    VectorXd totals;
    if (ridge_ > 0) {
      ridge = Z;
      hide(rows, first, ridge);
      value += 0.5 * ridge_ * ridge.squaredNorm();
    }
    value +=
        use_logits(target_.block(k, first, count, result.loss != HeadLoss::softmax), result.loss, Z, weights, totals);
    if (weighted) {
      curvature += result.loss == HeadLoss::softmax ? weights.squaredNorm() : weights.sum();
      all_weights.middleCols(first, count) = weights.cast<float>();
      all_totals.segment(first, count) = totals;
    }
    if (ridge_ > 0) Z += ridge_ * ridge;
    pull_back.to_a.middleCols(rows.first_query + first, count) = times(c, Z);
    if (!full)
      add_times_transposed(a.middleCols(first, count), Z, pull_back.to_c.middleCols(rows.first_key, rows.key_count()));
  });
  const double size = static_cast<double>(rows.key_count() * rows.queries());
  if (!weighted) {
    if (ridge_ == 0 && !full) {
      result.key_grams.push_back(gram_of_rows(c));
      result.query_grams.push_back(gram_of_rows(a));
    }
    return {value, size, size};
  }
  result.weights.push_back(std::move(all_weights));
  result.totals.push_back(std::move(all_totals));
  return {value, curvature, size};
}

VectorXd HeadPasses::product(const HeadFactors& u, const HeadLinearisation& around, const VectorXd& p) {
  const InWork pass("pass", "queries", static_cast<double>(inputs_.A().cols()));
  if (u.is_full() && has_floats()) return product_of_full(u.with(p), around);
  const HeadRowsAt move = has_floats() ? rows_in_float(u.with(p)) : rows_at(u.with(p));
  PullBack pull_back{MatrixXd(around.at.a.rows(), around.at.a.cols()),
                     MatrixXd::Zero(around.at.c.rows(), around.at.c.cols())};
  for (std::size_t k = 0; k < inputs_.rows().size(); ++k) {
    const HeadRows& rows = inputs_.rows()[k];
    const auto a = around.at.a.middleCols(rows.first_query, rows.queries()),
               da = move.a.middleCols(rows.first_query, rows.queries());
    const auto c = keys_at(rows, around.at), dc = keys_at(rows, move);
    auto to_a = pull_back.to_a.middleCols(rows.first_query, rows.queries());
    if (!around.key_grams.empty()) {
      // J = I on what is centred: (da^T c + a^T dc) c^T and its like need r x r matrices only.
      to_a = times(around.key_grams[k], da) + times(times_transposed(c, dc), a);
      pull_back.to_c.middleCols(rows.first_key, rows.key_count()) =
          times(around.query_grams[k], dc) + times(times_transposed(a, da), c);
      continue;
    }
    for_each_block(rows, [&](Index first, Index count) {
      MatrixXd Z = transposed_times(c, da.middleCols(first, count));
      if (!u.is_full()) add_transposed_times(dc, a.middleCols(first, count), Z);
      multiply_block(k, around, first, Z);
      to_a.middleCols(first, count) = times(c, Z);
      if (!u.is_full())
        add_times_transposed(a.middleCols(first, count), Z,
                             pull_back.to_c.middleCols(rows.first_key, rows.key_count()));
    });
  }
  VectorXd result = pulled_back(u, pull_back, has_floats());
  inputs_.communicator().sum(span_of(result));
  ++products_;
  return result;
}

/// The same of a full X, on queries and keys that are whitened once, in float.
VectorXd HeadPasses::product_of_full(const HeadFactors& p, const HeadLinearisation& around) {
  if (!whitened_) {
    const auto& [A, K] = inputs_.floats();
    whitened_.emplace(HeadInputs::Floats{float_transposed_times(queries_.W.cast<float>(), A),
                                         float_transposed_times(keys_.W.cast<float>(), K)});
  }
  const auto& [A, K] = *whitened_;
  const Eigen::MatrixXf a = float_transposed_times(p.U().cast<float>(), A);
  Eigen::MatrixXf to_a(a.rows(), a.cols());
  for (std::size_t k = 0; k < inputs_.rows().size(); ++k) {
    const HeadRows& rows = inputs_.rows()[k];
    const Eigen::MatrixXf c = K.middleCols(rows.first_key, rows.key_count()), c_rows = c.transpose();
    for_each_block(rows, [&](Index first, Index count) {
      const auto columns = Eigen::seqN(rows.first_query + first, count);
      MatrixXd Z = float_transposed_times(c, a(Eigen::all, columns)).cast<double>();
      multiply_block(k, around, first, Z);
      to_a(Eigen::all, columns) = float_transposed_times(c_rows, Z.cast<float>());
    });
  }
  VectorXd result(p.size());
  Eigen::Map<MatrixXd>(result.data(), A.rows(), K.rows()) = float_times_transposed(A, to_a).cast<double>();
  inputs_.communicator().sum(span_of(result));
  ++products_;
  return result;
}

/// A block of changes of logits becomes that of the gradient in the logits.
void HeadPasses::multiply_block(std::size_t k, const HeadLinearisation& around, Index first, MatrixXd& Z) const {
  MatrixXd ridge;
  if (ridge_ > 0) {
    ridge = ridge_ * Z;
    hide(inputs_.rows()[k], first, ridge);
  }
  if (!around.weights.empty()) {
    const MatrixXd w = around.weights[k].middleCols(first, Z.cols()).cast<double>();
    const auto totals = around.totals[k].segment(first, Z.cols());
    multiply_curvature(w, totals, Z);
    if (around.loss == HeadLoss::softmax) multiply_curvature(w, totals, Z);
  }
  if (ridge_ > 0) Z += ridge;
}

CurvatureGrams curvature_grams(const HeadInputs& inputs, const HeadTarget& target, HeadLoss loss) {
  const Index d1 = inputs.A().rows(), d2 = inputs.K().rows();
  MatrixXd queries = MatrixXd::Zero(d1, d1), keys = MatrixXd::Zero(d2, d2), less = keys;
  for (std::size_t k = 0; k < inputs.rows().size(); ++k) {
    const HeadRows& rows = inputs.rows()[k];
    const auto A = inputs.queries_of(rows), K = inputs.keys_of(rows);
    VectorXd traces(rows.queries()), of_keys = VectorXd::Zero(rows.key_count());
    for_each_block(rows, [&](Index first, Index count) {
      const TargetBlock block = target.block(k, first, count, false);
      const MatrixXd& B = block.B;
      const VectorXd squares = B.colwise().squaredNorm().transpose();
      const MatrixXd means = times(K, B);  // of the keys, as each query sees them
      if (loss == HeadLoss::softmax) {
        traces.segment(first, count) =
            squares.array() - 2 * B.array().cube().colwise().sum().transpose() + squares.array().square();
        const MatrixXd square = B.cwiseAbs2(), cross = times_transposed(times(K, square), means);
        of_keys += square.rowwise().sum();
        less += cross + cross.transpose() - times_transposed(means * squares.asDiagonal(), means);
      } else {
        traces.segment(first, count) = block.totals - squares;
        of_keys += B.rowwise().sum();
        add_gram_of_rows(means, less);
      }
    });
    add_gram_of_rows(A * traces.cwiseMax(0).cwiseSqrt().asDiagonal(), queries);
    add_gram_of_rows(K * of_keys.cwiseMax(0).cwiseSqrt().asDiagonal(), keys);
  }
  keys -= less;
  return {summed_gram(inputs.communicator(), std::move(queries)), summed_gram(inputs.communicator(), std::move(keys))};
}

}  // namespace attnreg
