#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "losses/loss.hpp"
#include "losses/loss_bounds.hpp"
#include "newton/objective.hpp"
#include "objective/audit.hpp"
#include "objective/column_terms.hpp"
#include "objective/correction.hpp"
#include "objective/sampled_model.hpp"
#include "ranks/root_clock.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"
#include "rows/scaled_columns.hpp"

namespace attnreg {

/// Rows of a tile, or of a block of a sum, at most.
constexpr Eigen::Index kMostBlockRows = 1024;

/// Curvatures of this rank's rows, as of `LossDerivatives`.
struct RowCurvatures {
  Eigen::VectorXd delta;
  Eigen::VectorXd positive;        ///< of losses that are not centred
  Eigen::VectorXd coupling, self;  ///< of coupled losses

  // m and k of `HessianForm`.
  const Eigen::VectorXd& m() const { return coupling.size() > 0 ? coupling : delta; }
  const Eigen::VectorXd& k() const { return self.size() > 0 ? self : delta; }
};

/// What a `RegressionObjective` keeps of a point. Vectors of rows hold this rank's rows, the rest is replicated.
struct RegressionState final : ObjectiveState {
  LossPoint loss;
  Eigen::VectorXd centre;          ///< d; A^T f
  Eigen::VectorXd coupled_centre;  ///< d; A^T m of coupled losses
  double floor_bound = 0;          ///< sum r_i |a_i|_s >= | |A|^T r |_s, r = rounding_of_row
  double largest_x = 0;            ///< max |scale_j x_j|
  double shift = 0;          ///< about <f, A x>: phi does not see it, and where f_i is large z_i has a small rounding
  double offset = 0;         ///< `ColumnTerms::offset`
  int updates = 0;           ///< of z by steps, since A x was made
  Eigen::VectorXd z;         ///< rows; A x - shift, without the offsets of the logits
  ProductRounding rounding;  ///< of z, for an audit; else not known
  std::optional<RowCurvatures> curvatures;  ///< none: not asked for yet, see `RegressionObjective::curvatures`

  bool is_fresh() const { return updates == 0; }
  double level() const { return shift + offset; }  ///< what the regulariser adds to z
};

/// L(x) = phi(A x) + 1/2 |diag(w) A x|^2 for any loss phi, over distributed rows. See `Objective` for what is
/// collective and what it costs.
///
/// It lives in the columns of `ScaledColumns`: its A, x, gradients and Hessians are those of the scaled and centred
/// columns; x in the caller's is factor o x, g is g / factor. Where columns are centred, z and A s lack the offset,
/// which phi does not see, and which the regulariser gets from `ColumnTerms`. These have the ridge of the columns, too.
///
/// With `ScaledColumns::logit_offsets` o it is phi(A x + o): o is added block by block where the loss sees the rows,
/// and nowhere else. Masked rows have b = 0, w = 0 and f = 0, whatever the caller's b and w are.
///
/// A point keeps z = A x and a direction A s, so that nothing along a line reads A. Outputs of the loss that
/// `RegressionState` does not have are made where they are used, tile by tile.
class RegressionObjective final : public Objective {
 public:
  /// Collective where columns are centred, and with ScaLAPACK, whose process grid it makes; else local. b, w: this
  /// rank's rows. b must outlive the objective, which has a copy of b and w where rows are masked. solver: `kind` is
  /// decided.
  RegressionObjective(std::shared_ptr<const ScaledColumns> columns, const Eigen::VectorXd& b, const RidgeWeights& w,
                      std::unique_ptr<Loss> loss, const SamplingOptions& sampling = {},
                      const LinearSolverOptions& solver = {.kind = LinearSolver::rank0});
  /// In the columns as they are.
  RegressionObjective(const RowMatrix& A, const Eigen::VectorXd& b, const RidgeWeights& w, std::unique_ptr<Loss> loss,
                      const SamplingOptions& sampling = {},
                      const LinearSolverOptions& solver = {.kind = LinearSolver::rank0})
      : RegressionObjective(std::make_shared<const ScaledColumns>(A), b, w, std::move(loss), sampling, solver) {}

  Eigen::Index dimension() const override { return A_.columns(); }
  Point evaluate(const Eigen::VectorXd& x) override;
  Point refreshed(Point point) override;
  double norm(const Eigen::VectorXd& g) const override { return g.cwiseQuotient(columns_->scale()).norm(); }
  double callers_norm(const Eigen::VectorXd& g) const override {
    return g.cwiseQuotient(columns_->factor()).stableNorm();
  }
  double gradient_floor(const Point& point, double enough) override;
  /// On rank 0, or over the grid: then in panels, which read (d / 256 + 1) / 2 times A, or twice that.
  Hessian hessian(const Point& point) override;
  Eigen::VectorXd hessian_product(const Point& point, Direction& p) override;
  std::optional<Eigen::VectorXd> suspected_descent(const Point& point) override;
  double curvature_rounding(const Point& point, const Direction& along) const override;
  bool refresh_preconditioner(const Point& point, bool tired) override;
  double preconditioner_price() const override { return model_.price(); }
  void forget_models() override {
    Objective::forget_models();
    model_.forget();
    curvature_of_model_ = 0;
  }

  Direction direction(const Eigen::VectorXd& s) override;
  Direction likely_direction(const Point& point, const Eigen::VectorXd& s) override;
  double longest_step(const Direction& direction) const override;
  std::vector<Trial> try_steps(const Point& point, const Direction& direction, std::span<const double> steps) override;
  Point step(Point point, Direction direction, const Trial& trial) override;

  bool is_stopped() const override { return A_.communicator().is_stopped(); }
  bool takes_checkpoint() override { return A_.communicator().takes_checkpoint(); }
  double reads_of_a() const override { return A_.reads() - reads_before_; }
  std::int64_t collectives() const override { return A_.communicator().collectives() - collectives_before_; }

  // Of an objective on sampled rows, which stands for one on all rows.
  /// Local. Before the first point: the weights of `LossRows`, this rank's rows, for a loss of `make_sampled_loss`.
  void weigh_rows(Eigen::VectorXd terms, Eigen::VectorXd shares) {
    terms_ = std::move(terms), shares_ = std::move(shares), is_sample_ = true;
  }
  /// Local. Likewise: A^T W^2 A of all rows, with their column terms, in place of what the sampled rows say of it. w is
  /// 0. G: d x d, replicated.
  void regularise_by(std::shared_ptr<const Eigen::MatrixXd> G) { column_terms_ = ColumnTerms(std::move(G)); }
  /// Local. Adds this to L from now on, in place of what was added before; points made before are the caller's
  /// business.
  void correct(Correction correction) { correction_ = std::move(correction); }
  const Correction& correction() const { return correction_; }  ///< Local.
  double models_made() const { return model_.models_made(); }   ///< Local, replicated. Preconditioners so far.
  /// Local. Takes these t_i instead of a sketch: row i has the leverage score s_i t_i for weights s.
  void adopt_scores(Eigen::VectorXd row_scale) { model_.adopt_scores(std::move(row_scale)); }
  void use_few_rows(Eigen::VectorXd row_scale) { model_.use_few_rows(std::move(row_scale)); }  ///< `SampledModel`

  /// What is expected of a point that has not been evaluated.
  struct Expected {
    Eigen::VectorXd x;
    double shift = 0;  ///< about <f, A x>
    LossPoint loss;    ///< reference for A x, not yet less the shift
  };
  /// What the read of a point finds out besides, for no message more.
  struct Besides {
    /// Adds to `sums` what is asked of a block of rows, from f and delta as far as the expectation knows them.
    std::function<void(Eigen::Index first, std::span<const double> f, std::span<const double> delta, double* sums)>
        add{};
    Eigen::VectorXd sums{};          ///< over all rows; as many as there are at the call
    std::optional<double> change{};  ///< L there less L at `from`, in difference form; none: `try_steps` may find it
  };
  /// Collective. Up to four points, in one read where the expectations are near enough, else two more for a point. A x
  /// is that of `from` with the steps from there; made anew where it has seen many, or `renews`. `projection`: row
  /// norms to be made in the same read. besides: of the first point, or none. One all-reduce; another one where
  /// values have to be made again.
  std::vector<Point> evaluate(const Point& from, std::span<const Expected> expected, bool renews,
                              const RowPasses::Projection& projection = {}, Besides* besides = nullptr);
  /// Local. The direction from one point to another.
  static Direction between(const Point& from, const Point& to);

  // Beyond what the optimiser needs.
  static const RegressionState& state_of(const Point& point) {  ///< Local.
    return static_cast<const RegressionState&>(*point.state);
  }
  /// Local. Made where they are first asked for: one exponential a row, and one to four doubles until they are let go.
  const RowCurvatures& curvatures(const Point& point) const;
  static void drop_curvatures(const Point& point) { own(point).curvatures.reset(); }       ///< Local.
  const ScaledColumns& columns() const { return *columns_; }                               ///< Local.
  const std::shared_ptr<const ScaledColumns>& shared_columns() const { return columns_; }  ///< Local.
  const ColumnTerms& column_terms() const { return column_terms_; }                        ///< Local.
  const LogitOffsets& logit_offsets() const { return columns_->logit_offsets(); }          ///< Local.
  /// Local. 1 for this rank's rows, 0 for masked ones.
  Eigen::VectorXd unmasked_rows() const {
    return logit_offsets().without_masked(Eigen::VectorXd::Ones(A_.rows_local()));
  }
  /// Local. z_i less the reference, which is ln f_i of centred losses.
  double exponent(const RegressionState& state, Eigen::Index row) const {
    return state.z[row] + logit_offsets()[row] - state.loss.reference;
  }
  /// Collective, one read. The estimated rounding error of each component of the gradient.
  Eigen::VectorXd gradient_rounding(const Point& point) const;
  /// Collective where columns are not centred. What estimates of the loss's rounding rest on.
  PointRows point_rows(const Point& point) const;
  /// Collective; ln L, also where L overflows: then two all-reduces.
  double log_value(const Point& point) const;
  /// Collective; whether no row has any curvature left, one all-reduce of 8 bytes.
  bool is_flat(const Point& point) const;
  /// Collective. On rank 0 always: for d that allows it. on_stop: see `OnStop`.
  Hessian hessian_on_root(const Point& point, OnStop on_stop = OnStop::finish);
  /// Collective. A^T W^2 A on rank 0, empty elsewhere. One read and n d^2 flops at the first call.
  const Eigen::MatrixXd& ridge_gram_on_root(OnStop on_stop = OnStop::finish);
  /// Collective. The same on all ranks from now on: one broadcast of d^2. For d that allows it.
  void replicate_ridge_gram();
  /// Local. Takes over what another objective of the same rows and weights has of it.
  void adopt_ridge_gram(const RegressionObjective& other) {
    ridge_gram_ = other.ridge_gram_, replicated_ridge_gram_ = other.replicated_ridge_gram_;
  }
  /// Local. d x d, replicated; none unless it was made or adopted.
  const std::shared_ptr<const Eigen::MatrixXd>& replicated_ridge_gram() const { return replicated_ridge_gram_; }
  /// Collective. The largest |a_i^T s|. One all-reduce of 8 bytes.
  double largest_move(const Direction& direction) const;
  /// Collective, without messages unless a sum overflows. What reproduces b at the point, this rank's rows.
  Eigen::VectorXd fitted(const Point& point) const;

  // Local. Vectors are this rank's rows.
  const RowMatrix& A() const { return columns_->A(); }
  const Eigen::VectorXd& b() const { return b_; }
  auto weights_squared() const { return w2_.rows(0, A_.rows_local()); }  ///< a vector, unless it is stored as a number
  const Loss& loss() const { return *loss_; }
  bool uses_all_rows() const { return model_.uses_all_rows(); }
  double largest_ridge() const { return largest_ridge_; }  ///< of all preconditioners: see `SampledModel::ridge`
  /// Starts with the leverage scores of another objective over the same rows; see `SampledModel::adopt_scores`.
  void adopt_scores(const RegressionObjective& other, bool rescale) { model_.adopt_scores(other.model_, rescale); }

  /// Local, one read of A; before the first point. All evaluations are audited from now on: a shift and a sum of 16
  /// bytes each, and the share `rate` of a read.
  void begin_audit(double rate, std::uint64_t seed) {
    audit_ = std::make_unique<Audit>(*columns_, b_, w2_, *loss_, rate, seed);
  }
  const Audit* audit() const { return audit_.get(); }  ///< Local. None: there is no audit.

 private:
  static constexpr double kLargestOffset = 0.05;  // above, the sums of a value are made again at the new reference
  static constexpr int kStepsBetweenRefreshes = 10;

  /// Room for what offsets make of the rows of a block.
  struct Scratch {
    std::array<double, kMostBlockRows> logits, sizes;
  };
  LossRows rows_of(std::span<const double> z, Eigen::Index first, Scratch& scratch) const;
  std::span<const double> sizes_of(std::span<const double> z, Eigen::Index first, Scratch& scratch) const;
  double largest_of_rows(const Eigen::VectorXd& z, double (Loss::*of_rows)(const LossRows&) const) const;
  double ridge_value(std::span<const double> z, Eigen::Index first, double level) const;

  struct Value {
    LossPoint loss;
    double total = 0;  ///< with the regulariser
  };
  enum class Logits { at, step };  ///< A v are the logits, or have to be added to z
  void add_value(const LossRows& rows, std::span<const double> z, Eigen::Index first, double level, double reference,
                 std::span<double, 9> sums) const;
  Value value_of(const double* sums, double reference) const;
  std::array<double, 9> value_sums(const Eigen::VectorXd& z, double level, double reference) const;
  Value value_at(const Eigen::VectorXd& z, double level, double reference) const;
  Value value_from_scratch(const Eigen::VectorXd& z, double level) const;
  double level_of(const RegressionState& state, const Eigen::VectorXd& v, Logits meaning) const;

  // Of the change of L from a state on, along A s: the loss's sums, how many blocks overflow; slope and curvature of
  // the regulariser.
  static constexpr std::size_t kChangeWidth = 9, kChangeSums = kChangeWidth + 2;
  void drop_masked(Eigen::Index first, std::span<double> moves) const;  // 0 in masked rows
  void add_loss_change(const RegressionState& state, std::span<const double> y, double t, Eigen::Index first,
                       double* sums) const;
  void add_ridge_change(const RegressionState& state, const double* As, Eigen::Index first, Eigen::Index rows,
                        double* sums) const;

  /// The sums of requests over all ranks.
  struct Totals {
    std::vector<RowPasses::MapSums> sums;
    double seconds = 0;
    bool are_right = true;  ///< as far as an audit tells: else they are to be made again
  };
  Totals totals(std::vector<RowPasses::MapRequest> requests, std::span<const AuditClaim> claims, double clock) const;

  /// What one read finds out about a point.
  struct Evaluation final : ObjectiveState {
    Value value;
    Eigen::VectorXd gradient, centre, coupled_centre;
    double floor_bound = 0, seconds = 0;
  };
  static constexpr Eigen::Index kScalars = 10;  // the sums of a value, and of the floor
  RowPasses::MapRequest one_read(const RegressionState& state, const LossPoint& guess, const Eigen::VectorXd& v,
                                 Logits meaning, Eigen::VectorXd& product, const Besides* besides = nullptr) const;
  RowPasses::MapRequest with_change(RowPasses::MapRequest request, const Point& from, const Eigen::VectorXd& s,
                                    bool renews, double shift) const;
  void take_besides(const Eigen::VectorXd& scalars, const Point& from, const Expected& there, Besides& besides) const;
  std::unique_ptr<Evaluation> found_in_one_read(const RowPasses::MapSums& sums, double reference, double seconds) const;
  std::unique_ptr<ObjectiveState> evaluate_in_one_read(const RegressionState& state, const Eigen::VectorXd& v,
                                                       Logits meaning, Eigen::VectorXd& product, double reference,
                                                       const Eigen::VectorXd& x) const;
  std::unique_ptr<ObjectiveState> renew_logits(Point& point, double& reference) const;
  Point accept(Point point, ObjectiveState& found) const;
  Point unevaluated(const Eigen::VectorXd& x) const;
  double added_value(const Eigen::VectorXd& x) const { return column_terms_.ridge(x) + correction_.value(x); }
  Eigen::VectorXd added_gradient(const Eigen::VectorXd& x) const {
    return column_terms_.gradient(x) + correction_.gradient(x);
  }

  bool differentiate(Point& point, const Value& value) const;
  void fill_outputs(const LossRows& rows, std::span<const double> z, Eigen::Index first, double shift,
                    const LossPoint& point, const LossDerivatives& out) const;
  void drop_whole_rows(std::span<const double> logits, double reference, std::span<double> delta) const;
  Eigen::VectorXd shared_rounding(const Point& point) const;
  double rounding_of_row(const RegressionState& state, Eigen::Index row, double size, double q_terms, double delta,
                         double row_norm) const;

  static RegressionState& own(const Point& point) { return static_cast<RegressionState&>(*point.state); }
  WeightedRows positive_rows(const Point& point) const;
  double total_curvature(const Eigen::VectorXd& weights) const;
  void add_local_grams(const Point& point, double* positive, double* negative, OnStop on_stop) const;
  Hessian distributed_hessian(const Point& point) const;

  std::shared_ptr<const ScaledColumns> columns_;
  const RowMatrix& A_;
  const Eigen::VectorXd masked_b_;  // where rows are masked
  const Eigen::VectorXd& b_;
  RidgeWeights w2_;
  ColumnTerms column_terms_;
  Correction correction_;
  Eigen::VectorXd terms_, shares_;  // of sampled rows, this rank's
  bool is_sample_ = false;
  std::unique_ptr<Loss> loss_;
  double reads_before_;
  std::int64_t collectives_before_;
  RootClock clock_;
  std::shared_ptr<const Eigen::MatrixXd> ridge_gram_, replicated_ridge_gram_;

  std::shared_ptr<const ProcessGrid> grid_;  // of ScaLAPACK; none: rank 0 has the d x d matrices
  SampledModel model_;
  double curvature_of_model_ = 0;  // this rank's part
  double largest_ridge_ = 0;
  std::unique_ptr<Audit> audit_;
};

}  // namespace attnreg
