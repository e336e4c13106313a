#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "losses/loss.hpp"
#include "newton/objective.hpp"
#include "objective/sampled_model.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

/// L(x) = phi(A x) + 1/2 |diag(w) A x|^2 for any loss phi, over distributed rows. See `Objective` for what is
/// collective and what it costs.
///
/// It keeps z = A x, and y = A s for the direction s, so that nothing along a line reads A. Row vectors (z, y, b, w^2,
/// the curvature delta) hold this rank's rows; x, s, the gradient and the Hessian's centre are replicated. Other
/// outputs of the loss are made where they are used, tile by tile.
class RegressionObjective final : public Objective {
 public:
  /// Local; collective with ScaLAPACK, whose process grid it makes. b, w: this rank's rows. A and b must outlive the
  /// objective. solver: `kind` is decided.
  RegressionObjective(const RowMatrix& A, const Eigen::VectorXd& b, const Eigen::VectorXd& w,
                      std::unique_ptr<Loss> loss, const SamplingOptions& sampling = {},
                      const LinearSolverOptions& solver = {.kind = LinearSolver::rank0});

  Eigen::Index dimension() const override { return A_.columns(); }
  void move_to(const Eigen::VectorXd& x) override;

  const Eigen::VectorXd& x() const override { return x_; }
  double value() const override { return value_; }  ///< +inf where it overflows
  /// Collective; ln L, also where L overflows: then two all-reduces.
  double log_value() const;
  const Eigen::VectorXd& gradient() const override { return gradient_; }
  double gradient_floor() override;
  /// On rank 0, or over the grid: then in panels, which read (d / 256 + 1) / 2 times A, or twice that.
  Hessian hessian() override;
  Hessian hessian_on_root();  ///< Collective. On rank 0 whatever the linear solver: for d that allows it.
  /// Collective. The Gauss-Newton matrix of the data term and A^T W^2 A, on rank 0. One read, n d^2 flops.
  Eigen::MatrixXd gauss_newton_on_root();
  Eigen::VectorXd hessian_product(const Eigen::VectorXd& p) override;
  bool refresh_preconditioner(bool tired) override;
  double preconditioner_price() const override { return model_.price(); }

  void set_direction(const Eigen::VectorXd& s) override;
  void set_likely_direction(const Eigen::VectorXd& s) override;
  void clear_direction() override;
  void extend_direction(double alpha) override;
  const Eigen::VectorXd& direction() const override { return s_; }
  std::vector<double> change_along(std::span<const double> steps) override;
  void step(double t) override;

  double reads_of_a() const override { return A_.reads() - reads_before_; }
  std::int64_t collectives() const override { return A_.communicator().collectives() - collectives_before_; }
  double seconds() const override { return seconds_; }

  /// Collective. The largest |a_i^T s| of the direction s. One all-reduce of 8 bytes.
  double largest_move() const;

  bool uses_all_rows() const { return model_.uses_all_rows(); }  ///< Local.
  /// Local. Of all preconditioners: see `SampledModel::ridge`.
  double largest_ridge() const { return largest_ridge_; }

  /// Local. Starts with the leverage scores of another objective over the same rows; see `SampledModel::adopt_scores`.
  void adopt_scores(const RegressionObjective& other, bool rescale) { model_.adopt_scores(other.model_, rescale); }

  double longest_step() const override;

  /// What reproduces b at the current point, this rank's rows: `Loss::fit`. Local.
  Eigen::VectorXd fitted() const;

  // What the certificate looks at. Local; row vectors are this rank's rows.
  bool is_fresh() const { return steps_since_refresh_ == 0; }  ///< the point was evaluated with A x made anew
  const Loss& loss() const { return *loss_; }
  const Eigen::VectorXd& target() const { return b_; }
  const Eigen::VectorXd& weights_squared() const { return w2_; }
  const Eigen::VectorXd& curvature() const { return delta_; }              ///< delta of `LossDerivatives`
  const Eigen::VectorXd& positive_curvature() const { return positive_; }  ///< of losses that are not centred
  /// m and k of `HessianForm`, likewise.
  const Eigen::VectorXd& coupling() const { return loss_->form() == HessianForm::coupled ? coupling_ : delta_; }
  const Eigen::VectorXd& self() const { return loss_->form() == HessianForm::coupled ? self_ : delta_; }
  const Eigen::VectorXd& logits() const { return z_; }       ///< A x, but for a shift that the loss does not see
  const Eigen::VectorXd& centre() const { return centre_; }  ///< A^T f, replicated
  /// A^T W^2 A on rank 0, once `hessian_on_root` was called.
  const Eigen::MatrixXd& ridge_gram() const { return ridge_gram_; }

 private:
  LossRows rows_of(const Eigen::VectorXd& z, Eigen::Index first, Eigen::Index rows) const;
  double shift(const Eigen::VectorXd& z) const;

  struct Value {
    LossPoint point;
    double total = 0;  ///< with the regulariser
  };
  using ValueSums = std::array<double, 9>;  ///< those of the loss and the regulariser
  void add_value(const Eigen::VectorXd& z, Eigen::Index first, Eigen::Index rows, double reference,
                 std::span<double, 9> sums) const;
  Value value_of(std::span<const double, 9> sums, double reference) const;
  Value value_at(const Eigen::VectorXd& z, double reference) const;
  Value value_from_scratch(const Eigen::VectorXd& z) const;

  /// What one read finds out about a point.
  struct Evaluation {
    Value value;
    Eigen::VectorXd gradient, centre, coupled_centre;
    double floor_bound = 0, seconds = 0;
    bool accurate = false;  ///< the reference was near enough
  };
  enum class Logits { at, step };  ///< A v are the logits, or have to be added to z
  Evaluation evaluate_in_one_read(const Eigen::VectorXd& v, Logits meaning, Eigen::VectorXd& product, double reference);
  void accept(Evaluation evaluation);

  void differentiate();
  void fill_outputs(const Eigen::VectorXd& z, const LossPoint& point, Eigen::Index first, Eigen::Index rows,
                    const LossDerivatives& out) const;
  LossDerivatives kept_outputs(Eigen::Index first, Eigen::Index rows, std::span<double> q, std::span<double> f);
  WeightedRows positive_rows() const;
  void add_coupling(const Eigen::VectorXd& p, Eigen::VectorXd& product) const;
  SignedGram local_grams() const;
  const Eigen::MatrixXd& make_ridge_gram();
  double rounding_of_row(Eigen::Index row, double z, double q, double delta) const;
  Eigen::VectorXd logits_of(const Eigen::VectorXd& z, Eigen::Index first, Eigen::Index rows) const {
    return z.segment(first, rows).array() + shift_;
  }

  const RowMatrix& A_;
  const Eigen::VectorXd& b_;
  Eigen::VectorXd w2_;
  const Eigen::VectorXd& row_norms_;
  std::unique_ptr<Loss> loss_;
  double reads_before_;
  std::int64_t collectives_before_;
  double start_seconds_, seconds_ = 0;

  Eigen::VectorXd x_, z_;  // the point and its logits: z_ = A x - shift_
  double shift_ = 0;       // about <f, A x>: phi does not see it, and where f_i is large z_i has a small rounding
  double largest_x_ = 0;   // max |x_j|
  LossPoint point_;
  double value_ = 0;
  Eigen::VectorXd gradient_, centre_;  // d; centre = A^T f
  Eigen::VectorXd delta_;              // rows
  Eigen::VectorXd positive_;           // rows, of losses that are not centred
  Eigen::VectorXd coupling_, self_;    // rows, of coupled losses
  Eigen::VectorXd coupled_centre_;     // d; A^T m of coupled losses
  double floor_bound_ = 0;             // sum r_i |a_i| >= | |A|^T r |, r = rounding_of_row
  int steps_since_refresh_ = 0;

  Eigen::VectorXd s_, y_;                // the direction and A s
  Eigen::VectorXd p_, product_y_;        // of the last Hessian product
  std::map<double, double> references_;  // the loss's reference at x + t s, by t
  std::optional<Evaluation> ahead_;      // of x + s
  Eigen::MatrixXd ridge_gram_;           // A^T W^2 A on rank 0
  bool ridge_known_ = false;
  Hessian distributed_hessian() const;

  std::shared_ptr<const ProcessGrid> grid_;  // of ScaLAPACK; none: rank 0 has the d x d matrices
  SampledModel model_;
  double largest_ridge_ = 0;
};

}  // namespace attnreg
