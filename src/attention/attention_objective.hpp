#pragma once

#include "attention/attention_model.hpp"
#include "attention/attention_parameters.hpp"
#include "attention/attention_passes.hpp"
#include "newton/objective.hpp"

namespace attnreg {

/// What an `AttentionObjective` keeps of a point. Replicated.
struct AttentionState final : ObjectiveState {
  AttentionUnknowns at;
  AttentionPasses::Evaluation evaluation;
  Eigen::MatrixXd normal;  ///< factor of K^T K, with eliminated Y
};

/// The sum of L over sequences as a function of the unknowns of X, followed by vec Y (joint) or with Y eliminated
/// (variable projection, Golub and Pereyra 1973): L(X) = min_Y L(X, Y), with its exact Hessian H_XX - H_XY H_YY^-1
/// H_YX. "Reads of A" are passes over the sequences. See `Objective` for what is collective.
class AttentionObjective final : public Objective {
 public:
  /// Collective, one pass. `model`: decided. Everything by reference must outlive the objective.
  AttentionObjective(AttentionPasses& passes, const AttentionParameters& parameters, AttentionMethod method,
                     AttentionModel model);

  Eigen::Index dimension() const override { return parameters_.size() + (joint() ? Y_size() : 0); }
  /// The unknowns of X, and Y where it is one of them, as one vector. Local.
  Eigen::VectorXd unknowns(const Eigen::VectorXd& u, const RowMajorMatrix& Y) const;
  RowMajorMatrix Y_part(const Eigen::VectorXd& v) const;  ///< Of all unknowns. Local.

  Point evaluate(const Eigen::VectorXd& x) override;
  /// In columns of A1, A2 and A3 of equal size.
  double norm(const Eigen::VectorXd& g) const override { return g.cwiseQuotient(scale_).norm(); }
  double gradient_floor(const Point& point, double enough) override;
  /// Not there for `newton`, only by products, for `newton_cg`: `InternalError`.
  Hessian hessian(const Point& point) override;
  /// One pass; two with eliminated Y.
  Eigen::VectorXd hessian_product(const Point& point, Direction& p) override;
  bool refresh_preconditioner(const Point& point, bool tired) override;
  double preconditioner_price() const override;

  /// One pass for all steps, and two for each with eliminated Y.
  std::vector<Trial> try_steps(const Point& point, const Direction& direction, std::span<const double> steps) override;

  bool is_stopped() const override { return passes_.communicator().is_stopped(); }
  bool takes_checkpoint() override { return passes_.communicator().takes_checkpoint(); }
  double reads_of_a() const override { return passes_.count(); }
  std::int64_t collectives() const override { return passes_.communicator().collectives() - collectives_before_; }
  static const AttentionState& state_of(const Point& point) {  ///< Local.
    return static_cast<const AttentionState&>(*point.state);
  }

 private:
  bool joint() const { return passes_.with_values() && method_ == AttentionMethod::joint; }
  bool eliminated() const { return passes_.with_values() && method_ == AttentionMethod::varpro; }
  Eigen::Index Y_size() const { return passes_.shape().d3 * passes_.shape().dv; }
  /// argmin_Y; its normal matrix K^T K is factored in `normal`.
  struct BestY {
    RowMajorMatrix Y;
    Eigen::MatrixXd L;  ///< of K^T K
  };
  BestY best_Y(const RowMajorMatrix& X);
  Eigen::VectorXd X_part(const Eigen::VectorXd& v) const { return v.head(parameters_.size()); }

  AttentionPasses& passes_;
  const AttentionParameters& parameters_;
  AttentionMethod method_;
  AttentionModel model_;
  Eigen::VectorXd scale_;  ///< of the unknowns
  std::int64_t collectives_before_;
};

}  // namespace attnreg
