#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "heads/head_inputs.hpp"
#include "heads/head_target.hpp"

namespace attnreg {

/// What the logits Z = A1 X A2^T are fitted to.
enum class HeadLoss {
  log_odds,           ///< 1/2 sum_j |log b_j - z_j|^2, centred over the keys, with the weights of `HeadTarget`
  weighted_log_odds,  ///< the same with these weights times b
  cross_entropy,      ///< sum_j s_j ln <exp z_j, 1> - <b_j, z_j>, s_j = <b_j, 1>, less its infimum: KL(b | f)
  softmax,            ///< 1/2 sum_j |softmax(z_j) - b_j|^2
};

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

/// The loss at some factors, with its gradient and the Gauss-Newton model around them. Replicated but for the rows.
struct HeadLinearisation {
  HeadLoss loss = HeadLoss::log_odds;
  double value = 0;
  VectorXd gradient;
  double mean_curvature = 0;  ///< of a logit, per sequence
  HeadRowsAt at;
  /// w of J_j = diag w_j - w_j w_j^T / <w_j, 1>; empty: all are 1, and c is centred. In float, as products are.
  std::vector<Eigen::MatrixXf> weights;
  std::vector<VectorXd> totals;                  ///< <w_j, 1>
  std::vector<MatrixXd> key_grams, query_grams;  ///< c c^T and a a^T of a sequence, where all weights are 1
};

/// The losses at some factors, without the ridge. Replicated.
struct HeadValues {
  double log_odds = 0, cross_entropy = 0, softmax = 0;
  double error = 0;  ///< |F - B| / |B|; 0 / 0 = 0

  double of(HeadLoss loss) const {
    return loss == HeadLoss::softmax ? softmax : loss == HeadLoss::cross_entropy ? cross_entropy : log_odds;
  }
};

/// Passes over the rows of one head in a metric. Members are collective and end with one all-reduce unless they are
/// called local. Flops on all ranks together, N queries of n keys each: 4 N d r for the factors' rows, 4 N d r for a
/// gradient or product, and 2 N n r for the logits, which products of log-odds with weights 1 do without.
class HeadPasses {
 public:
  /// ridge: W^2 of 1/2 W^2 |Z|^2, Z centred over the keys. The arguments must outlive this.
  HeadPasses(const HeadInputs& inputs, const HeadTarget& target, const Whitening& queries, const Whitening& keys,
             double ridge = 0)
      : inputs_(inputs), target_(target), queries_(queries), keys_(keys), ridge_(ridge) {}

  const HeadInputs& inputs() const { return inputs_; }
  const HeadTarget& target() const { return target_; }
  HeadFactors factors(Index rank) const { return {queries_.dimension(), keys_.dimension(), rank}; }

  HeadMatrices matrices(const HeadFactors& u) const;     ///< local: P and Q, or X
  HeadFactors coordinates(const HeadMatrices& X) const;  ///< from rank 0, broadcast
  HeadRowsAt rows_at(const HeadFactors& u) const;        ///< local
  HeadValues values(const HeadFactors& u);
  HeadLinearisation linearise(const HeadFactors& u, HeadLoss loss);
  /// The Gauss-Newton matrix times p, to a relative error of some 1e-6: products with queries and keys are in float.
  VectorXd product(const HeadFactors& u, const HeadLinearisation& around, const VectorXd& p);

  int reads() const { return reads_; }  ///< of B
  int products() const { return products_; }

 private:
  /// A derivative in a and c of `HeadRowsAt`.
  struct PullBack {
    MatrixXd to_a, to_c;
  };
  Eigen::Ref<const MatrixXd> keys_at(const HeadRows& rows, const HeadRowsAt& at) const;
  MatrixXd logits(const HeadRows& rows, const HeadRowsAt& at, Index first, Index count) const;
  Eigen::Vector3d linearise_rows(std::size_t k, HeadLinearisation& result, PullBack& pull_back) const;
  VectorXd product_of_full(const HeadFactors& p, const HeadLinearisation& around);
  void multiply_block(std::size_t k, const HeadLinearisation& around, Index first, MatrixXd& Z) const;
  /// This rank's part of the derivative in the factors.
  VectorXd pulled_back(const HeadFactors& u, const PullBack& pull_back, bool in_float) const;
  HeadRowsAt rows_in_float(const HeadFactors& u) const;
  bool has_floats() const { return inputs_.floats().A.rows() > 0; }

  const HeadInputs& inputs_;
  const HeadTarget& target_;
  const Whitening &queries_, &keys_;
  double ridge_;
  std::optional<HeadInputs::Floats> whitened_;  ///< W^T A and W^T K, of products of a full X
  int reads_ = 0, products_ = 0;
};

/// Collective, one all-reduce of d1^2 + d2^2 numbers. The Gram matrices of queries and keys weighted with the curvature
/// of a loss, cross_entropy or softmax, at F = B: sum_j tr(J_j) a_j a_j^T and A2^T sum_j J_j A2, with J_j squared for
/// softmax. They are the factors of a Kronecker model of the curvature (Martens and Grosse, arXiv 1503.05671).
struct CurvatureGrams {
  MatrixXd queries, keys;
};
CurvatureGrams curvature_grams(const HeadInputs& inputs, const HeadTarget& target, HeadLoss loss);

}  // namespace attnreg
