#include "objective/regression_objective.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "errors/faults.hpp"
#include "numbers/row_sums.hpp"
#include "objective/row_parts.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kEps = std::numeric_limits<double>::epsilon();
constexpr double kLargestGuess = 1;  // above, value and gradient from one read are made again from z
constexpr double kWhole = 8 * kEps;  // 1 - f_i up to that times 1 and the rounding of its exponent is rounding

/// w_i^2, 0 of masked rows.
RidgeWeights squares(const RidgeWeights& w, const ScaledColumns& columns) {
  const Index rows = columns.A().rows_local();
  if (!columns.logit_offsets().mask_rows()) return w.squared();
  return columns.logit_offsets().without_masked(VectorXd(w.squared().rows(0, rows)));
}

/// Outputs of the rows of a block, for the moment.
struct Outputs {
  std::array<double, kMostBlockRows> q, f, delta, coupling, terms;
  const bool cancels, couples;  // q may cancel; the loss is coupled

  explicit Outputs(const Loss& loss)
      : cancels(loss.form() != HessianForm::centred), couples(loss.form() == HessianForm::coupled) {}

  LossDerivatives of(Index rows) {
    const auto size = static_cast<std::size_t>(rows);
    return {.q = std::span(q).first(size),
            .f = std::span(f).first(size),
            .delta = std::span(delta).first(size),
            .coupling = std::span(coupling).first(couples ? size : 0),
            .terms = std::span(terms).first(cancels ? size : 0)};
  }
  /// Only q and f are for the moment.
  LossDerivatives kept_in(RowCurvatures& curvatures, Index first, Index rows) {
    const auto size = static_cast<std::size_t>(rows);
    const auto in = [&](VectorXd& v) {
      return v.size() == 0 ? std::span<double>() : std::span(v.data() + first, size);
    };
    return {std::span(q).first(size), std::span(f).first(size), in(curvatures.delta),
            in(curvatures.positive),  in(curvatures.coupling),  in(curvatures.self)};
  }
  double q_terms(std::size_t i) const { return cancels ? terms[i] : std::abs(q[i]); }
};

}  // namespace

RegressionObjective::RegressionObjective(std::shared_ptr<const ScaledColumns> columns, const VectorXd& b,
                                         const RidgeWeights& w, std::unique_ptr<Loss> loss,
                                         const SamplingOptions& sampling, const LinearSolverOptions& solver)
    : columns_(std::move(columns)),
      A_(columns_->A()),
      masked_b_(columns_->logit_offsets().mask_rows() ? columns_->logit_offsets().without_masked(b) : VectorXd()),
      b_(columns_->logit_offsets().mask_rows() ? masked_b_ : b),
      w2_(squares(w, *columns_)),
      column_terms_(*columns_, w2_),
      loss_(std::move(loss)),
      reads_before_(A_.reads()),
      collectives_before_(A_.communicator().collectives()),
      clock_(A_.communicator()),
      grid_(solver.kind == LinearSolver::scalapack ? std::make_shared<const ProcessGrid>(A_.communicator(), solver)
                                                   : nullptr),
      model_(A_, w2_, sampling, grid_, &column_terms_) {
  if (logit_offsets().are_there()) loss_->see_offsets();
}

/// At most a block of rows.
LossRows RegressionObjective::rows_of(std::span<const double> z, Index first, Scratch& scratch) const {
  const auto rows = static_cast<Index>(z.size());
  LossRows result{z, part(b_, first, rows)};
  if (is_sample_) result.terms = part(terms_, first, rows), result.shares = part(shares_, first, rows);
  if (logit_offsets().are_there()) {
    logit_offsets().add_to(z, first, scratch.logits);
    result.z = std::span(scratch.logits).first(z.size());
  }
  return result;
}

/// Of the numbers that the logits are made of.
std::span<const double> RegressionObjective::sizes_of(std::span<const double> z, Index first, Scratch& scratch) const {
  if (!logit_offsets().are_there()) return z;
  logit_offsets().fill_sizes(z, first, scratch.sizes);
  return std::span(scratch.sizes).first(z.size());
}

Point RegressionObjective::unevaluated(const VectorXd& x) const {
  Point point{.x = x, .state = std::make_unique<RegressionState>()};
  RegressionState& state = own(point);
  state.largest_x = columns_->scale().cwiseProduct(x).lpNorm<Eigen::Infinity>();
  state.offset = column_terms_.offset(x);
  return point;
}

Point RegressionObjective::evaluate(const VectorXd& x) {
  Point point = unevaluated(x);
  RegressionState& state = own(point);
  if (audit_) state.rounding = fresh_rounding(x, 0);
  state.z = x.isZero(0) ? VectorXd::Zero(A_.rows_local()) : A_.passes().multiply(x, Compensated());
  // Softmax of z = 0 has a reference that needs no maximum.
  const bool is_known = loss_->is_shift_invariant() && x.isZero(0) && !is_sample_;
  const double reference = std::log(static_cast<double>(A_.rows_global()));
  const Value value =
      is_known ? value_at(state.z, state.level(), reference) : value_from_scratch(state.z, state.level());
  return differentiate(point, value) ? std::move(point) : evaluate(x);
}

std::vector<Point> RegressionObjective::evaluate(const Point& from, std::span<const Expected> expected, bool renews,
                                                 const RowPasses::Projection& projection, Besides* besides) {
  const double clock = clock_.seconds();
  const RegressionState& start = state_of(from);
  renews = renews || start.updates >= kStepsBetweenRefreshes;
  std::vector<Point> points;
  std::vector<VectorXd> moves;
  for (const Expected& there : expected) {
    points.push_back(unevaluated(there.x));
    moves.push_back(renews ? there.x : there.x - from.x);
    RegressionState& state = own(points.back());
    state.updates = renews ? 0 : start.updates + 1;
    state.shift = renews ? there.shift : start.shift;
    state.loss = there.loss;
    state.loss.reference -= state.shift;
  }
  std::vector<RowPasses::MapRequest> requests;
  std::vector<AuditClaim> claims;
  for (std::size_t k = 0; k < points.size(); ++k) {
    RegressionState& state = own(points[k]);
    const auto meaning = renews ? Logits::at : Logits::step;
    if (audit_) {
      const VectorXd &x = points[k].x, &s = moves[k];
      state.rounding = renews ? fresh_rounding(x, state.shift)
                              : moved_rounding(start.rounding, product_rounding(s), 1, s, x, start.shift);
      claims.push_back({x, state.loss, state.shift, level_of(renews ? state : start, s, meaning), state.rounding, true,
                        &state.z, renews ? nullptr : &start.z});
    }
    const Besides* const own_besides = k == 0 ? besides : nullptr;
    requests.push_back(one_read(renews ? state : start, state.loss, moves[k], meaning, state.z, own_besides));
  }
  requests.front().projection = projection;
  if (besides != nullptr) {
    const VectorXd s = expected.front().x - from.x;
    requests.front() = with_change(std::move(requests.front()), from, s, renews, own(points.front()).shift);
    requests.front().scalars += besides->sums.size();
  }
  const auto [sums, seconds, are_right] = totals(std::move(requests), claims, clock);
  std::vector<std::unique_ptr<Evaluation>> found;
  std::vector<double> again;  // sums of values whose reference was not near enough
  const auto is_rough = [&](const auto& one) { return one && !(one->value.loss.offset <= kLargestOffset); };
  for (std::size_t k = 0; k < points.size(); ++k) {
    RegressionState& state = own(points[k]);
    if (!renews) state.z += start.z;
    faults::flip("logits", span_of(state.z));
    found.push_back(are_right ? found_in_one_read(sums[k], state.loss.reference, seconds) : nullptr);
    if (!is_rough(found[k])) continue;
    const auto of_value = value_sums(state.z, state.level(), found[k]->value.loss.reference);
    again.insert(again.end(), of_value.begin(), of_value.end());
  }
  if (!again.empty()) A_.communicator().sum(again);
  const double* next = again.data();
  for (std::size_t k = 0; k < points.size(); ++k) {
    if (is_rough(found[k])) found[k]->value = value_of(std::exchange(next, next + 9), found[k]->value.loss.reference);
    if (found[k] && k == 0 && besides != nullptr) take_besides(sums[0].scalars, from, expected[0], *besides);
    points[k] = found[k] ? accept(std::move(points[k]), *found[k]) : evaluate(expected[k].x);
  }
  return points;
}

Point RegressionObjective::refreshed(Point point) {
  if (std::isfinite(point.value)) {
    double reference = own(point).loss.reference;
    if (const auto found = renew_logits(point, reference)) return accept(std::move(point), *found);
  }
  return evaluate(point.x);
}

void RegressionObjective::fill_outputs(const LossRows& rows, std::span<const double> z, Index first, double shift,
                                       const LossPoint& point, const LossDerivatives& out) const {
  loss_->differentiate(rows, point, out);
  const auto w2 = w2_.rows(first, static_cast<Index>(out.q.size()));
  for (std::size_t i = 0; i < out.q.size(); ++i) out.q[i] += w2.coeff(static_cast<Index>(i)) * (z[i] + shift);
}

/// Of centred losses: a row that has all of f has no curvature, since a_i - A^T f is nothing but the rounding of A^T f.
/// Of samples: whatever its share. Local.
void RegressionObjective::drop_whole_rows(std::span<const double> logits, double reference,
                                          std::span<double> delta) const {
  constexpr double kHalf = -0.7;  // the exponent of f_i = 1/2, about
  const Eigen::Map<const VectorXd> all(logits.data(), static_cast<Index>(logits.size()));
  if (!loss_->is_shift_invariant() || all.size() == 0 || !(all.maxCoeff() - reference > kHalf)) return;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double rounding = kWhole * (1 + loss_->exponent_rounding(logits[i], reference));
    if (-std::expm1(logits[i] - reference) <= rounding) delta[i] = 0;
  }
}

// In units of eps: the terms of q_i, and what the roundings of z_i, of the exponent z_i - reference, and of x and of
// the steps' A s (at most eps |a_i|_s max |scale_j x_j|, as random sums) do to q_i + w_i^2 z_i.
double RegressionObjective::rounding_of_row(const RegressionState& state, Index row, double size, double q_terms,
                                            double delta, double row_norm) const {
  const double curvature = std::abs(delta);
  return q_terms + curvature * loss_->exponent_rounding(size, state.loss.reference) +
         (curvature + weights_squared()[row]) * row_norm * state.largest_x;
}

/// All that z and its value leave to be found out; one read. Whether it is right, as far as an audit tells.
bool RegressionObjective::differentiate(Point& point, const Value& value) const {
  RegressionState& state = own(point);
  point.value = value.total + added_value(point.x);
  state.loss = value.loss;
  state.curvatures.reset();
  const double clock = clock_.seconds();
  const Index columns = loss_->form() == HessianForm::coupled ? 3 : 2;
  const auto map = [&](Index first, Index rows, double* U, double* bound) {
    const VectorXd& norms = columns_->row_norms();
    Outputs outputs(*loss_);
    Scratch scratch;
    const auto z = part(state.z, first, rows);
    const LossDerivatives out = outputs.of(rows);
    fill_outputs(rows_of(z, first, scratch), z, first, state.shift, state.loss, out);
    const auto sizes = sizes_of(z, first, scratch);
    for (Index i = 0; i < rows; ++i) {
      const Index row = first + i;
      const auto k = static_cast<std::size_t>(i);
      U[columns * i] = out.q[k];
      U[columns * i + 1] = out.f[k];
      if (columns == 3) U[columns * i + 2] = out.coupling[k];
      *bound += rounding_of_row(state, row, sizes[k], outputs.q_terms(k), out.delta[k], norms[row]) * norms[row];
    }
  };
  std::vector<AuditClaim> claims;
  if (audit_)
    claims.push_back(
        {.x = point.x, .point = state.loss, .shift = state.shift, .rounding = state.rounding, .z = &state.z});
  const auto [all, seconds, are_right] = totals(
      {{.columns = columns, .scalars = 1, .map = map, .row_norms = columns_->missing_row_norms()}}, claims, clock);
  if (!are_right) return false;
  const RowPasses::MapSums& sums = all.front();
  point.gradient = sums.columns.col(0) + added_gradient(point.x);
  point.seconds = seconds;
  state.centre = sums.columns.col(1);
  state.coupled_centre = sums.columns.rightCols(columns - 2).reshaped();
  state.floor_bound = sums.scalars[0];
  return true;
}

// Sums at a guess of the reference: docs/algorithms.md, "One read". The floor's bound takes the curvature at the guess.
RowPasses::MapRequest RegressionObjective::one_read(const RegressionState& state, const LossPoint& guess,
                                                    const VectorXd& v, Logits meaning, VectorXd& product,
                                                    const Besides* besides) const {
  const Index of_loss = loss_->columns(), columns = of_loss + 1;
  const double level = level_of(state, v, meaning);
  const auto map = [this, &state, &product, guess, meaning, of_loss, columns, level, besides](
                       Index first, Index count, double* U, double* scalars) {
    const VectorXd& norms = columns_->row_norms();
    std::array<double, kMostBlockRows> moved;
    Scratch scratch;
    auto z = part(product, first, count);
    if (meaning == Logits::step) {
      Eigen::Map<VectorXd>(moved.data(), count) = state.z.segment(first, count) + product.segment(first, count);
      z = std::span(moved).first(z.size());
    }
    LossRows rows = rows_of(z, first, scratch);
    std::array<double, kMostBlockRows> exponentials;
    if (loss_->is_shift_invariant()) {
      const auto made = std::span(exponentials).first(rows.z.size());
      loss_->fit(rows, guess, made);  // exp(logit - reference)
      rows.exponentials = made;
    }
    add_value(rows, z, first, level, guess.reference, std::span<double, 9>(scalars, 9));
    loss_->fill_columns(rows, guess.reference, {U, static_cast<std::size_t>(count * columns)},
                        static_cast<std::size_t>(columns));
    Outputs outputs(*loss_);
    const LossDerivatives out = outputs.of(count);
    fill_outputs(rows, z, first, state.shift, guess, out);
    if (besides != nullptr && besides->add) besides->add(first, out.f, out.delta, scalars + kScalars + kChangeSums);
    const auto sizes = sizes_of(z, first, scratch);
    const auto w2 = w2_.rows(first, count);
    for (Index i = 0; i < count; ++i) {
      const auto k = static_cast<std::size_t>(i);
      U[i * columns + of_loss] = w2[i] * (z[k] + state.shift);
      const double norm = norms[first + i];
      scalars[9] += rounding_of_row(state, first + i, sizes[k], outputs.q_terms(k), outputs.delta[k], norm) * norm;
    }
  };
  RowPasses::MapRequest request{.x = &v, .z = &product, .columns = columns, .scalars = kScalars, .map = map};
  if (meaning == Logits::at) request.compensated = Compensated{state.shift};
  return request;
}

/// Nothing, if the guess was not near enough. sums: over all rows.
std::unique_ptr<RegressionObjective::Evaluation> RegressionObjective::found_in_one_read(const RowPasses::MapSums& sums,
                                                                                        double reference,
                                                                                        double seconds) const {
  const Index of_loss = loss_->columns();
  const Loss::Combination combination = loss_->combine(loss_sums(sums.scalars.data()), reference);
  const auto combined = [&, &columns = sums.columns](const auto& factors) {
    VectorXd sum = VectorXd::Zero(columns.rows());
    for (Index c = 0; c < of_loss; ++c) sum += factors[static_cast<std::size_t>(c)] * columns.col(c);
    return sum;
  };
  auto found = std::make_unique<Evaluation>();
  found->value = value_of(sums.scalars.data(), reference);
  found->gradient = sums.columns.col(of_loss) + combined(combination.gradient);
  found->centre = combined(combination.centre);
  found->coupled_centre = combined(combination.coupling);
  found->floor_bound = sums.scalars[9];
  found->seconds = seconds;
  if (!(found->value.loss.offset <= kLargestGuess && found->gradient.allFinite())) return nullptr;
  return found;
}

/// x: where that is.
std::unique_ptr<ObjectiveState> RegressionObjective::evaluate_in_one_read(const RegressionState& state,
                                                                          const VectorXd& v, Logits meaning,
                                                                          VectorXd& product, double reference,
                                                                          const VectorXd& x) const {
  const double clock = clock_.seconds();
  LossPoint guess = state.loss;
  guess.reference = reference;
  const bool is_step = meaning == Logits::step;
  std::vector<AuditClaim> claims;
  if (audit_)
    claims.push_back({x, guess, state.shift, level_of(state, v, meaning),
                      is_step ? moved_rounding(state.rounding, product_rounding(v), 1, v, x, state.shift)
                              : fresh_rounding(x, state.shift),
                      true, &product, is_step ? &state.z : nullptr});
  const auto [sums, seconds, are_right] = totals({one_read(state, guess, v, meaning, product)}, claims, clock);
  return are_right ? found_in_one_read(sums.front(), reference, seconds) : nullptr;
}

/// Makes A x anew, and evaluates in the same read where the reference, which follows the shift, is near enough.
std::unique_ptr<ObjectiveState> RegressionObjective::renew_logits(Point& point, double& reference) const {
  RegressionState& state = own(point);
  const double shift = loss_->is_shift_invariant() ? state.centre.dot(point.x) : 0;
  reference += state.shift - shift;
  state.shift = shift;
  state.updates = 0;
  if (audit_) state.rounding = fresh_rounding(point.x, shift);
  return evaluate_in_one_read(state, point.x, Logits::at, state.z, reference, point.x);
}

/// x and z are those of the evaluation.
Point RegressionObjective::accept(Point point, ObjectiveState& found) const {
  RegressionState& state = own(point);
  auto& evaluation = static_cast<Evaluation&>(found);
  Value value = evaluation.value;
  if (!(value.loss.offset <= kLargestOffset)) value = value_at(state.z, state.level(), value.loss.reference);
  point.value = value.total + added_value(point.x);
  point.gradient = evaluation.gradient + added_gradient(point.x);
  point.seconds = evaluation.seconds;
  state.loss = value.loss;
  state.curvatures.reset();
  state.centre = std::move(evaluation.centre);
  state.coupled_centre = std::move(evaluation.coupled_centre);
  state.floor_bound = evaluation.floor_bound;
  return point;
}

const RowCurvatures& RegressionObjective::curvatures(const Point& point) const {
  RegressionState& state = own(point);
  if (state.curvatures) return *state.curvatures;
  const Index rows = A_.rows_local();
  const bool centred = loss_->form() == HessianForm::centred, coupled = loss_->form() == HessianForm::coupled;
  RowCurvatures& made = state.curvatures.emplace();
  made.delta.resize(rows);
  made.positive.resize(centred ? 0 : rows);
  made.coupling.resize(coupled ? rows : 0);
  made.self.resize(coupled ? rows : 0);
  sum_over_rows<1>(rows, [&](Index first, Index count, auto&) {
    Outputs outputs(*loss_);
    Scratch scratch;
    const LossRows of_block = rows_of(part(state.z, first, count), first, scratch);
    const LossDerivatives out = outputs.kept_in(made, first, count);
    loss_->differentiate(of_block, state.loss, out);
    drop_whole_rows(of_block.z, state.loss.reference, out.delta);
  });
  return made;
}

VectorXd RegressionObjective::gradient_rounding(const Point& point) const {
  const RegressionState& state = state_of(point);
  const VectorXd& norms = columns_->row_norms();
  VectorXd rounding(state.z.size());
  sum_over_rows<1>(state.z.size(), [&](Index first, Index rows, auto&) {
    Outputs outputs(*loss_);
    Scratch scratch;
    const auto z = part(state.z, first, rows);
    fill_outputs(rows_of(z, first, scratch), z, first, state.shift, state.loss, outputs.of(rows));
    const auto sizes = sizes_of(z, first, scratch);
    for (Index i = 0; i < rows; ++i) {
      const auto k = static_cast<std::size_t>(i);
      rounding[first + i] =
          rounding_of_row(state, first + i, sizes[k], outputs.q_terms(k), outputs.delta[k], norms[first + i]);
    }
  });
  VectorXd absolute = A_.passes().absolute_transpose_multiply(rounding);
  A_.communicator().sum(span_of(absolute));
  return kEps * (absolute + shared_rounding(point));
}

double RegressionObjective::gradient_floor(const Point& point, double enough) {
  const double bound = kEps * (state_of(point).floor_bound + norm(shared_rounding(point)));
  return bound < enough ? bound : norm(gradient_rounding(point));
}

}  // namespace attnreg
