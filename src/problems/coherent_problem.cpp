#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "algebra/dense_factors.hpp"
#include "numbers/exact_sum.hpp"
#include "problems/problem_work.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

struct RowNorm {
  double squared;
  std::int64_t row;
};

/// Larger norms first, equal ones by row.
bool is_before(const RowNorm& left, const RowNorm& right) {
  return left.squared != right.squared ? left.squared > right.squared : left.row < right.row;
}

/// Collective. The `count` rows of largest norm, in order. Each rank offers its own `count` largest.
std::vector<RowNorm> largest_rows(const ProblemWork& work, const VectorXd& squared_norms, Index count) {
  std::vector<RowNorm> candidates;
  for (Index i = 0; i < work.rows_local(); ++i) candidates.push_back({squared_norms[i], work.first_row() + i});
  const auto keep = [count](std::vector<RowNorm>& rows) {
    const auto end = rows.begin() + std::min<std::ptrdiff_t>(count, std::ssize(rows));
    std::partial_sort(rows.begin(), end, rows.end(), is_before);
    rows.erase(end, rows.end());
  };
  keep(candidates);
  std::vector<double> offered;  // rows below 2^40 are exact in double
  for (const auto& candidate : candidates)
    offered.insert(offered.end(), {candidate.squared, static_cast<double>(candidate.row)});
  offered = work.communicator().all_gather(std::span<const double>(offered));
  candidates.clear();
  for (std::size_t k = 0; k < offered.size(); k += 2)
    candidates.push_back({offered[k], static_cast<std::int64_t>(offered[k + 1])});
  keep(candidates);
  return candidates;
}

/// Collective. 1 / sum softmax(scale z)^2, from n at scale 0 down to 1.
double effective_rows(const ProblemWork& work, const VectorXd& z, double z_max, double scale) {
  ExactSum sums(2, static_cast<double>(work.rows_global()), work.rows_global());
  for (const double value : z) {
    const double weight = std::exp(scale * (value - z_max));
    sums.add(0, weight);
    sums.add(1, weight * weight);
  }
  sums.reduce(work.communicator());
  const VectorXd total = sums.values();
  return total[0] * total[0] / total[1];
}

}  // namespace

VectorXd orthogonal_solution(const ProblemWork& work, ProblemFacts& facts) {
  VectorXd norms(work.rows_local());
  work.for_each_block([&](Index first_local, const RowMajorMatrix& rows) {
    norms.segment(first_local, rows.rows()) = rows.rowwise().squaredNorm();
  });
  const Index count = static_cast<Index>(std::min(work.rows_global(), work.options().columns) / 4);
  const auto top = largest_rows(work, norms, count);
  const double total = work.sum(norms);
  facts.row_norm2_max_over_mean = work.max(norms) / (total / static_cast<double>(work.rows_global()));
  double share = 0;
  for (const auto& row : top) share += row.squared;
  facts.row_norm2_top_quarter_d_share = share / total;

  VectorXd x = work.source().solution();
  if (count == 0) return x;
  work.communicator().agree_on_root([&] {
    MatrixXd directions(work.columns(), count);
    RowMajorMatrix row(1, work.columns());
    for (Index k = 0; k < count; ++k) {
      work.source().fill(top[static_cast<std::size_t>(k)].row, row);
      directions.col(k) = row.transpose().normalized();
    }
    const MatrixXd Q = orthonormal_columns(std::move(directions));
    x -= Q * (Q.transpose() * x);
  });
  work.communicator().broadcast(span_of(x));
  return x;
}

double scale_for_effective_rows(const ProblemWork& work, const VectorXd& z) {
  if (work.rows_global() == 1) return 1;
  const double half = 0.5 * (static_cast<double>(work.rows_global()) + 1);
  const double target = std::min(work.options().neff, half), z_max = work.max(z);
  double low = 0, high = 1;
  for (int k = 0; k < 64 && effective_rows(work, z, z_max, high) > target; ++k) {
    low = high;
    high *= 2;
  }
  for (int k = 0; k < 60; ++k) {
    const double middle = 0.5 * (low + high), found = effective_rows(work, z, z_max, middle);
    if (std::abs(found - target) <= 1e-10 * target) return middle;
    (found > target ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

}  // namespace attnreg
