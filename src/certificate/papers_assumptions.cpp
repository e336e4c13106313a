#include "certificate/papers_assumptions.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace attnreg {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kGoodStart = 0.1;  // |x0 - x*| M <= 0.1 l

}  // namespace

std::vector<Assumption> papers_assumptions(const GlobalConvexity& figures, double rows, double smallest_weight_squared,
                                           double norm_x, std::optional<double> start_distance) {
  const double R = std::max(figures.norm_A, norm_x);
  const bool small_target = figures.target_norm <= 1 + 1e-12;
  const double lipschitz = 0.36115 + 0.35356 * figures.target_norm;
  const double papers_M = 1.5 * std::log10(rows) + 30 * R * R / std::log(10.0);
  const double corrected_M =
      std::log10(small_target ? std::min(0.57141, lipschitz) : lipschitz) + 3 * std::log10(figures.norm_A);
  const auto weights_row = [&](double constant, const std::string& name, const std::string& text) -> Assumption {
    return {name, "min w_i^2 >= " + text + " + l / sigma_min^2 for some l > 0", smallest_weight_squared, constant,
            smallest_weight_squared > constant && figures.smallest_singular > 0};
  };
  // In decimal logarithms, since M overflows for R >= 5.
  const auto start_row = [&](double log10_M, const std::string& name, const std::string& text) -> Assumption {
    const double required = std::log10(kGoodStart * figures.convexity);  // -inf without convexity
    const double value = start_distance ? std::log10(*start_distance) + log10_M : kNone;
    return {name, "log10(|x0 - x*| M) <= log10(0.1 l), M = " + text, value, required,
            start_distance && figures.convexity > 0 && value <= required};
  };
  return {
      {"radius", "R = max(|A|, |x|), so that |A| <= R and |x| <= R", R, kNone, std::isfinite(R)},
      {"target", "|b|_1 <= 1", figures.target_norm, 1, small_target},
      {"rank", "sigma_min(A) > 0", figures.smallest_singular, 0, figures.smallest_singular > 0},
      weights_row(100, "weights (papers, sampled steps)", "100"),
      weights_row(4, "weights (papers)", "4"),
      weights_row(figures.indefiniteness, "weights (tight)", "min(0.2405 if |b|_1 <= 1, 1/12 + 0.19246 |b|_1)"),
      {"convexity", "H(y) >= l I with l > 0 for all y; the largest l found", figures.convexity, 0,
       figures.convexity > 0},
      {"Lipschitz constant (papers)", "log10 M, M = n^1.5 exp(30 R^2)", papers_M, kNone, std::isfinite(papers_M)},
      {"Lipschitz constant (corrected)", "log10 M, M = K |A|^3, K = 0.57141 for |b|_1 <= 1", corrected_M, kNone,
       std::isfinite(corrected_M)},
      start_row(papers_M, "good start (papers)", "n^1.5 exp(30 R^2)"),
      start_row(corrected_M, "good start (corrected)", "K |A|^3"),
  };
}

}  // namespace attnreg
