#include "regression/one_regression.hpp"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "algebra/linear_solver_choice.hpp"
#include "algebra/scalapack.hpp"
#include "certificate/certify.hpp"
#include "certificate/separation.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "losses/losses.hpp"
#include "newton/minimise.hpp"
#include "newton/progress.hpp"
#include "ranks/activity.hpp"
#include "regression/null_space.hpp"
#include "regression/sketched_newton.hpp"
#include "regression/solve_cost.hpp"

namespace attnreg {

namespace {

constexpr double kUsualRidge = 1e-14;  // relative, on the diagonal of every preconditioner
constexpr double kUnchanged = 1e-12;   // relative, of L
constexpr double kFits = 1e-20;        // of L(0): what is left is rounding
constexpr double kSameMinimum = 1e-6;  // of L(0): values closer than that are one minimum
constexpr int kMostOnSample = 64;      // random starts; nothing is said of the work there

/// Collective. The options with the linear solver decided.
RegressionOptions with_linear_solver(const RowMatrix& A, RegressionOptions options) {
  auto& solver = options.linear_solver;
  const bool explicitly = solver.kind == LinearSolver::scalapack;
  const auto refuse_scalapack = [](const std::string& what) { refuse("the linear solver scalapack " + what); };
  const bool on_root = options.method == Method::sketched_newton || options.method == Method::surrogate;
  if (explicitly && on_root) refuse_scalapack("does not serve the method " + std::string(method_name(options.method)));
  if (explicitly && options.sampling.jl_columns == 0)
    refuse_scalapack("needs at least 1 JL column: exact row norms take a d x d matrix on every rank");
  if (!explicitly && (on_root || options.sampling.jl_columns == 0)) solver.kind = LinearSolver::rank0;
  const double bytes = rank0_matrix_bytes(A.communicator().size(), omp_get_max_threads(), A.rows_global(), A.columns(),
                                          options.sampling);
  solver = chosen_linear_solver(A.communicator(), A.columns(), solver, bytes);
  return options;
}

/// Collective, where rows are masked. How many numbers of b are not 0 there.
std::int64_t masked_targets(const RegressionObjective& objective, const VectorXd& b) {
  if (!objective.logit_offsets().mask_rows()) return 0;
  return objective.A().communicator().sum(static_cast<std::int64_t>((b.array() != objective.b().array()).count()));
}

}  // namespace

Regression::Regression(const std::shared_ptr<const ScaledColumns>& columns, const VectorXd& b, const RidgeWeights& w,
                       const RegressionOptions& options)
    : A_(columns->A()),
      options_(with_linear_solver(A_, options)),
      objective_(columns, b, w, make_loss(options.loss), options.sampling, options_.linear_solver),
      target_(describe_target(A_, objective_.b(), objective_.loss())) {
  result_.notes = columns->notes();
  options_.newton.on_iteration = with_start(options.newton.on_iteration, start_);
  const bool fits_softmax = objective_.loss().fitted_expression() == "softmax(A x)";
  if (options.start == Start::cross_entropy && !fits_softmax)
    refuse("the start cross-entropy serves the losses that fit softmax(A x), not " + options.loss);
  if (options.loss == "cross-entropy" && !(target_.sum > 0))
    refuse("cross-entropy needs a target with a positive sum; b sums to " + text_of(target_.sum));
  if (options.method == Method::surrogate && !has_surrogate(options.loss))
    refuse("the method surrogate serves the losses softmax and cross-entropy, not " + options.loss);
  result_.warnings = target_warnings(target_, objective_.loss());
  result_.warnings.insert(result_.warnings.end(), columns->warnings().begin(), columns->warnings().end());
  if (const auto unseen = masked_targets(objective_, b); unseen > 0)
    result_.warnings.push_back(std::to_string(unseen) + (unseen == 1 ? " value" : " values") +
                               " of b in masked rows, where the offset is -inf, are not 0: they do not count");
  if (options.loss == "rescaled-exp" && spans_ones(A_))
    result_.warnings.push_back(
        "A v = 1 has a solution v, a column of ones perhaps: along -v this loss falls to 0 whatever b is, and only "
        "the weight w keeps x from running away; drop that column, or use the loss softmax");
  if (options.start == Start::given) options_.x0 = options.x0.cwiseQuotient(columns->factor());
  if (!(options.audit >= 0 && options.audit <= 1))
    refuse("the rate of the audit is " + text_of(options.audit) + "; expected 0 to 1");
  if (options.audit > 0) objective_.begin_audit(options.audit, options.sampling.seed);
  point_ = objective_.evaluate(VectorXd::Zero(A_.columns()));
  value_at_zero_ = point_.value;
  double& reference = options_.newton.gradient_reference = objective_.norm(point_.gradient);
  if (!(reference > objective_.gradient_floor(point_, reference))) {  // x = 0 is stationary, or L overflows there
    reference = 0;
    options_.newton.reference = GradientReference::largest;
  }
  choose_method();
}

void Regression::share_scores_of(Regression& other) {
  if (result_.method != Method::newton_cg || objective_.uses_all_rows()) return;
  if (other.objective_.preconditioner().empty()) other.objective_.refresh_preconditioner(other.point_, false);
  objective_.adopt_scores(other.objective_, true);
}

bool Regression::wants_ridge_gram(int others) const {
  return result_.method == Method::surrogate && sample_saves(A_) && !A_.is_sparse() &&
         gram_pays(A_.columns(), others + 1);
}

void Regression::share_ridge_gram_of(Regression& other) {
  if (!other.objective_.replicated_ridge_gram()) other.objective_.replicate_ridge_gram();
  objective_.adopt_ridge_gram(other.objective_);
}

RegressionResult Regression::run() {
  const InPhase solve(Phase::solve);
  const StartPoint start = starts_on_sample_ ? StartPoint{point_.x, Start::zero, "zero"} : first_start();
  x0_ = solve_from_starts(
            objective_, point_, start, options_.random_starts > 0, kSameMinimum * std::abs(value_at_zero_),
            [&](StartPoint& from) {
              const NewtonSummary summary = solve_from(from);
              is_singular_ = is_singular_ || summary.singular;
              if (options_.random_starts > 0) note_cut_off("the solve from " + from.name, summary, result_.notes);
              return summary;
            },
            [&](int k) { return next_start(k); }, result_)
            .x;
  if (is_singular_ && !objective_.is_stopped()) remove_null_directions();
  certify_result();
  describe_end(objective_.loss(), "x",
               result_.summary.value <= kFits * value_at_zero_ && point_.x.norm() <= 1e-8 * x0_.norm(), value_at_zero_,
               result_);
  result_.x = point_.x.cwiseProduct(objective_.columns().factor());
  result_.gradient = point_.gradient.cwiseQuotient(objective_.columns().factor());
  result_.fitted = objective_.fitted(point_);
  if (objective_.uses_all_rows() && !all_rows_at_first_)
    result_.notes.push_back(
        "the sampled preconditioners served badly three times in a row: all rows were used from then on");
  if (objective_.largest_ridge() > kUsualRidge)
    result_.notes.push_back("a preconditioner was not positive definite to working precision: " +
                            text_of(objective_.largest_ridge()) + " times its diagonal was added");
  result_.fit = fit_quality(A_, result_.fitted, objective_.b(), target_);
  note_stop(objective_.is_stopped(), result_);
  if (const Audit* const audit = objective_.audit()) {
    result_.audit = audit->report();
    result_.warnings.insert(result_.warnings.end(), audit->warnings().begin(), audit->warnings().end());
  }
  return std::move(result_);
}

void Regression::choose_method() {
  const LinearSolver solver = options_.linear_solver.kind;
  const bool fits = may_sample(options_, solver) && !sample_saves(A_) && fits_on_root(A_);
  const auto choice = chosen_method(A_.rows_global(), A_.columns(), A_.is_sparse(), fits, options_, solver);
  result_.method = choice.method;
  if (options_.method == Method::automatic)
    result_.notes.push_back("method " + std::string(method_name(result_.method)) + ": the cheaper one for " +
                            std::to_string(A_.rows_global()) + " x " + std::to_string(A_.columns()));
  if (options_.linear_solver.kind == LinearSolver::scalapack) {
    const auto grid = with_grid(A_.communicator().size(), options_.linear_solver);
    result_.notes.push_back("linear solver scalapack: " + std::to_string(grid.grid_rows) + " x " +
                            std::to_string(grid.grid_columns) + " processes, blocks of " +
                            std::to_string(grid.block_size));
  }
  if (choice.is_replaced)
    result_.notes.push_back("method newton-cg: the samples of surrogates would hold many of the rows of " +
                            std::to_string(A_.rows_global()) + " x " + std::to_string(A_.columns()));
  starts_on_sample_ = choice.starts_on_sample;
  all_rows_at_first_ = objective_.uses_all_rows();
  if (result_.method == Method::newton_cg && all_rows_at_first_)
    result_.notes.push_back("the preconditioner uses all rows: a sample would leave none out");
}

StartPoint Regression::first_start() {
  const InPhase start(Phase::start);
  return choose_start(objective_, point_, options_, start_method(), result_.notes);
}

/// Another start, while there is time: where starts on the sample ended, then random ones.
std::optional<StartPoint> Regression::next_start(int k) {
  const int ends = starts_on_sample_ ? static_cast<int>(ends_.size()) - 1 : 0;  // the first is where the solve began
  const int on_sample = starts_on_sample_ ? std::min(options_.random_starts, kMostOnSample) : 0;
  const int number = k <= ends ? 0 : on_sample + k - ends;  // of a random one
  if (number > options_.random_starts) return std::nullopt;
  const bool stopped = objective_.is_stopped();
  if (stopped || !(point_.seconds < options_.newton.time_limit_seconds)) {
    if (number == 0)
      result_.notes.push_back(over_text(stopped) + std::to_string(ends + 1 - k) +
                              " of the ends on the sample were not finished on all rows");
    if (number > 0 || on_sample < options_.random_starts)
      note_starts_left_out(stopped, std::max(number, on_sample + 1), options_.random_starts, result_.notes);
    return std::nullopt;
  }
  if (number > 0) return random_start(objective_, point_, options_.sampling.seed, number);
  return start_from(ends_[static_cast<std::size_t>(k)]);
}

/// From the start that is the lowest on a sample, or, after the first solve, from there on: by surrogates or another
/// method.
NewtonSummary Regression::solve_by_samples(StartPoint& start) {
  const bool is_first = std::exchange(is_first_solve_, false);
  const auto after = [](Method method) {
    return method == Method::surrogate ? AfterSample::surrogates
           : method == Method::newton  ? AfterSample::newton
                                       : AfterSample::newton_cg;
  };
  SurrogateOptions own{.seed = options_.sampling.seed, .then = after(result_.method)};
  own.if_near = own.then;
  if (is_first) {
    own.try_cross_entropy = start.kind == Start::zero && options_.start != Start::zero;
    own.must_try_it = options_.start == Start::cross_entropy;
    own.random_starts = std::min(options_.random_starts, kMostOnSample);
    const bool may_change = options_.method == Method::automatic && result_.method == Method::surrogate;
    if (may_change) own.if_near = after(method_near_zero(A_.columns()));
  }
  auto found = surrogate(objective_, point_, options_.newton, own);
  result_.sample_reads += found.sample_reads;
  result_.notes.insert(result_.notes.end(), found.notes.begin(), found.notes.end());
  if (found.then != own.then) {
    result_.method = found.then == AfterSample::newton ? Method::newton : Method::newton_cg;
    result_.notes.push_back("method " + std::string(method_name(result_.method)) +
                            ": a first step from x = 0 hardly moves the logits, and this is the cheapest then");
  }
  if (!is_first) return found.newton;
  ends_ = std::move(found.ends);
  starts_on_sample_ = !ends_.empty();
  if (starts_on_sample_ && start.kind == Start::zero) {
    const VectorXd x = start.x;
    start = start_from(ends_.front());
    start.x = x;
  }
  return found.newton;
}

NewtonSummary Regression::solve_from(StartPoint& start) {
  start_at(objective_, point_, start, objective_.loss(), value_at_zero_, result_.notes);
  start_ = starts_on_sample_ && is_first_solve_ ? "sample" : start.name;
  if (result_.method == Method::surrogate || (starts_on_sample_ && is_first_solve_)) return solve_by_samples(start);
  const Method method = std::exchange(is_first_solve_, false) ? result_.method : start_method();
  if (method != Method::sketched_newton) return minimise(method, objective_, point_, options_.newton);
  auto sketched = sketched_newton(objective_, point_, options_.newton, options_.sketched_newton, options_.sampling,
                                  options_.epsilon);
  result_.sketched_steps = std::move(sketched.steps);
  result_.notes.insert(result_.notes.end(), sketched.notes.begin(), sketched.notes.end());
  return sketched.newton;
}

/// Where columns depend on others, any multiple of a null direction may be added to x: the least x is taken, in columns
/// of equal size. It does not depend on the order of the columns or the number of ranks.
void Regression::remove_null_directions() {
  const NullSpace null = null_space(objective_);
  if (null.directions.cols() == 0) return;
  const VectorXd before = point_.x, x = null.projected(before);
  const double g = objective_.norm(point_.gradient), value = point_.value;
  if (x != before) point_ = objective_.evaluate(x);
  // A direction that is null to the precision of a Gram matrix only may matter to L.
  const double tolerance = options_.newton.relative_tolerance * result_.summary.gradient_reference;
  const double allowed = std::max({g, tolerance, objective_.gradient_floor(point_, g)});
  if (!(objective_.norm(point_.gradient) <= allowed) ||
      !(point_.value <= value + kUnchanged * std::abs(value) + kFits * value_at_zero_)) {
    point_ = objective_.evaluate(before);
    return;
  }
  measure(objective_, point_, result_.summary);
  result_.notes.push_back(null.text());
}

/// Collective. Whether the logits have run away: it takes no read.
bool Regression::is_far() const {
  constexpr double kFar = 15;  // exp(-15) is what is left of a row's f
  const LogitOffsets& offsets = objective_.logit_offsets();
  const VectorXd& z = RegressionObjective::state_of(point_).z;
  const double none = is_centred() ? -std::numeric_limits<double>::infinity() : 0;
  std::array<double, 2> ends{none, none};
  for (Index i = 0; i < z.size(); ++i) {
    if (offsets.is_masked(i)) continue;
    const double logit = is_centred() ? z[i] : z[i] + offsets[i];
    ends = {std::max(ends[0], logit), std::max(ends[1], -logit)};
  }
  A_.communicator().max(ends);
  return ends[0] + ends[1] > kFar;
}

/// Collective. What a small gradient means where no minimum is near.
void Regression::look_for_minimiser() {
  const InPhase certificate(Phase::certificate);
  std::string& no_minimiser = result_.certificate.no_minimiser;
  const bool far = no_minimiser.empty() && is_far();
  if (far && is_centred() && options_.certificate != CertificateLevel::full)
    no_minimiser = find_separation(objective_, point_.x).reason;
  if (!no_minimiser.empty()) {
    result_.summary.termination = Termination::no_minimiser;
    result_.warnings.push_back(no_minimiser);
    return;
  }
  const bool fits = is_centred() && point_.value == 0;
  if (!far || fits || !objective_.is_flat(point_)) return;
  result_.summary.termination = Termination::diverged;
  result_.warnings.push_back(
      "L is flat at x: no row has a slope or a curvature left that would lead to a minimum; try another start");
}

/// The certificate; it may know of a saddle that the solve did not notice. With an epsilon, more iterations until |x -
/// x*| <= epsilon is certified.
void Regression::certify_result() {
  constexpr int kMaxSaddles = 3;
  CertificateOptions certificate;
  certificate.level = options_.epsilon > 0 ? CertificateLevel::full : options_.certificate;
  certificate.gradient_reference = result_.summary.gradient_reference;
  certificate.x0 = x0_.cwiseProduct(objective_.columns().factor());
  const auto examine = [&] {
    const double seconds = result_.certificate.seconds;
    certificate.seconds_left = options_.newton.time_limit_seconds - point_.seconds;
    result_.certificate = certify(objective_, point_, certificate);
    result_.certificate.seconds += seconds;
  };
  examine();
  const auto at_saddle = [&] {
    return is_converged(result_.summary) && result_.certificate.kind == StationaryKind::saddle;
  };
  for (int k = 0; k < kMaxSaddles && at_saddle() && result_.method != Method::sketched_newton; ++k) {
    const int iterations = result_.summary.iterations;
    result_.summary = newton(objective_, point_, options_.newton);  // looks at the exact H before it ends
    result_.summary.iterations += iterations;
    examine();
    if (result_.summary.iterations == iterations) break;
  }
  if (at_saddle()) result_.summary.termination = Termination::saddle;
  if (is_converged(result_.summary) && !objective_.is_stopped()) look_for_minimiser();
  if (!(options_.epsilon > 0)) return;
  const auto certified = [&] {
    return result_.certificate.distance_bound && *result_.certificate.distance_bound <= options_.epsilon;
  };
  NewtonOptions again = options_.newton;
  while (!certified() && !objective_.is_stopped() && result_.summary.termination == Termination::converged &&
         result_.method != Method::sketched_newton) {
    again.relative_tolerance = 0.01 * std::min(again.relative_tolerance, result_.summary.relative_gradient);
    if (!(again.relative_tolerance > 0)) break;
    again.max_iterations = std::max(0, options_.newton.max_iterations - result_.summary.iterations);
    const int iterations = result_.summary.iterations;
    result_.summary = minimise(start_method(), objective_, point_, again);
    result_.summary.iterations += iterations;
    examine();
  }
  if (!certified() && is_converged(result_.summary) && !objective_.is_stopped())
    result_.summary.termination = Termination::uncertified;
}

}  // namespace attnreg
