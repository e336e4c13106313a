#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "experiments/experiments.hpp"
#include "numbers/random.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::experiments {

namespace {

/// `count` rows of N(0, I), functions of (seed, purpose, first + row).
RowMajorMatrix normal_rows(std::uint64_t seed, Purpose purpose, std::int64_t first, Index count, Index columns) {
  RowMajorMatrix rows(count, columns);
  RandomStream(seed, purpose).normal_rows(first, rows);
  return rows;
}

/// Exponents beyond the range of double give infinities and NaN, which end an iteration.
struct Eigenvalues {
  double least = 0, largest = 0;
  double rate() const { return 1 - least / largest; }
};

/// Collective.
Eigenvalues eigenvalues_of(const Communicator& communicator, const MatrixXd& symmetric) {
  const VectorXd values = symmetric_eigen(symmetric, false).values;
  double extremes[] = {values[0], values[values.size() - 1]};
  communicator.broadcast(std::span<double>(extremes));
  return {extremes[0], extremes[1]};
}

/// Collective. Of <x_i, x_j> e^{|x_i + x_j|^2 / 2}.
Eigenvalues limit_eigenvalues(const Communicator& communicator, const RowMajorMatrix& X) {
  const MatrixXd G = X * X.transpose();  // |x_i + x_j|^2 / 2 = 1 + <x_i, x_j>
  return eigenvalues_of(communicator, G.cwiseProduct(MatrixXd((1 + G.array()).exp())));
}

/// F(x) = sum_r a_r e^{<w_r, x>} at given points; this rank's neurons. Where not said otherwise the calls are
/// collective.
class Network {
 public:
  Network(const Communicator& communicator, const Points& points, std::int64_t width, std::uint64_t seed)
      : communicator_(communicator), points_(points) {
    const auto shares = RowPartition::in_blocks(width, 1, communicator.size());
    const std::int64_t first = shares.begin(communicator.rank());
    const Index count = shares.rows_local(communicator.rank());
    W_ = start_ = normal_rows(seed, Purpose::experiment_start, first, count, points.X.cols());
    signs_.resize(count);
    const RandomStream random(seed, Purpose::experiment_signs);
    for (Index r = 0; r < count; ++r) signs_[r] = random.bits(first + r)[0] & 1 ? 1 : -1;
    evaluate();
  }

  const VectorXd& left() const { return left_; }  ///< F - y
  double error() const { return left_.stableNorm(); }

  /// m H_ij = <x_i, x_j> sum_r e^{<w_r, x_i + x_j>}
  MatrixXd kernel() const {
    MatrixXd H = E_.transpose() * E_;
    communicator_.sum(span_of(H));
    return H.cwiseProduct(points_.X * points_.X.transpose());
  }

  /// w_r -= a_r sum_i change_i e^{<w_r, x_i>} x_i
  void move(const VectorXd& change) {
    W_ -= signs_.asDiagonal() * (E_ * change.asDiagonal()) * points_.X;
    evaluate();
  }

  /// A Gauss-Newton step; whether it lowered |F - y|.
  bool improve() {
    MatrixXd H = kernel();
    VectorXd change(left_.size());
    if (communicator_.is_root()) change = pseudo_solution(H, left_);  // singular where points depend on each other
    communicator_.broadcast(span_of(change));
    if (!change.allFinite()) return false;
    const Network before = *this;
    constexpr double kLeastStep = 1e-6;
    for (double step = 1; step > kLeastStep; step /= 2) {
      move(step * change);
      if (error() < before.error()) return true;
      W_ = before.W_;
      E_ = before.E_;
      left_ = before.left_;
    }
    return false;
  }

  /// max |w_r - w_r(0)|
  double movement() const {
    const RowMajorMatrix moved = W_ - start_;
    double largest = 0;
    for (const auto& neuron : moved.rowwise()) largest = std::max(largest, neuron.stableNorm());
    return communicator_.max(largest);
  }

 private:
  void evaluate() {
    E_ = W_ * points_.X.transpose();
    const auto all = span_of(E_);
    kernels::exp(all, all);
    left_ = E_.transpose() * signs_;
    communicator_.sum(span_of(left_));
    left_ -= points_.y;
  }

  const Communicator& communicator_;
  const Points& points_;
  RowMajorMatrix W_, start_, E_;  ///< E: e^{<w_r, x_i>}
  VectorXd signs_, left_;
};

/// Collective. Trains one width; a row of the table.
std::vector<double> train(const Communicator& communicator, const Points& points, const ExponentialNetwork& options,
                          double kernel_bound, std::int64_t m) {
  Network network(communicator, points, m, options.seed);
  const Eigenvalues eigenvalues = eigenvalues_of(communicator, network.kernel());  // of m H
  const double first = network.error();
  int steps = 0;
  while (network.error() > options.residual && std::isfinite(network.error()) && steps < options.most_steps) {
    if (options.gauss_newton && !network.improve()) break;
    if (!options.gauss_newton) network.move(network.left() / eigenvalues.largest);
    ++steps;
    InWork::add(1);
  }
  const double now = network.error(), rate = steps > 0 ? std::pow(now / first, 1.0 / steps) : 0;
  return {static_cast<double>(m), first,       now, static_cast<double>(steps), network.movement(), rate,
          eigenvalues.rate(),     kernel_bound};
}

/// Collective. Whether gradient descent lowers |F - y| as much as it should in so many steps, from one start.
bool converges(const Communicator& communicator, const Points& points, double reduction, std::uint64_t seed,
               std::int64_t m, double steps) {
  Network network(communicator, points, m, seed);
  const double largest = eigenvalues_of(communicator, network.kernel()).largest, goal = reduction * network.error();
  if (!(largest > 0)) return false;
  for (double step = 0; network.error() > goal; ++step) {
    if (step >= steps || !std::isfinite(network.error())) return false;
    network.move(network.left() / largest);
  }
  return std::isfinite(network.error());
}

/// Collective. The smallest width with which it does; infinity if there is none up to 2^22.
double smallest_width(const Communicator& communicator, const Points& points, double reduction, std::uint64_t seed,
                      double steps) {
  constexpr std::int64_t kLargest = std::int64_t{1} << 22;
  const auto works = [&](std::int64_t m) { return converges(communicator, points, reduction, seed, m, steps); };
  std::int64_t fails = 0, least = 1;
  while (!works(least)) {
    fails = least;
    least *= 2;
    if (least > kLargest) return std::numeric_limits<double>::infinity();
  }
  while (least - fails > std::max<std::int64_t>(1, least / 20)) {
    const std::int64_t middle = fails + (least - fails) / 2;
    (works(middle) ? least : fails) = middle;
  }
  return static_cast<double>(least);
}

}  // namespace

Points random_points(std::int64_t count, std::int64_t dimension, bool labels, std::uint64_t seed) {
  Points points{normal_rows(seed, Purpose::experiment_data, 0, count, dimension),
                normal_rows(seed, Purpose::experiment_data, count, 1, count).transpose()};
  points.X.rowwise().normalize();
  if (labels) points.y = (points.X.col(0).array() < 0).select(VectorXd::Constant(count, -1), VectorXd::Ones(count));
  return points;
}

Points unit_points(RowMajorMatrix X, VectorXd y) {
  require(X.rows() == y.size(), "X has " + std::to_string(X.rows()) + " rows, and y " + std::to_string(y.size()) +
                                    " values; expected one for each row");
  for (Index i = 0; i < X.rows(); ++i) {
    const double largest = X.row(i).cwiseAbs().maxCoeff();
    require(largest > 0, "row " + std::to_string(i) + " of X (counted from 0) is 0, and cannot be scaled to length 1");
    X.row(i) /= largest;
    X.row(i) /= X.row(i).norm();
  }
  return {std::move(X), std::move(y)};
}

Table exponential_network(const Communicator& communicator, const Points& points, const ExponentialNetwork& options) {
  const double kernel_bound = limit_eigenvalues(communicator, points.X).rate();
  Table table{options.gauss_newton ? "exp-network-gauss-newton" : "exp-network",
              "Over-parameterised exponential regression by " +
                  std::string(options.gauss_newton ? "Gauss-Newton" : "gradient descent") + ", " +
                  std::to_string(points.X.rows()) + " points in " + std::to_string(points.X.cols()) +
                  " dimensions, stopped at |F - y| <= " + text_of(options.residual),
              {"width", "initial", "final", "steps", "movement", "rate", "bound", "kernel_bound"},
              {},
              {"movement: of the neuron that moved farthest; wider networks move less",
               "rate: mean factor of |F - y| a step; bound: 1 - lambda_min / lambda_max of the kernel matrix H at the "
               "start, of a linear model; kernel_bound: of its limit of infinite width"}};
  const InWork training("training", "steps",
                        static_cast<double>(options.widths.size()) * static_cast<double>(options.most_steps));
  for (const std::int64_t m : options.widths)
    table.rows.push_back(train(communicator, points, options, kernel_bound, m));
  const auto converged = [&](const std::vector<double>& row) { return row[2] <= options.residual && row[3] > 0; };
  if (converged(table.rows.front()) && converged(table.rows.back()) && table.rows.front()[0] != table.rows.back()[0]) {
    const auto ratio = [&](std::size_t column) { return std::log(table.rows.back()[column] / table.rows[0][column]); };
    table.reading.push_back("from the first to the last width the movement goes as m^" + text_of(ratio(4) / ratio(0)));
  }
  return table;
}

Table smallest_widths(const Communicator& communicator, const Points& points, const SmallestWidths& options) {
  Table table{"exp-network-widths",
              "Smallest width with which gradient descent lowers |F - y|^2 by 1 - lambda_min / (2 lambda_max) a step, "
              "until |F - y| is " +
                  text_of(options.reduction) + " of its start: median of " + std::to_string(options.starts) + " starts",
              {"points", "width", "least", "most", "steps", "slope"},
              {},
              {"least, most: of the starts; steps: that this allows; slope: of ln width against ln points since the "
               "first row, at most 2 in the source"}};
  const InWork searching("search", "starts", static_cast<double>(options.counts.size()) * options.starts);
  for (const std::int64_t n : options.counts)
    require(n >= 1 && n <= points.X.rows(),
            "there are " + std::to_string(points.X.rows()) + " points, not " + std::to_string(n));
  for (const std::int64_t n : options.counts) {
    const Points part{points.X.topRows(n), points.y.head(n)};
    const Eigenvalues limit = limit_eigenvalues(communicator, part.X);
    const double steps = std::ceil(2 * std::log(options.reduction) / std::log1p(-limit.least / (2 * limit.largest)));
    require(limit.least > 1e-12 * limit.largest, "the kernel of the first " + std::to_string(n) +
                                                     " points is singular; are two of them the same direction?");
    std::vector<double> widths;
    for (int start = 0; start < options.starts; ++start) {
      widths.push_back(smallest_width(communicator, part, options.reduction,
                                      options.seed + static_cast<std::uint64_t>(start), steps));
      InWork::add(1);
    }
    std::ranges::sort(widths);
    const double width = widths[widths.size() / 2];
    double slope = std::nan("");
    if (!table.rows.empty())
      slope = std::log(width / table.rows[0][1]) / std::log(static_cast<double>(n) / table.rows[0][0]);
    table.rows.push_back({static_cast<double>(n), width, widths.front(), widths.back(), steps, slope});
  }
  return table;
}

}  // namespace attnreg::experiments
