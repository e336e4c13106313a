#include "heads/factor_rows.hpp"

#include <cmath>

#include "algebra/blas_products.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

VectorXd to_softmax(Eigen::Ref<MatrixXd> Z, const KeyFlags& visible) {
  constexpr double kNoLogit = -1e30;
  VectorXd logarithms(Z.cols());
  for (Index j = 0; j < Z.cols(); ++j) {
    auto z = Z.col(j);
    if (visible.size() > 0) z = (visible.col(j).array() != 0).select(z, kNoLogit);
    const double largest = z.maxCoeff();
    z.array() -= largest;
    kernels::exp(span_of(z), span_of(z));
    const double sum = z.sum();
    z /= sum;
    logarithms[j] = largest + std::log(sum);
  }
  return logarithms;
}

HeadMatrices FactorRows::matrices(const HeadFactors& u) const {
  if (u.is_full()) return {times_transposed(times(queries_.W, u.U()), keys_.W), {}};
  return {times(queries_.W, u.U()), times(keys_.W, u.V())};
}

HeadFactors FactorRows::coordinates(const HeadMatrices& X) const {
  const bool full = X.Q.size() == 0;
  HeadFactors u = factors(full ? 0 : X.P.cols());
  if (inputs_.communicator().is_root()) {
    const MatrixXd left = queries_.coordinates(X.P);
    if (full) {
      u.U() = keys_.coordinates(left.transpose()).transpose();
    } else {
      u.U() = left;
      u.V() = keys_.coordinates(X.Q);
    }
  }
  inputs_.communicator().broadcast(span_of(u.numbers()));
  return u;
}

HeadRowsAt FactorRows::rows_at(const HeadFactors& u) const {
  const HeadMatrices X = matrices(u);
  HeadRowsAt at{transposed_times(X.P, inputs_.A()), {}};
  if (!u.is_full()) at.c = transposed_times(X.Q, inputs_.K());
  return at;
}

Eigen::Ref<const MatrixXd> FactorRows::keys_at(const HeadRows& rows, const HeadRowsAt& at) const {
  if (at.c.size() == 0) return inputs_.keys_of(rows);
  return at.c.middleCols(rows.first_key, rows.key_count());
}

MatrixXd FactorRows::logits(const HeadRows& rows, const HeadRowsAt& at, Index first, Index count) const {
  return transposed_times(keys_at(rows, at), at.a.middleCols(rows.first_query + first, count));
}

VectorXd FactorRows::pulled_back(const HeadFactors& u, const PullBack& pull_back, bool in_float) const {
  const auto product = [&](const MatrixXd& inputs, auto floats, const MatrixXd& rows) -> MatrixXd {
    if (!in_float) return times_transposed(inputs, rows);
    const Eigen::MatrixXf result = float_times_transposed(inputs_.floats().*floats, rows.cast<float>());
    return result.cast<double>();
  };
  HeadFactors result = u;
  const MatrixXd left = transposed_times(queries_.W, product(inputs_.A(), &HeadInputs::Floats::A, pull_back.to_a));
  if (u.is_full()) {
    result.U() = times(left, keys_.W);
  } else {
    result.U() = left;
    result.V() = transposed_times(keys_.W, product(inputs_.K(), &HeadInputs::Floats::K, pull_back.to_c));
  }
  return std::move(result.numbers());
}

HeadRowsAt FactorRows::rows_in_float(const HeadFactors& u) const {
  const HeadMatrices X = matrices(u);
  const auto& [A, K] = inputs_.floats();
  HeadRowsAt at{float_transposed_times(X.P.cast<float>(), A).cast<double>(), {}};
  if (!u.is_full()) at.c = float_transposed_times(X.Q.cast<float>(), K).cast<double>();
  return at;
}

}  // namespace attnreg
