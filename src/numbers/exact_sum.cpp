#include "numbers/exact_sum.hpp"
#include "ranks/span_of.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstddef>

#ifdef __FAST_MATH__
#error "exact sums need IEEE arithmetic: compile without -ffast-math"
#endif

namespace attnreg {

ExactSum::ExactSum(Eigen::Index size, double bound, std::int64_t terms) : bins_(Eigen::VectorXd::Zero(3 * size)) {
  assert(bound >= 0 && bound < 0x1p1000 && terms >= 1 && terms <= std::int64_t{1} << 40);
  int exponent = 0;
  if (std::frexp(bound, &exponent) == 0.5) --exponent;  // bound = 2^(exponent - 1)
  if (bound == 0) exponent = -800;
  const int log2_bound = std::max(exponent, -800);
  const int log2_terms = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(terms - 1)));
  const int step = std::min(50, 54 - log2_terms);
  for (int slice = 0; slice < 3; ++slice) shift_[slice] = std::ldexp(1.5, log2_bound + 1 - step * slice);
  absolute_error_ = std::ldexp(static_cast<double>(terms), log2_bound - 52 - 2 * step);
}

void ExactSum::add(std::span<const double> terms) noexcept {
  for (std::size_t k = 0; k < terms.size(); ++k) add(static_cast<Eigen::Index>(k), terms[k]);
}

void ExactSum::reduce(const Communicator& communicator) { communicator.sum(span_of(bins_)); }

Eigen::VectorXd ExactSum::values() const {
  Eigen::VectorXd sums(bins_.size() / 3);
  for (Eigen::Index k = 0; k < sums.size(); ++k) sums[k] = bins_[3 * k] + (bins_[3 * k + 1] + bins_[3 * k + 2]);
  return sums;
}

double exact_sum(const Communicator& communicator, const Eigen::Ref<const Eigen::VectorXd>& terms,
                 std::int64_t terms_global) {
  const double largest = communicator.max(terms.size() == 0 ? 0.0 : terms.cwiseAbs().maxCoeff());
  ExactSum sum(1, largest * static_cast<double>(terms_global), terms_global);
  for (const double term : terms) sum.add(0, term);
  sum.reduce(communicator);
  return sum.values()[0];
}

}  // namespace attnreg
