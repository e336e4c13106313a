#pragma once

#include "heads/head_inputs.hpp"

namespace attnreg {

/// X in whitened coordinates, X = W1 U V^T W2^T, as one vector of unknowns: U (k1 x r) and V (k2 x r), column-major,
/// one behind the other; or without a rank X = W1 U W2^T with U k1 x k2. Replicated.
class HeadFactors {
 public:
  HeadFactors() = default;
  HeadFactors(Index k1, Index k2, Index rank) : k1_(k1), k2_(k2), rank_(rank), numbers_(VectorXd::Zero(size())) {}

  bool is_full() const { return rank_ == 0; }
  Index rank() const { return rank_; }
  Index size() const { return is_full() ? k1_ * k2_ : (k1_ + k2_) * rank_; }
  VectorXd& numbers() { return numbers_; }
  const VectorXd& numbers() const { return numbers_; }
  Eigen::Map<MatrixXd> U() { return {numbers_.data(), k1_, columns()}; }
  Eigen::Map<MatrixXd> V() { return {numbers_.data() + k1_ * rank_, k2_, rank_}; }
  Eigen::Map<const MatrixXd> U() const { return {numbers_.data(), k1_, columns()}; }
  Eigen::Map<const MatrixXd> V() const { return {numbers_.data() + k1_ * rank_, k2_, rank_}; }
  HeadFactors with(VectorXd numbers) const { return {k1_, k2_, rank_, std::move(numbers)}; }

 private:
  HeadFactors(Index k1, Index k2, Index rank, VectorXd numbers)
      : k1_(k1), k2_(k2), rank_(rank), numbers_(std::move(numbers)) {}
  Index columns() const { return is_full() ? k2_ : rank_; }

  Index k1_ = 0, k2_ = 0, rank_ = 0;
  VectorXd numbers_;
};

/// X = P Q^T with P d1 x r, Q d2 x r; without a rank P is X, and Q is empty.
struct HeadMatrices {
  MatrixXd P, Q;
};

/// Queries and keys of this rank as the logits need them: Z = c^T a, for each sequence. Local.
struct HeadRowsAt {
  MatrixXd a;  ///< P^T A1^T: r x queries; without a rank X^T A1^T: d2 x queries
  MatrixXd c;  ///< Q^T K: r x keys; without a rank empty, as it is K itself
};

/// Z, keys x queries, becomes softmax(Z), query by query, over the keys that it sees; returns the logarithms of the
/// sums of exponentials. visible: of `HeadRows`. Local.
VectorXd to_softmax(Eigen::Ref<MatrixXd> Z, const KeyFlags& visible);

/// How logits depend on factors in a metric: what all passes over heads and layers share. Local but for `coordinates`.
class FactorRows {
 public:
  /// The arguments must outlive this.
  FactorRows(const HeadInputs& inputs, const Whitening& queries, const Whitening& keys)
      : inputs_(inputs), queries_(queries), keys_(keys) {}

  const HeadInputs& inputs() const { return inputs_; }
  HeadFactors factors(Index rank) const { return {queries_.dimension(), keys_.dimension(), rank}; }
  HeadMatrices matrices(const HeadFactors& u) const;     ///< P and Q, or X
  HeadFactors coordinates(const HeadMatrices& X) const;  ///< from rank 0, broadcast
  HeadRowsAt rows_at(const HeadFactors& u) const;

 protected:
  /// A derivative in a and c of `HeadRowsAt`.
  struct PullBack {
    MatrixXd to_a, to_c;
  };
  Eigen::Ref<const MatrixXd> keys_at(const HeadRows& rows, const HeadRowsAt& at) const;
  MatrixXd logits(const HeadRows& rows, const HeadRowsAt& at, Index first, Index count) const;
  /// This rank's part of the derivative in the factors.
  VectorXd pulled_back(const HeadFactors& u, const PullBack& pull_back, bool in_float) const;
  HeadRowsAt rows_in_float(const HeadFactors& u) const;
  bool has_floats() const { return inputs_.floats().A.rows() > 0; }

  const HeadInputs& inputs_;
  const Whitening &queries_, &keys_;
};

}  // namespace attnreg
