#pragma once

#include <optional>
#include <vector>

#include "algebra/blas_products.hpp"
#include "algebra/dense_factors.hpp"
#include "heads/factor_rows.hpp"

namespace attnreg {

/// The values of the keys in `inputs`, each counted once: their Gram matrix and coordinates. Collective, one all-reduce
/// of d3^2 numbers. sequences: those of the inputs. `InvalidArgument` on all ranks if the values are all 0.
Whitening value_metric(const HeadInputs& inputs, const std::vector<AttentionSequence>& sequences);

/// Weights of 1/2 factors (|U|^2 + |V|^2) + 1/2 values |Y|^2, all in whitened coordinates. The first is the nuclear
/// norm of the logits' X where there is a rank; |Y| is |A3 Y| over all keys.
struct LayerRidges {
  double factors = 0, values = 0;
};

/// L at some factors, with the Gauss-Newton model around them. Replicated but for what has a column for each of this
/// rank's queries or keys.
struct LayerPoint {
  double value = 0;  ///< 1/2 |F A3 Y - B|^2 and the ridges
  VectorXd gradient;
  double mean_curvature = 0;  ///< of a logit, per sequence
  double ridge = 0;           ///< on the factors
  double misfit = 0;          ///< |F A3 Y - B|^2
  MatrixXd Y;                 ///< the best one, or that which is held: k3 x dv
  MatrixXd L;                 ///< of F A3's normal equations, k3 x k3; empty where Y is held
  HeadRowsAt at;
  std::vector<MatrixXd> F;  ///< keys x queries, one for each sequence
  MatrixXd seen;            ///< (F A3)^T: k3 x queries
  MatrixXd values;          ///< (A3 Y)^T: dv x keys
};

/// Passes over the rows of one layer, B = F A3 Y, F = softmax(A1 X A2^T), in metrics of A1, A2 and A3. Y is eliminated
/// (variable projection; products leave the derivative of the projection at Y out, as Kaufman does, BIT 15, 1975), or
/// held. N queries of n keys each, on all ranks together: 4 N d r flops for the factors' rows and as many for a
/// gradient, 2 N n (r + d3 + 3 dv) a linearisation, N d3^2 for Y's normal equations; a product takes 4 N n (r + dv) + 4
/// N d3 dv. Members are collective, with two all-reduces each, of d3^2 + d3 dv and (d1 + d2) r numbers.
class LayerPasses : public FactorRows {
 public:
  /// The arguments must outlive this. Local.
  LayerPasses(const HeadInputs& inputs, const std::vector<AttentionSequence>& sequences, const Whitening& queries,
              const Whitening& keys, const Whitening& values);

  const Communicator& communicator() const { return inputs_.communicator(); }  ///< local
  Index value_dimension() const { return values_.rows(); }                     ///< k3. Local.
  Index columns() const { return target_.rows(); }                             ///< dv. Local.
  double target_square() const { return target_square_; }                      ///< |B|^2. Local.
  double keys_global() const { return keys_global_; }                          ///< Local.

  void set_ridges(const LayerRidges& ridges) { ridges_ = ridges; }  ///< local
  void hold(std::optional<MatrixXd> Y) { held_ = std::move(Y); }    ///< local; k3 x dv, or none
  LayerPoint linearise(const HeadFactors& u);
  VectorXd product(const HeadFactors& u, const LayerPoint& around, const VectorXd& p);
  /// |F A3 Y - B| / |B| with this Y; 0 / 0 = 0. Not counted as a pass. One all-reduce.
  double error(const HeadFactors& u, const MatrixXd& Y) const;

  int reads() const { return reads_; }  ///< of B
  int products() const { return products_; }

 private:
  MatrixXd attention(const HeadRows& rows, const HeadRowsAt& at, Index first, Index count) const;
  void find_best_Y(LayerPoint& point) const;
  double curvature(std::size_t k, const LayerPoint& point) const;
  void add_outputs(std::size_t k, const LayerPoint& point, MatrixPart outputs, PullBack& pull_back) const;

  MatrixXd values_, target_;  ///< A3^T in coordinates: k3 x keys; B^T: dv x queries
  double target_square_ = 0, keys_global_ = 0;
  LayerRidges ridges_;
  std::optional<MatrixXd> held_;
  int reads_ = 0, products_ = 0;
};

}  // namespace attnreg
