#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace attnreg {

class Journal;

// What goes into Newton's methods and comes out of them, whatever is minimised: tolerances, records, summaries.

/// Why the iteration stopped. Each is an inequality. g is the gradient, |g|_s its norm in columns of equal size, which
/// does not depend on their units; the floor is the estimated rounding error of g in that norm, below which |g|_s says
/// nothing (docs/algorithms.md, section 8).
enum class Termination {
  converged,           ///< |g|_s <= relative_tolerance * gradient_reference
  converged_rounding,  ///< |g|_s <= floor <= 1e-3 gradient_reference and the last step did not halve |g|_s; or g(0) is
                       ///< rounding, and x = 0
  stagnated,           ///< none of the above, but no step lowers L, or five in a row changed neither L nor |g|_s
  iteration_limit,     ///< iterations = max_iterations
  uncertified,         ///< converged, but |x - x*| <= epsilon could not be certified
  time_limit,          ///< seconds of rank 0 >= time_limit_seconds
  breakdown,           ///< a value, gradient or Hessian is not finite; x is the last good iterate
  saddle,              ///< |g|_s is small, but x is no minimum: H has negative curvature, along which no step lowers L
  no_minimiser,        ///< |g|_s is small, but L has no minimiser: it goes on falling along a direction
  diverged,            ///< |g|_s is small, but L is larger than at x = 0: the solve has run away
  stopped,             ///< a rank was asked to stop, by a signal: what was still to be done was left out
};
std::string_view termination_name(Termination termination);  ///< "converged_rounding"

/// What |g| is compared with.
enum class GradientReference {
  given,    ///< `NewtonOptions::gradient_reference`, or |g(x0)|_s where that is 0
  largest,  ///< the largest |g|_s met so far
};

/// One line of the history. All values are replicated.
struct IterationRecord {
  int iteration = 0;             ///< 0: the starting point
  double value = 0;              ///< L
  double gradient_norm = 0;      ///< |g|, Euclidean
  double relative_gradient = 0;  ///< |g|_s / reference
  double step = 0;               ///< t, the part of the trust-region step that was taken
  double radius = 0;             ///< of the trust region, in the norm of the Hessian's positive part or its model
  int cg_iterations = 0;         ///< 0 for exact Newton
  double reads_of_a = 0;         ///< since the start of the solve
  std::int64_t collectives = 0;  ///< likewise
  double seconds = 0;            ///< likewise
  std::string
      start{};  ///< where the solve began: "zero", "cross-entropy", "random 3", "sample" (the lowest end on one)
  double weight = std::numeric_limits<double>::quiet_NaN();  ///< w, on a path of weights
};

/// When the iteration stops.
struct NewtonOptions {
  double relative_tolerance = 1e-10;  ///< > 0
  GradientReference reference = GradientReference::given;
  double gradient_reference = 0;  ///< >= 0; see `GradientReference`
  int max_iterations = 200;       ///< >= 0
  double time_limit_seconds =
      std::numeric_limits<double>::infinity();  ///< of the starts and the solve; looked at once an iteration
  std::function<void(const IterationRecord&)> on_iteration;  ///< called on every rank
  std::shared_ptr<Journal> journal{};  ///< the program's, which leaves checkpoints; none: nothing is left
};

/// How the iteration ended. All values are replicated, and are those of the last point, with its gradient made anew.
struct NewtonSummary {
  Termination termination = Termination::breakdown;
  double value = 0;               ///< L
  double gradient_norm = 0;       ///< |g|, Euclidean
  double scaled_gradient = 0;     ///< |g|_s, see `Termination`
  double gradient_reference = 0;  ///< what it was compared with
  double relative_gradient = 0;   ///< |g|_s / gradient_reference
  double gradient_floor = 0;      ///< see `Termination`; 0 unless it was looked at
  bool singular = false;          ///< the last H, or its model, was to working precision: x is not the only minimiser
  int iterations = 0;
  double reads_of_a = 0;
  std::int64_t collectives = 0;
  double seconds = 0;
};

/// What the audit of a solve did, `RegressionOptions::audit`. All values are replicated.
struct AuditReport {
  double rate = 0;               ///< 0: there was none
  std::int64_t evaluations = 0;  ///< that it looked at, each a read of A
  std::int64_t rows = 0;         ///< that were made again in them, in all
  double reads = 0;              ///< the same in reads of A
  std::int64_t repeated = 0;     ///< evaluations that were made again, as a rank was wrong
  std::int64_t misjudged = 0;    ///< checks that were wrong themselves
};

/// What a step of the papers' method rested on: H is the Hessian where the step starts, H~ its sample. All values are
/// replicated.
struct SketchedStep {
  int iteration = 0;       ///< as in the `IterationRecord`: 1 is the step from x0
  std::int64_t draws = 0;  ///< rows drawn with replacement; 0: all rows were used
  std::int64_t rows = 0;   ///< distinct rows among them
  /// The largest |v^T H~ v / v^T H v - 1| of some v, from exact products H v: the step itself, and random v that are
  /// normally distributed in the norm of H~. A lower estimate of the spectral error, as random v average over the
  /// directions. +inf where some v^T H v <= 0; NaN: not measured.
  double sampling_error = 0;
  double distance_bound = 0;  ///< certified, on |x - x*| after the step; +inf where H >= l I is not certified
};

/// The papers' method, Algorithm 1 of the thesis (Yin 2024, after Deng, Li, Song 2023, arXiv 2304.10411), with its
/// errors corrected (docs/errata.md).
struct SketchedNewtonOptions {
  double delta = 0.05;          ///< probability that any of the samples fails, in (0, 1)
  double radius = 0;            ///< r0, a bound on |x0 - x*|; 0: |g(x0)| / l where H >= l I is certified, else unknown
  double sampling_error = 0.1;  ///< e0: (1 - e0) H <= H~ <= (1 + e0) H is asked of every sample, in (0, 1)
  bool keep_low_rank = true;    ///< add the exact rank-2 part of the Hessian, which the papers drop
  int probes = 4;               ///< random vectors to measure the sampling error on, one read a step; 0: not measured
  std::function<void(const SketchedStep&)> on_step = {};  ///< called on every rank, after the step's `IterationRecord`
};

}  // namespace attnreg
