#include "newton/line_search.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "attnreg/error.hpp"
#include "errors/refuse.hpp"

namespace attnreg {

namespace {

constexpr double kSufficientDecrease = 1e-4;  // Armijo
constexpr double kNoChange = 2e-16;           // of L: no reason to shorten a step inside the region
constexpr double kSmallestStep = 1e-10;
constexpr double kLargestStep = 1e6;

}  // namespace

Trial search_line(Objective& objective, const Point& point, const Direction& direction, bool on_boundary) {
  const double slope = point.gradient.dot(direction.s);
  const auto enough = [&](const Trial& trial) { return trial.change <= kSufficientDecrease * trial.t * slope; };
  const double longest = objective.longest_step(direction), first = std::min(1.0, longest);
  const Trial whole = objective.try_steps(point, direction, std::array{first})[0];
  if (!on_boundary && std::abs(whole.change) <= kNoChange * std::abs(point.value)) return whole;
  if (enough(whole)) {
    Trial best = whole;
    for (double t = 2; on_boundary && t < std::min(kLargestStep, longest) && !objective.is_stopped(); t *= 8)
      for (const Trial& longer : objective.try_steps(point, direction, std::array{t, 2 * t, 4 * t})) {
        if (!(longer.change < best.change) || longer.t > longest) return best;
        best = longer;
      }
    return best;
  }
  for (double t = first / 2; t > kSmallestStep * first && !objective.is_stopped(); t /= 8)
    for (const Trial& shorter : objective.try_steps(point, direction, std::array{t, t / 2, t / 4}))
      if (enough(shorter)) return shorter;
  return {};
}

double next_radius(double radius, double length, bool on_boundary, double t) {
  if (t < 1) return t * length;
  if (on_boundary) return 2 * t * length;
  return std::max(radius, length);
}

void check(const NewtonOptions& options) {
  require(options.relative_tolerance > 0 && options.relative_tolerance < std::numeric_limits<double>::infinity(),
          "relative_tolerance must be > 0");
  // NaN: the gradient that it is the norm of is not finite, which the iteration finds out.
  require(options.gradient_reference >= 0, "gradient_reference must be >= 0");
  require(options.max_iterations >= 0, "max_iterations must be >= 0");
  require(options.time_limit_seconds > 0, "time_limit_seconds must be > 0");
}

}  // namespace attnreg
