#include "app/node/node_facts.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "app/report/text.hpp"
#include "attnreg/regression.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::app {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr std::int64_t kRows = 2000;
constexpr Eigen::Index kColumns = 20;
constexpr double kWeight = 1e-4;

/// Rows N(0, 1), b = softmax of the sum of a row's first two entries: a fit that a solver finds exactly but for w.
RowMajorMatrix random_rows(const RowPartition& partition, int rank) {
  RowMajorMatrix rows(partition.rows_local(rank), kColumns);
  RandomStream(1, Purpose::problem_rows).normal_rows(partition.begin(rank), rows);
  return rows;
}

/// softmax(A x), this rank's rows, by the definition; |z| is small here, so exp needs no shift.
Eigen::VectorXd softmax(const Communicator& communicator, const RowMajorMatrix& rows, const Eigen::VectorXd& x) {
  const Eigen::VectorXd exponentials = (rows * x).array().exp();
  return exponentials / communicator.sum(exponentials.sum());
}

/// A^T [(diag(f) - f f^T) (f - b) + w^2 A x], d numbers.
Eigen::VectorXd gradient(const Communicator& communicator, const RowMajorMatrix& rows, const Eigen::VectorXd& b,
                         const Eigen::VectorXd& x) {
  const Eigen::VectorXd f = softmax(communicator, rows, x);
  const double centre = communicator.sum(f.dot(f - b));
  const Eigen::VectorXd q = f.array() * ((f - b).array() - centre);
  Eigen::VectorXd g = rows.transpose() * (q + kWeight * kWeight * (rows * x));
  communicator.sum(span_of(g));
  return g;
}

void solve(const Communicator& communicator, SelfTest& test) {
  const auto partition = RowPartition::tiled(kRows, kColumns, communicator.size());
  const RowMajorMatrix rows = random_rows(partition, communicator.rank());
  Eigen::VectorXd truth = Eigen::VectorXd::Zero(kColumns);
  truth.head(2).setOnes();
  const Eigen::VectorXd b = softmax(communicator, rows, truth);
  const Eigen::VectorXd w = Eigen::VectorXd::Constant(rows.rows(), kWeight);
  const auto result = solve_regression(RowMatrix::view(communicator, partition, rows.data(), kColumns), b, w, {});

  const double reference = gradient(communicator, rows, b, Eigen::VectorXd::Zero(kColumns)).norm();
  const double relative = gradient(communicator, rows, b, result.x).norm() / reference;
  const bool same = communicator.is_replicated({result.x.data(), static_cast<std::size_t>(result.x.size())});
  const bool converged = result.summary.termination == Termination::converged ||
                         result.summary.termination == Termination::converged_rounding;
  // The solver stops at 1e-10; the definition above loses up to sqrt(n) eps |A| |q| / |g(0)|, about 1e-11.
  test.right = converged && same && relative <= 1e-9;
  test.found = std::string(termination_name(result.summary.termination)) +
               ", |g| / |g(0)| = " + scientific(relative, 2) + " by the definition" +
               (same ? "" : ", but x differs between the ranks");
}

/// All ranks read 64 MB each, at the same time, a few times; the best. The second barrier counts ranks that share a
/// core.
double read_bandwidth(const Communicator& communicator) {
  const std::vector<double> numbers(std::size_t{8} << 20, 1.0);
  const double bytes = 8.0 * static_cast<double>(numbers.size()) * communicator.size();
  double best = 0, total = 0;
  for (int k = 0; k < 8; ++k) {
    communicator.barrier();
    const auto start = Clock::now();
    double sums[8] = {};  // independent, so that the additions do not wait for each other
    for (std::size_t i = 0; i < numbers.size(); i += 8)
      for (std::size_t j = 0; j < 8; ++j) sums[j] += numbers[i + j];
    communicator.barrier();
    total += std::accumulate(std::begin(sums), std::end(sums), 0.0);
    best = std::max(best, bytes / communicator.max(seconds_since(start)));
  }
  return total > 0 ? best : 0;
}

/// Median of the time of an all-reduce; at most `limit_seconds` in all.
double reduction_seconds(const Communicator& communicator, std::size_t doubles, double limit_seconds) {
  std::vector<double> numbers(doubles, 0.0);  // sums of sums of other numbers would grow without limit
  std::vector<double> times;
  const auto begin = Clock::now();
  // Whether to go on is rank 0's decision, for the clocks differ; it travels in the numbers.
  do {
    const auto start = Clock::now();
    numbers[0] = communicator.is_root() && seconds_since(begin) > limit_seconds ? 1 : 0;
    communicator.sum(numbers);
    times.push_back(seconds_since(start));
  } while (numbers[0] == 0 && times.size() < 200);
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2));
  return times[times.size() / 2];
}

}  // namespace

SelfTest self_test(const Communicator& communicator) {
  const auto start = Clock::now();
  SelfTest test;
  solve(communicator, test);
  test.bytes_per_second = read_bandwidth(communicator);
  test.reduction_seconds = communicator.max(reduction_seconds(communicator, 1, 0.3));
  test.long_reduction_seconds = communicator.max(reduction_seconds(communicator, std::size_t{1} << 17, 0.5));
  test.seconds = communicator.max(seconds_since(start));
  return test;
}

}  // namespace attnreg::app
