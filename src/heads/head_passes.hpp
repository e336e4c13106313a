#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "heads/factor_rows.hpp"
#include "heads/head_target.hpp"

namespace attnreg {

/// What the logits Z = A1 X A2^T are fitted to.
enum class HeadLoss {
  log_odds,           ///< 1/2 sum_j |log b_j - z_j|^2, centred over the keys, with the weights of `HeadTarget`
  weighted_log_odds,  ///< the same with these weights times b
  cross_entropy,      ///< sum_j s_j ln <exp z_j, 1> - <b_j, z_j>, s_j = <b_j, 1>, less its infimum: KL(b | f)
  softmax,            ///< 1/2 sum_j |softmax(z_j) - b_j|^2
};

/// The loss at some factors, with its gradient and the Gauss-Newton model around them. Replicated but for the rows.
struct HeadLinearisation {
  HeadLoss loss = HeadLoss::log_odds;
  double value = 0;
  VectorXd gradient;
  double mean_curvature = 0;  ///< of a logit, per sequence
  double ridge = 0;           ///< on the factors themselves: none
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
class HeadPasses : public FactorRows {
 public:
  /// ridge: W^2 of 1/2 W^2 |Z|^2, Z centred over the keys. The arguments must outlive this.
  HeadPasses(const HeadInputs& inputs, const HeadTarget& target, const Whitening& queries, const Whitening& keys,
             double ridge = 0)
      : FactorRows(inputs, queries, keys), target_(target), ridge_(ridge) {}

  const HeadTarget& target() const { return target_; }

  HeadValues values(const HeadFactors& u);
  HeadLinearisation linearise(const HeadFactors& u, HeadLoss loss);
  /// The Gauss-Newton matrix times p, to a relative error of some 1e-6: products with queries and keys are in float.
  VectorXd product(const HeadFactors& u, const HeadLinearisation& around, const VectorXd& p);

  int reads() const { return reads_; }  ///< of B
  int products() const { return products_; }

 private:
  Eigen::Vector3d linearise_rows(std::size_t k, HeadLinearisation& result, PullBack& pull_back) const;
  VectorXd product_of_full(const HeadFactors& p, const HeadLinearisation& around);
  void multiply_block(std::size_t k, const HeadLinearisation& around, Index first, MatrixXd& Z) const;

  const HeadTarget& target_;
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
