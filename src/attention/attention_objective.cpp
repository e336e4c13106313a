#include "attention/attention_objective.hpp"

#include <array>
#include <limits>
#include <memory>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "ranks/once_in_process.hpp"

namespace attnreg {

namespace {

constexpr double kEps = std::numeric_limits<double>::epsilon();

/// (L L^T)^-1 R.
RowMajorMatrix solved(const MatrixXd& L, const RowMajorMatrix& R) {
  MatrixXd result = L.triangularView<Eigen::Lower>().solve(MatrixXd(R));
  L.transpose().triangularView<Eigen::Upper>().solveInPlace(result);
  return result;
}

/// The sizes of the columns of A1, A2 and A3, of keys and values by the queries that see them; 1 where they are 0.
/// Collective.
std::array<VectorXd, 3> column_sizes(AttentionPasses& passes) {
  const auto& shape = passes.shape();
  auto sums = passes.sum({{1, shape.d1}, {1, shape.d2}, {1, shape.d3}}, [&](const QueryBlock& block, MatrixSums& part) {
    const VectorXd counts = block.counts();
    const auto size = [&](const RowMajorMatrix& rows) {
      return Eigen::RowVectorXd(counts.transpose() * rows.cwiseAbs2());
    };
    part[0] += block.queries().colwise().squaredNorm();
    part[1] += size(block.keys());
    if (passes.with_values()) part[2] += size(block.values());
  });
  std::array<VectorXd, 3> sizes;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    sizes[k] = sums[k].row(0).cwiseSqrt().transpose();
    sizes[k] = (sizes[k].array() > 0 && sizes[k].array().isFinite()).select(sizes[k], 1.0);
  }
  return sizes;
}

VectorXd outer(const VectorXd& u, const VectorXd& v) { return flat(u * v.transpose()); }

}  // namespace

AttentionObjective::AttentionObjective(AttentionPasses& passes, const AttentionParameters& parameters,
                                       AttentionMethod method, AttentionModel model)
    : passes_(passes),
      parameters_(parameters),
      method_(method),
      model_(model),
      collectives_before_(passes.communicator().collectives()) {
  const auto [queries, keys, values] = column_sizes(passes);
  const VectorXd ones = VectorXd::Ones(parameters.rank());
  VectorXd of_X(parameters.size());
  if (parameters.is_low_rank())
    of_X << outer(queries, ones), outer(keys, ones);
  else
    of_X = outer(queries, keys);
  scale_ = unknowns(of_X, values * VectorXd::Ones(passes.shape().dv).transpose());
}

VectorXd AttentionObjective::unknowns(const VectorXd& u, const RowMajorMatrix& Y) const {
  if (!joint()) return u;
  VectorXd all(dimension());
  all << u, flat(Y);
  return all;
}

RowMajorMatrix AttentionObjective::Y_part(const VectorXd& v) const {
  const auto& shape = passes_.shape();
  if (!joint()) return RowMajorMatrix::Zero(shape.d3, shape.dv);
  return Eigen::Map<const RowMajorMatrix>(v.data() + parameters_.size(), shape.d3, shape.dv);
}

AttentionObjective::BestY AttentionObjective::best_Y(const RowMajorMatrix& X) {
  const auto normal = passes_.normal_equations(X);
  BestY best = *once_in_process(passes_.communicator(), [&] {
    const auto& [KK, KB] = normal;
    BestY made{RowMajorMatrix::Constant(KB.rows(), KB.cols(), std::numeric_limits<double>::quiet_NaN()),
               damped_factor(KK, KK.diagonal()).L};
    if (made.L.size() != 0) made.Y = solved(made.L, KB);
    return std::make_shared<const BestY>(std::move(made));
  });
  if (best.L.size() == 0) return best;  // not finite; so is the value then
  // One correction from the residual: the gradient is -2 K^T (B - K Y).
  best.Y -= solved(best.L, 0.5 * passes_.evaluate({X, best.Y}).gradient.Y);
  return best;
}

Point AttentionObjective::evaluate(const VectorXd& x) {
  auto state = std::make_unique<AttentionState>();
  auto& [at, evaluation, normal] = *state;
  at = {parameters_.X(X_part(x)), Y_part(x)};
  if (eliminated()) {
    BestY best = best_Y(at.X);
    at.Y = std::move(best.Y);
    normal = std::move(best.L);
  }
  evaluation = passes_.evaluate(at);
  return {x, evaluation.value, unknowns(parameters_.pull_back(X_part(x), evaluation.gradient.X), evaluation.gradient.Y),
          passes_.seconds(), std::move(state)};
}

double AttentionObjective::gradient_floor(const Point& point, double /*enough*/) {
  const AttentionUnknowns rounding = passes_.gradient_rounding(state_of(point).at);
  return kEps * norm(unknowns(parameters_.pull_back(X_part(point.x).cwiseAbs(), rounding.X), rounding.Y));
}

VectorXd AttentionObjective::hessian_product(const Point& point, Direction& p) {
  const auto& [at, evaluation, normal] = state_of(point);
  const VectorXd u = X_part(point.x), pu = X_part(p.s);
  AttentionUnknowns product = passes_.hessian_product(at, {parameters_.tangent(u, pu), Y_part(p.s)}, OnStop::leave);
  if (eliminated()) {
    const RowMajorMatrix dY = -solved(normal, 0.5 * product.Y);
    const AttentionUnknowns direction{RowMajorMatrix::Zero(at.X.rows(), at.X.cols()), dY};
    product.X += passes_.hessian_product(at, direction, OnStop::leave).X;
  }
  const VectorXd X = parameters_.pull_back(u, product.X) + parameters_.curvature_product(pu, evaluation.gradient.X);
  return unknowns(X, product.Y);
}

Hessian AttentionObjective::hessian(const Point& /*point*/) {
  throw InternalError("attention is solved by newton_cg: its Hessian is known by products only");
}

bool AttentionObjective::refresh_preconditioner(const Point& at, bool /*tired*/) {
  const VectorXd u = X_part(at.x);
  const ModelPoint point{parameters_, u, state_of(at).at, joint()};
  const auto made = model_ == AttentionModel::dense ? dense_model(passes_, point) : kronecker_model(passes_, point);
  if (made) preconditioner_ = *made;
  return made.has_value();
}

double AttentionObjective::preconditioner_price() const {
  constexpr double kKroneckerProducts = 4;
  const double products = eliminated() ? 2 : 1;
  if (model_ == AttentionModel::kronecker) return kKroneckerProducts / products;
  return dense_model_flops(passes_) / product_flops(passes_) / products;
}

std::vector<Trial> AttentionObjective::try_steps(const Point& point, const Direction& direction,
                                                 std::span<const double> steps) {
  const AttentionUnknowns& at = state_of(point).at;
  std::vector<AttentionUnknowns> displacements;
  for (const double t : steps) {
    AttentionUnknowns move{parameters_.displacement(X_part(point.x), X_part(direction.s), t), t * Y_part(direction.s)};
    if (eliminated()) move.Y = best_Y(at.X + move.X).Y - at.Y;
    displacements.push_back(std::move(move));
  }
  const std::vector<double> changes = passes_.changes(at, displacements);
  std::vector<Trial> trials;
  for (std::size_t k = 0; k < steps.size(); ++k) trials.push_back({steps[k], changes[k]});
  return trials;
}

}  // namespace attnreg
