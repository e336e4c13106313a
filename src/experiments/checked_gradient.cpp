#include <numeric>
#include <string>

#include "attnreg/row_matrix.hpp"
#include "errors/printable.hpp"
#include "experiments/experiments.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::experiments {

namespace {

/// min 1/2 |softmax(A x) - b|^2; every rank can make any row again, as the checks need.
struct Shared {
  RowMajorMatrix A;
  VectorXd b;
  int blocks;

  Index begin(int block) const { return A.rows() * block / blocks; }
  Index rows(int block) const { return begin(block + 1) - begin(block); }
};

VectorXd softmax(const RowMajorMatrix& A, const VectorXd& x) {
  const VectorXd z = A * x, e = (z.array() - z.maxCoeff()).exp();
  return e / e.sum();
}

Shared make_problem(const CheckedGradient& options) {
  const auto n = static_cast<Index>(options.rows), d = static_cast<Index>(options.columns);
  const RandomStream random(options.seed, Purpose::experiment_data);
  Shared problem{RowMajorMatrix(n, d), {}, options.blocks};
  random.normal_rows(0, problem.A);
  VectorXd x(d);
  random.normals(n, span_of(x));
  problem.b = softmax(problem.A, x);
  return problem;
}

/// q of the gradient A^T q at x.
VectorXd row_weights(const Shared& problem, const VectorXd& x) {
  const VectorXd f = softmax(problem.A, x), c = f - problem.b;
  return f.cwiseProduct(c) - f.dot(c) * f;
}

/// What a block adds to the gradient, summed forwards or, by who checks, backwards: other roundings, as on another
/// machine.
VectorXd contribution(const Shared& problem, const VectorXd& q, int block, bool backwards) {
  VectorXd sum = VectorXd::Zero(problem.A.cols());
  const Index count = problem.rows(block);
  for (Index k = 0; k < count; ++k) {
    const Index i = problem.begin(block) + (backwards ? count - 1 - k : k);
    sum += q[i] * problem.A.row(i).transpose();
  }
  return sum;
}

/// sum |q_i| |a_i|_1: what roundings are relative to.
double size_of(const Shared& problem, const VectorXd& q, int block) {
  const Index first = problem.begin(block), count = problem.rows(block);
  return problem.A.middleRows(first, count).rowwise().lpNorm<1>().dot(q.segment(first, count).cwiseAbs());
}

/// `count` different blocks.
std::vector<int> drawn_blocks(const RandomStream& random, std::int64_t index, int blocks, std::int64_t count) {
  std::vector<int> all(static_cast<std::size_t>(blocks));
  std::iota(all.begin(), all.end(), 0);
  for (int k = 0; k < count; ++k) {
    const auto other = k + static_cast<int>(random.uniform(index, static_cast<std::uint32_t>(k)) * (blocks - k));
    std::swap(all[static_cast<std::size_t>(k)], all[static_cast<std::size_t>(other)]);
  }
  all.resize(static_cast<std::size_t>(count));
  return all;
}

struct Tally {
  double steps = 0, missed = 0, false_alarms = 0, honest_difference = 0;
};

class Descent {
 public:
  Descent(const Communicator& communicator, const Shared& problem, const CheckedGradient& options)
      : communicator_(communicator), problem_(problem), options_(options) {}

  /// Collective. Runs until the forger is found.
  void run(int trial, std::int64_t checks, Tally& tally) const {
    const RandomStream random(options_.seed, Purpose::experiment_signs, static_cast<std::uint32_t>(trial));
    const int forger = static_cast<int>(random.uniform(0) * options_.blocks);
    VectorXd x = VectorXd::Zero(problem_.A.cols());
    for (int step = 1; step <= options_.most_steps; ++step) {
      const VectorXd q = row_weights(problem_, x);
      const MatrixXd parts = reported(q, forger);
      const VectorXd flags = checked(parts, q, drawn_blocks(random, step, options_.blocks, checks), forger, tally);
      for (int block = 0; block < options_.blocks; ++block)
        if (block != forger && flags[block] > 0) ++tally.false_alarms;
      if (flags[forger] > 0) {
        tally.steps += step;
        return;
      }
      x -= kStep * parts.rowwise().sum();
    }
    tally.steps += options_.most_steps;
    ++tally.missed;
  }

 private:
  /// |Hess| <= 1/2 |A|^2 or so and |A|^2 is about n; f is about 1 / n, so a step of 1 descends safely.
  static constexpr double kStep = 1;

  /// Collective. One column per block, made by its owner.
  MatrixXd reported(const VectorXd& q, int forger) const {
    MatrixXd parts = MatrixXd::Zero(problem_.A.cols(), options_.blocks);
    for (int block = communicator_.rank(); block < options_.blocks; block += communicator_.size()) {
      parts.col(block) = contribution(problem_, q, block, false);
      if (block == forger) parts.col(block).array() += options_.forgery * parts.col(block).norm();
    }
    communicator_.sum(span_of(parts));
    return parts;
  }

  /// Collective. 1 for the drawn blocks whose parts are not what another rank makes of them.
  VectorXd checked(const MatrixXd& parts, const VectorXd& q, const std::vector<int>& drawn, int forger,
                   Tally& tally) const {
    VectorXd flags = VectorXd::Zero(options_.blocks);
    double honest = 0;
    for (const int block : drawn) {
      if ((block + 1) % communicator_.size() != communicator_.rank()) continue;
      const double size = size_of(problem_, q, block);
      const double difference = (parts.col(block) - contribution(problem_, q, block, true)).lpNorm<1>();
      // Two sums of so many terms differ by less than twice their number of roundings, relative to their absolute sum.
      const double tolerance = 2 * static_cast<double>(problem_.rows(block) + 2) * 2.3e-16;
      flags[block] = difference <= tolerance * size ? 0 : 1;
      if (block != forger && size > 0) honest = std::max(honest, difference / size);
    }
    communicator_.sum(span_of(flags));
    tally.honest_difference = std::max(tally.honest_difference, communicator_.max(honest));
    return flags;
  }

  const Communicator& communicator_;
  const Shared& problem_;
  const CheckedGradient& options_;
};

}  // namespace

Table checked_gradient(const Communicator& communicator, const CheckedGradient& options) {
  const Shared problem = make_problem(options);
  Table table{"checked-gradient",
              "Gradient descent with one forger of " + std::to_string(options.blocks) + " contributors, forgery " +
                  text_of(options.forgery),
              {"checks", "steps", "expected", "missed", "false_alarms", "honest_difference"},
              {},
              {"steps: mean number until the forger is found; expected: blocks / checks; missed: trials without",
               "honest_difference: the largest of an honest part made again, relative; smaller forgeries pass"}};
  for (const std::int64_t checks : options.checks) {
    Tally tally;
    for (int trial = 0; trial < options.trials; ++trial)
      Descent(communicator, problem, options).run(trial, checks, tally);
    table.rows.push_back({static_cast<double>(checks), tally.steps / options.trials,
                          static_cast<double>(options.blocks) / static_cast<double>(checks), tally.missed,
                          tally.false_alarms, tally.honest_difference});
  }
  return table;
}

}  // namespace attnreg::experiments
