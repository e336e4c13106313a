#include "newton/line_search.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "attnreg/error.hpp"

namespace attnreg {

namespace {

constexpr double kSufficientDecrease = 1e-4;  // Armijo
constexpr double kNoChange = 2e-16;           // of L: no reason to shorten a step inside the region
constexpr double kSmallestStep = 1e-10;
constexpr double kLargestStep = 1e6;

}  // namespace

LineSearch search_line(Objective& objective, double slope, bool on_boundary) {
  const auto enough = [&](double t, double change) { return change <= kSufficientDecrease * t * slope; };
  const double longest = objective.longest_step(), first = std::min(1.0, longest);
  double change = objective.change_along(std::array{first})[0];
  if (!on_boundary && std::abs(change) <= kNoChange * std::abs(objective.value())) return {first, change};
  if (enough(first, change)) {
    LineSearch best{first, change};
    for (double t = 2; on_boundary && t < std::min(kLargestStep, longest); t *= 8) {
      const auto changes = objective.change_along(std::array{t, 2 * t, 4 * t});
      for (std::size_t k = 0; k < 3; ++k) {
        if (!(changes[k] < best.change) || std::ldexp(t, static_cast<int>(k)) > longest) return best;
        best = {std::ldexp(t, static_cast<int>(k)), changes[k]};
      }
    }
    return best;
  }
  for (double t = first / 2; t > kSmallestStep * first; t /= 8) {
    const auto changes = objective.change_along(std::array{t, t / 2, t / 4});
    for (std::size_t k = 0; k < 3; ++k) {
      const double shorter = std::ldexp(t, -static_cast<int>(k));
      if (enough(shorter, changes[k])) return {shorter, changes[k]};
    }
  }
  return {};
}

double next_radius(double radius, double length, bool on_boundary, double t) {
  if (t < 1) return t * length;
  if (on_boundary) return 2 * t * length;
  return std::max(radius, length);
}

void check_arguments(const Objective& objective, const Eigen::VectorXd& x0, const NewtonOptions& options) {
  const auto require = [](bool condition, const std::string& message) {
    if (!condition) throw InvalidArgument(message, Error::Scope::all_ranks);
  };
  require(x0.size() == objective.dimension(), "x0 has " + std::to_string(x0.size()) + " values, the problem has " +
                                                  std::to_string(objective.dimension()) + " unknowns");
  require(x0.allFinite(), "x0 must be finite");
  require(options.relative_tolerance > 0 && options.relative_tolerance < std::numeric_limits<double>::infinity(), "relative_tolerance must be > 0");
  require(options.gradient_reference >= 0, "gradient_reference must be >= 0");
  require(options.max_iterations >= 0, "max_iterations must be >= 0");
  require(options.time_limit_seconds > 0, "time_limit_seconds must be > 0");
}

}  // namespace attnreg
