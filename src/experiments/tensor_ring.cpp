#include "experiments/tensor_ring.hpp"

#include <algorithm>
#include <cmath>

#include "algebra/blas_products.hpp"
#include "algebra/dense_factors.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::experiments {

namespace {

constexpr std::size_t kEquationsAtOnce = 1024;

}  // namespace

void add_ring_product(Index k, const double* G, const double* H, double weight, double* out) {
  for (Index i = 0; i < k; ++i)
    for (Index l = 0; l < k; ++l) {
      const double h = weight * H[l + k * i];
      for (Index j = 0; j < k; ++j) out[i + k * j] += G[j + k * l] * h;
    }
}

TensorRing::TensorRing(const Communicator& communicator, const TensorSlices& slices, const CycleRank& options,
                       int start)
    : communicator_(communicator),
      slices_(slices),
      k_(static_cast<Index>(options.rank)),
      sampled_rows_(options.sampled_rows),
      seed_(options.seed),
      start_(start) {
  const RandomStream random(seed_, Purpose::experiment_start);
  double entries = std::pow(static_cast<double>(k_), 3);  // the variance of tr(U_a V_b W_c) of N(0, 1)
  for (const Index side : slices.sides) entries *= static_cast<double>(side);
  for (int mode = 0; mode < 3; ++mode) {
    MatrixXd& factor = factors_[static_cast<std::size_t>(mode)];
    factor.resize(k_ * k_, slices.sides[static_cast<std::size_t>(mode)]);
    random.normals(std::int64_t{3} * start + mode, span_of(factor));
    factor *= std::pow(entries, -1.0 / 6);  // |fit| is about 1, as |A|
    if (sampled_rows_ > 0) renew_chances(mode);
  }
}

Index TensorRing::stride(int mode) const {
  return mode == 0 ? slices_.sides[1] * slices_.sides[2] : mode == 1 ? slices_.sides[2] : 1;
}

void TensorRing::renew_chances(int mode) {
  const MatrixXd& factor = factors_[static_cast<std::size_t>(mode)];
  const Index n = factor.cols();
  VectorXd scores(n);
  if (communicator_.is_root()) {
    const ThinSvd svd = thin_svd(factor.transpose());
    scores = svd.U.leftCols(svd.rank()).rowwise().squaredNorm();
  }
  communicator_.broadcast(span_of(scores));
  const double sum = scores.sum(), uniform = 1 / static_cast<double>(n);
  const bool usable = std::isfinite(sum) && sum > 0;
  Chances& chances = chances_[static_cast<std::size_t>(mode)];
  chances.shares = VectorXd::Constant(n, uniform);
  if (usable) chances.shares = (0.9 / sum) * scores.array() + 0.1 * uniform;
  chances.cumulative = chances.shares;
  for (Index j = 1; j < n; ++j) chances.cumulative[j] += chances.cumulative[j - 1];
}

std::vector<TensorRing::Equation> TensorRing::drawn(int mode) const {
  const RandomStream random(seed_, Purpose::experiment_signs, static_cast<std::uint32_t>(start_));
  const int axes[] = {(mode + 1) % 3, (mode + 2) % 3};
  std::vector<Equation> equations;
  for (std::int64_t draw = 0; draw < sampled_rows_; ++draw) {
    Index places[2];
    double share = static_cast<double>(sampled_rows_);
    bool is_own = true;
    for (int k = 0; k < 2; ++k) {
      const Chances& chances = chances_[static_cast<std::size_t>(axes[k])];
      const VectorXd& cumulative = chances.cumulative;
      const double u =
          random.uniform(step_, static_cast<std::uint32_t>(2 * draw + k)) * cumulative[cumulative.size() - 1];
      const auto above = std::upper_bound(cumulative.begin(), cumulative.end(), u);
      places[k] = std::min<Index>(above - cumulative.begin(), cumulative.size() - 1);
      share *= chances.shares[places[k]];
      if (axes[k] == 0) is_own = places[k] >= slices_.first && places[k] < slices_.first + slices_.count;
    }
    if (is_own) equations.push_back({places[0], places[1], 1 / std::sqrt(share)});
  }
  return equations;
}

void TensorRing::add(int mode, std::span<const Equation> equations, NormalEquations& sums) const {
  const auto axis = static_cast<std::size_t>(mode), next = (axis + 1) % 3, last = (axis + 2) % 3;
  const Index size = std::ssize(equations), first = mode == 0 ? slices_.first : 0;
  const Index count = mode == 0 ? slices_.count : slices_.sides[axis];
  const auto place = [&](std::size_t of, Index index) {
    return (index - (of == 0 ? slices_.first : 0)) * stride(static_cast<int>(of));
  };
  MatrixXd M = MatrixXd::Zero(k_ * k_, size), left(size, count);
  std::vector<const double*> entries(equations.size());
  for (Index e = 0; e < size; ++e) {
    const Equation& equation = equations[static_cast<std::size_t>(e)];
    add_ring_product(k_, factors_[next].col(equation.first).data(), factors_[last].col(equation.second).data(),
                     equation.weight, M.col(e).data());
    entries[static_cast<std::size_t>(e)] = slices_.entries + place(next, equation.first) + place(last, equation.second);
  }
  const Index step = stride(mode);
  for (Index f = 0; f < count; ++f)
    for (Index e = 0; e < size; ++e) {
      const auto k = static_cast<std::size_t>(e);
      left(e, f) = equations[k].weight * entries[k][f * step];
    }
  left -= transposed_times(M, factors_[axis].middleCols(first, count));
  sums.squares += left.squaredNorm();
  if (sums.gram.size() == 0) return;
  add_times(M, left, sums.right.middleCols(first, count));
  if (mode != 0 || communicator_.is_root()) add_gram_of_rows(M, sums.gram);  // for U all ranks have the same equations
}

void TensorRing::add_all(int mode, NormalEquations& sums) const {
  const int next = (mode + 1) % 3, last = (mode + 2) % 3, outer = std::min(next, last), inner = std::max(next, last);
  const Index begin = outer == 0 ? slices_.first : 0;
  const Index end = outer == 0 ? slices_.first + slices_.count : slices_.sides[static_cast<std::size_t>(outer)];
  std::vector<Equation> equations;
  for (Index i = begin; i < end; ++i)
    for (Index j = 0; j < slices_.sides[static_cast<std::size_t>(inner)]; ++j) {
      equations.push_back(next == outer ? Equation{i, j, 1} : Equation{j, i, 1});
      if (equations.size() < kEquationsAtOnce) continue;
      add(mode, equations, sums);
      equations.clear();
    }
  if (!equations.empty()) add(mode, equations, sums);
}

double TensorRing::renew(int mode) {
  const Index columns = k_ * k_;
  MatrixXd& factor = factors_[static_cast<std::size_t>(mode)];
  NormalEquations sums{MatrixXd::Zero(columns, columns), MatrixXd::Zero(columns, factor.cols())};
  if (sampled_rows_ > 0) {
    const auto equations = drawn(mode);
    for (std::size_t done = 0; done < equations.size(); done += kEquationsAtOnce)
      add(mode, std::span(equations).subspan(done, std::min(kEquationsAtOnce, equations.size() - done)), sums);
  } else {
    add_all(mode, sums);
  }
  ++step_;
  VectorXd message(sums.right.size() + sums.gram.size() + 1);
  message << sums.right.reshaped(), sums.gram.reshaped(), sums.squares;
  communicator_.sum(span_of(message));
  MatrixXd change(columns, factor.cols());
  if (communicator_.is_root())
    change = pseudo_solution(message.segment(change.size(), columns * columns).reshaped(columns, columns),
                             message.head(change.size()).reshaped(columns, change.cols()));
  communicator_.broadcast(span_of(change));
  factor += change;
  if (sampled_rows_ > 0) renew_chances(mode);
  return message[message.size() - 1];
}

double TensorRing::sweep() {
  double squares = 0;
  for (int mode = 0; mode < 3; ++mode) squares += renew(mode) / 3;
  balance();
  return std::sqrt(squares);
}

/// The factors have the same norm, and the same product.
void TensorRing::balance() {
  const double norms[] = {factors_[0].norm(), factors_[1].norm(), factors_[2].norm()};
  const double mean = std::cbrt(norms[0]) * std::cbrt(norms[1]) * std::cbrt(norms[2]);
  if (!(mean > 0) || !std::isfinite(mean)) return;
  for (std::size_t mode = 0; mode < 3; ++mode) factors_[mode] *= mean / norms[mode];
}

double TensorRing::residual() const {
  NormalEquations sums;
  add_all(0, sums);
  return std::sqrt(communicator_.sum(sums.squares));
}

}  // namespace attnreg::experiments
