#include "heads/layer_starts.hpp"

#include <array>
#include <cmath>

#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kSpreadOfAny = 1, kSpreadOfFactors = 0.3;  // of the logits
constexpr std::array<double, 2> kSizesOfY{1.5, 3};          // |A3 Y| per key, relative to |B| less its mean per query
constexpr int kStepsForY = 2;
constexpr double kMeans = 4e-4;  // a ridge on Y that leaves what uniform attention sees

/// Scaled so that the logits have that root mean square, queries and keys being orthonormal over all sequences.
HeadFactors with_spread(const LayerPasses& passes, HeadFactors u, double spread) {
  const double numbers = static_cast<double>(passes.inputs().queries()) * passes.keys_global();
  const double size = u.is_full()
                          ? u.numbers().norm()
                          : std::sqrt((u.U().transpose() * u.U()).cwiseProduct(u.V().transpose() * u.V()).sum());
  const double scale = size > 0 ? spread * std::sqrt(numbers) / size : 0;
  return u.with((u.is_full() ? scale : std::sqrt(scale)) * u.numbers());
}

HeadFactors random_X(const LayerPasses& passes, Index rank, const RandomStream& stream, int number) {
  HeadFactors u = passes.factors(rank);
  stream.normals(number, span_of(u.numbers()));
  return with_spread(passes, std::move(u), rank == 0 ? kSpreadOfAny : kSpreadOfFactors);
}

/// Two steps on X from X = 0 with a random Y, which is `size` times as large as B shows, and reproduces the means of B.
HeadFactors from_random_Y(LayerPasses& passes, double size, const RandomStream& stream, int number) {
  passes.set_ridges({0, kMeans});
  const HeadFactors zero = passes.factors(0);
  const LayerPoint uniform = passes.linearise(zero);
  MatrixXd Y(passes.value_dimension(), passes.columns());
  stream.normals(number, span_of(Y));
  const double per_query = uniform.misfit / static_cast<double>(passes.inputs().queries());
  Y *= size * std::sqrt(per_query * passes.keys_global()) / Y.norm();
  // (I - (G + e)^-1 G) Y: the part that uniform attention does not see.
  uniform.L.triangularView<Eigen::Lower>().solveInPlace(Y);
  uniform.L.transpose().triangularView<Eigen::Upper>().solveInPlace(Y);
  Y = kMeans * Y + uniform.Y;
  passes.communicator().broadcast(span_of(Y));
  passes.hold(Y);
  GaussNewtonOptions options;
  options.steps = kStepsForY;
  options.name = "a random Y, ";
  GaussNewtonEnd end = minimise(passes, zero, 0, options);
  passes.hold(std::nullopt);
  passes.set_ridges({});
  return std::move(end.u);
}

}  // namespace

LayerStart layer_start(LayerPasses& passes, Index rank, bool Y_is_held, int number, std::uint64_t seed) {
  const RandomStream stream(seed, Purpose::layer_start);
  if (rank == 0 && Y_is_held && number == 0) return {"X = 0", passes.factors(0)};
  if (rank == 0 && !Y_is_held && number % 2 == 0)
    return {"random Y", from_random_Y(passes, kSizesOfY.at(static_cast<std::size_t>(number / 2 % 2)), stream, number)};
  return {"random X", random_X(passes, rank, stream, number)};
}

}  // namespace attnreg
