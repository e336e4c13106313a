#include "statistical/verdict.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <sstream>

#include "statistical/exact.hpp"

namespace attnreg::hunt {

using Eigen::VectorXd;

namespace {

constexpr double kProgress = 1e-3;      // of |g(0)|: the least that a success must have gained
constexpr double kFloors = 8;           // of the stated rounding of |g|, which is an estimate
constexpr double kStationary = 16;      // of its rounding: a gradient at 0 that is 0
constexpr double kClearSaddle = -1e-6;  // of the size of the terms: a curvature that no rounding makes
constexpr double kNothing = 1e-30;      // of L(0): an L of that size is the rounding of f, and cannot fall
constexpr double kUnseen = 2.3e-16;     // of L(0): an L >= 0 of that size cannot fall by what L(0) would show
constexpr double kLogitsOfOne = 100;    // sinh(z)^2 of logits of that size, at most
constexpr double kWithinDoubles = 1e140;
constexpr double kSlack = 1 + 1e-9;
constexpr double kRoundingOfLargest = std::numeric_limits<double>::epsilon() * std::numeric_limits<double>::max();
constexpr double kOfFiftyDigits = 1e-30;  // their rounding beside that of double, with some digits to spare

/// WHAT IS A SUCCESS: the endings with the exit code 0.
bool is_success(const RegressionResult& result) {
  return result.summary.termination == Termination::converged ||
         result.summary.termination == Termination::converged_rounding;
}

class Judge {
 public:
  Judge(const HuntedProblem& hunted, const RegressionResult& result)
      : hunted_(hunted),
        result_(result),
        exact_(hunted.problem),
        zero_(exact_.at(VectorXd::Zero(hunted.problem.A.cols()))) {}

  std::vector<Violation> violations() {
    if (!result_.x.allFinite()) {
      report("finite", "x has values that are not finite");
      return found_;
    }
    here_ = exact_.at(result_.x);
    if (is_success(result_)) look_at_success();
    if (result_.summary.termination == Termination::breakdown) look_at_breakdown();
    look_at_value();
    look_at_kind();
    look_at_distance();
    look_at_convexity();
    return found_;
  }

 private:
  template <class... Words>
  void report(const char* kind, const Words&... words) {
    std::ostringstream out;
    out.precision(9);
    (out << ... << words);
    found_.push_back({kind, out.str()});
  }

  /// What |g| is compared with: |g(0)|, or what the solver says it is where 0 is stationary.
  double gradient_at_start() const {
    const bool stationary = zero_.gradient <= kStationary * zero_.gradient_rounding;
    return stationary ? result_.summary.gradient_reference : zero_.gradient;
  }

  /// In the norm of the stopping test: an estimate of the certificate's Euclidean floor in it.
  double stated_rounding() const {
    const double floor = result_.certificate.gradient_floor;
    const auto& [A, b, w, loss, offset] = hunted_.problem;
    const bool sees_level = loss != "softmax" && loss != "cross-entropy";
    const double spread = (A.rowwise() - A.colwise().mean()).colwise().norm().maxCoeff();
    const double size = sees_level || spread == 0 ? A.colwise().norm().maxCoeff() : spread;
    const double scaled =
        std::isfinite(floor) && size > 0 ? floor / size * std::sqrt(static_cast<double>(A.cols())) : 0;
    return std::max({scaled, result_.summary.gradient_floor, here_.gradient_rounding});
  }

  /// Of |x - x*|, what the rounding of a gradient in double may do to it: its unit is that of x.
  double distance_rounding() const {
    const double size = hunted_.problem.A.colwise().norm().maxCoeff();
    // Of a constant column's terms, whose sum is 0.
    const double sum = std::numeric_limits<double>::epsilon() * (1 + hunted_.problem.b.lpNorm<1>());
    return here_.least_eigenvalue > 0 ? size * (here_.gradient_rounding + sum) / here_.least_eigenvalue : 0;
  }

  /// The largest L that a success may have: L(0), or that of the start that was given. Rescaled sinh has L(0) = 0, and
  /// starts from logits of size 1.
  double largest_value() const {
    double largest = zero_.value + zero_.value_rounding;
    if (hunted_.problem.loss == "rescaled-sinh") {
      const double rows = static_cast<double>(hunted_.problem.A.rows());
      const double residual = 1 + rows * hunted_.problem.b.cwiseAbs().maxCoeff();
      largest += kLogitsOfOne * rows * (residual * residual + hunted_.problem.w.squaredNorm());
    }
    if (hunted_.options.start == Start::given) largest = std::max(largest, exact_.at(hunted_.options.x0).value);
    return largest;
  }

  std::string ending() const { return std::string(termination_name(result_.summary.termination)); }

  void look_at_success() {
    const double gradient = here_.gradient, rounding = kFloors * stated_rounding();
    if (!(gradient <= kProgress * gradient_at_start()) && !(zero_.gradient <= kStationary * zero_.gradient_rounding))
      report("progress", ending(), ", but |g| = ", gradient, ", |g(0)| = ", zero_.gradient);
    const double tolerance = hunted_.options.newton.relative_tolerance * result_.summary.gradient_reference;
    const bool at_tolerance = result_.summary.termination == Termination::converged;
    if (!(gradient <= (at_tolerance ? tolerance : 0) + rounding))
      report("gradient", ending(), ", but |g| = ", gradient, "; tolerance ", tolerance, ", stated rounding ",
             stated_rounding());
    const double most = largest_value();
    if (!(here_.value <= kSlack * most))
      report("descent", ending(), ", but L = ", here_.value, ", at the start ", most);
    if (here_.least_curvature < kClearSaddle && std::abs(here_.value) > kNothing * std::abs(zero_.value) &&
        !is_stated_as_unseen())
      report("saddle", ending(), " (", stationary_kind_name(result_.certificate.kind), "), but the least curvature is ",
             here_.least_curvature, " of the size of its terms");
    else if (result_.certificate.kind == StationaryKind::saddle)
      report("saddle", ending(), " at what is stated to be a saddle");
    if (hunted_.options.epsilon > 0 &&
        !(result_.certificate.distance_bound.value_or(kInfinity) <= hunted_.options.epsilon))
      report("epsilon", ending(), " without the distance that was asked for");
  }

  /// Nothing that counts is left to gain, and the certificate says that it cannot tell the curvature from 0, and is
  /// right.
  bool is_stated_as_unseen() const {
    const auto& certificate = result_.certificate;
    return std::abs(here_.value) <= kUnseen * std::abs(zero_.value) && certificate.kind == StationaryKind::degenerate &&
           std::abs(here_.least_eigenvalue) <= certificate.eigenvalue_rounding;
  }

  void look_at_breakdown() {
    const double largest = std::max({std::abs(here_.value), here_.gradient, here_.largest_entry, zero_.value});
    if (largest < kWithinDoubles && here_.largest_entry > 1 / kWithinDoubles)
      report("breakdown", "L = ", here_.value, ", |g| = ", here_.gradient, ", H up to ", here_.largest_entry);
  }

  void look_at_value() {
    const double stated = result_.summary.value;
    if (stated == here_.value || !std::isfinite(here_.value_rounding)) return;    // or L overflows
    if (std::isinf(stated) && here_.value_rounding > kRoundingOfLargest) return;  // or its terms do
    if (!(std::abs(stated - here_.value) <= here_.value_rounding))
      report("value", ending(), ": L = ", stated, " is stated, true is ", here_.value, ", rounding ",
             here_.value_rounding);
  }

  void look_at_kind() {
    const StationaryKind kind = result_.certificate.kind;
    const bool wrong = (kind == StationaryKind::local_minimum && !(here_.least_curvature > 0)) ||
                       (kind == StationaryKind::saddle && !(here_.least_curvature < 0));
    if (wrong)
      report("kind", '"', stationary_kind_name(kind), "\", least eigenvalue ", result_.certificate.smallest_eigenvalue,
             " +- ", result_.certificate.eigenvalue_rounding, " is stated, true is ", here_.least_eigenvalue);
  }

  void look_at_distance() {
    if (!result_.certificate.distance_bound) return;
    const double bound = *result_.certificate.distance_bound;
    const std::optional<double> distance = exact_.distance_to_minimum(result_.x);
    if (!distance)
      report("distance", "|x - x*| <= ", bound, " is stated, but Newton's method from x meets no minimum");
    else if (!(*distance <= kSlack * bound + kOfFiftyDigits * distance_rounding()))
      report("distance", "|x - x*| <= ", bound, " is stated, true is ", *distance);
  }

  void look_at_convexity() {
    const double stated = result_.certificate.convexity;
    const double least = std::min(here_.least_eigenvalue, zero_.least_eigenvalue);
    if (stated > 0 && !(stated <= kSlack * least))
      report("convexity", "H >= ", stated, " is stated for all x, at this one or 0 it has ", least);
  }

  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const HuntedProblem& hunted_;
  const RegressionResult& result_;
  ExactProblem exact_;
  Truth zero_, here_;
  std::vector<Violation> found_;
};

}  // namespace

const std::vector<ViolationKind>& violation_kinds() {
  static const std::vector<ViolationKind> kinds{
      {"progress", "success with |g| > 1e-3 |g(0)|"},
      {"gradient", "success, but |g| is above the tolerance and the stated rounding"},
      {"descent", "success with L above that of the start"},
      {"saddle", "success where the Hessian has negative curvature"},
      {"epsilon", "success without the distance asked for"},
      {"kind", "a false kind of point"},
      {"distance", "a false bound on |x - x*|"},
      {"convexity", "a false bound of H from below"},
      {"value", "a false L"},
      {"breakdown", "breakdown where all is finite"},
      {"finite", "x is not finite"},
      {"exception", "an exception in place of a result"},
  };
  return kinds;
}

std::vector<Violation> judge(const HuntedProblem& hunted, const RegressionResult& result) {
  return Judge(hunted, result).violations();
}

bool may_be_refused(const HuntedProblem& hunted) { return hunted.kind == "extreme"; }

}  // namespace attnreg::hunt
