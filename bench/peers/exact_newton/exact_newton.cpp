// Newton's method with a matrix that is formed by dsyrk and factorised by Cholesky: what a good engineer writes in a
// day.
//
//   --hessian exact      the Hessian; if it is not positive definite, H + tau I with tau grown geometrically
//   --hessian gn         the Gauss-Newton matrix, always positive semidefinite
//   --hessian gn-trunc   the same, but A^T W^2 A is formed once and then only the rows of largest f_i^2 enter; those
//   left
//                        out sum to at most theta sum w^2 (--theta). A deterministic stand-in for sampling: it assumes
//                        that no dropped row has a high leverage
//
// The line search runs on z + t A p: a trial costs O(n) and no read of A. Once the decrease is below rounding, the
// slope along p is tested in its place.
//
// usage: exact_newton DIR [--hessian exact|gn|gn-trunc] [--theta 1] [--rtol 1e-10] [--time-limit 60] [--x0 FILE]
//        [--out FILE]
#include <Eigen/Cholesky>
#include <Eigen/Core>

#include "../kernels/run.hpp"

namespace peers {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// The largest t for which the f_i^2 below t sum to at most `budget`, up to a factor 2^(1/4) (a histogram of log2).
double drop_threshold(const Vector& f, double budget) {
  constexpr int bins = 4096, per_octave = 4;
  Vector histogram(bins, 0.0);
#pragma omp parallel
  {
    Vector mine(bins, 0.0);
#pragma omp for
    for (std::size_t i = 0; i < f.size(); ++i) {
      const double square = f[i] * f[i];
      const int bin = square > 0 ? bins - 1 + int(std::floor(per_octave * std::log2(square))) : 0;
      mine[std::size_t(std::clamp(bin, 0, bins - 1))] += square;
    }
#pragma omp critical
    for (std::size_t k = 0; k < bins; ++k) histogram[k] += mine[k];
  }
  double sum = 0;
  int bin = 0;
  while (bin < bins && sum + histogram[std::size_t(bin)] <= budget) sum += histogram[std::size_t(bin++)];
  return std::exp2(double(bin - (bins - 1)) / per_octave);
}

class ExactNewton {
 public:
  ExactNewton(Problem& problem, const Settings& settings)
      : problem_(problem),
        settings_(settings),
        kind_(settings.own.at("--hessian")),
        theta_(std::stod(settings.own.at("--theta"))),
        H_(problem.d, problem.d),
        u_(problem.rows()),
        trial_z_(problem.rows()),
        trial_f_(problem.rows()) {
    if (kind_ != "exact" && kind_ != "gn" && kind_ != "gn-trunc")
      throw std::runtime_error("--hessian: exact, gn or gn-trunc, not " + kind_);
  }

  Report solve(Vector& x, Progress& progress) {
    Report report;
    report.peer = "exact-newton-" + kind_;
    evaluate(x, progress);
    for (;; ++report.iterations) {
      if (norm(point_.gradient) <= settings_.rtol * progress.reference) {
        report.status = "converged";
        break;
      }
      if (progress.seconds() > settings_.time_limit) {
        report.status = "time limit";
        break;
      }
      form_matrix();
      if (!find_direction()) {
        report.status = "stalled: no direction";
        break;
      }
      const double t = line_search();
      if (t == 0) {
        report.status = "stalled: line search";
        break;
      }
      for (std::size_t k = 0; k < x.size(); ++k) x[k] += t * p_[Eigen::Index(k)];
      evaluate(x, progress);
    }
    report.evaluations = evaluations_, report.hessians = hessians_, report.reads = reads_;
    report.value = point_.value, report.gradient_norm = norm(point_.gradient);
    return report;
  }

 private:
  void evaluate(const Vector& x, Progress& progress) {
    problem_.evaluate(x.data(), point_);
    ++evaluations_, ++reads_;
    progress.record(norm(point_.gradient), reads_);
  }

  void form_matrix() {
    if (kind_ == "gn-trunc") {
      if (penalty_.size() == 0) form_penalty();
      keep_large_rows();
      problem_.gram_pass(H_.data());
      H_ += penalty_;
    } else {
      if (kind_ == "exact")
        problem_.set_hessian_diagonal(point_.s);
      else
        problem_.set_gauss_newton_diagonal();
      problem_.gram_pass(H_.data());
      ++hessians_, ++reads_;
    }
    if (kind_ == "exact")
      point_.add_low_rank(H_.data());
    else
      point_.add_gauss_newton_low_rank(H_.data());
  }

  void form_penalty() {
    penalty_.resize(problem_.d, problem_.d);
    problem_.D = problem_.w_squared;
    problem_.gram_pass(penalty_.data());
    ++hessians_, ++reads_;
    for (double w_squared : problem_.w_squared) penalty_weight_ += w_squared;
  }

  void keep_large_rows() {
    const double threshold = drop_threshold(problem_.f, theta_ * penalty_weight_);
    long kept = 0;
#pragma omp parallel for reduction(+ : kept)
    for (std::size_t i = 0; i < problem_.rows(); ++i) {
      const double square = problem_.f[i] * problem_.f[i];
      problem_.D[i] = square >= threshold ? square : 0.0;
      kept += square >= threshold;
    }
    reads_ += double(kept) / double(problem_.n);
  }

  // p = -(H + shift I)^-1 g; no shift is always tried first.
  bool find_direction() {
    double shift = 0;
    for (int attempt = 0; attempt < 60; ++attempt) {
      Matrix factor = H_;
      factor.diagonal().array() += shift;
      const Eigen::LLT<Eigen::Ref<Matrix>> cholesky(factor);
      if (cholesky.info() == Eigen::Success) {
        p_ = cholesky.solve(-Eigen::Map<const Eigen::VectorXd>(point_.gradient.data(), problem_.d));
        if (p_.allFinite()) {
          if (shift > 0) last_shift_ = shift;
          return true;
        }
      }
      const double largest = H_.diagonal().cwiseAbs().maxCoeff();
      shift = shift > 0 ? 4 * shift : std::max(0.25 * last_shift_, 1e-8 * largest);
    }
    return false;
  }

  // The step length, 0 if there is none.
  double line_search() {
    problem_.multiply(p_.data(), u_.data());
    ++reads_;
    double slope = 0;
    for (int k = 0; k < problem_.d; ++k) slope += point_.gradient[std::size_t(k)] * p_[k];
    const double rounding = 1e-14 * std::fabs(point_.value);
    double t = 1;
    for (int trial = 0; trial < 60; ++trial, t *= 0.5) {
      double fitted_residual = 0;
      const double value = trial_value(t, fitted_residual);
      if (!std::isfinite(value)) continue;
      if (value <= point_.value + 1e-4 * t * slope) return t;
      if (value <= point_.value + rounding && std::fabs(trial_slope(fitted_residual)) <= 0.9 * std::fabs(slope))
        return t;
    }
    return 0;
  }

  // L at z + t u; leaves softmax of it in trial_f_, and <f, f - b>.
  double trial_value(double t, double& fitted_residual) {
    const std::size_t rows = problem_.rows();
    const Vector &z = problem_.z, &b = problem_.b, &w_squared = problem_.w_squared;
    double maximum = -std::numeric_limits<double>::infinity(), sum = 0, residual_squared = 0, penalty = 0, fitted = 0;
#pragma omp parallel for simd reduction(max : maximum)
    for (std::size_t i = 0; i < rows; ++i) {
      trial_z_[i] = z[i] + t * u_[i];
      maximum = std::max(maximum, trial_z_[i]);
    }
#pragma omp parallel for simd reduction(+ : sum, penalty)
    for (std::size_t i = 0; i < rows; ++i) {
      const double e = std::exp(trial_z_[i] - maximum);
      trial_f_[i] = e;
      sum += e, penalty += w_squared[i] * trial_z_[i] * trial_z_[i];
    }
    const double inverse = 1 / sum;
#pragma omp parallel for simd reduction(+ : residual_squared, fitted)
    for (std::size_t i = 0; i < rows; ++i) {
      const double f = trial_f_[i] * inverse, residual = f - b[i];
      trial_f_[i] = f;
      residual_squared += residual * residual, fitted += f * residual;
    }
    fitted_residual = fitted;
    return 0.5 * residual_squared + 0.5 * penalty;
  }

  double trial_slope(double fitted_residual) const {
    const Vector &b = problem_.b, &w_squared = problem_.w_squared;
    double slope = 0;
#pragma omp parallel for simd reduction(+ : slope)
    for (std::size_t i = 0; i < problem_.rows(); ++i)
      slope += (trial_f_[i] * ((trial_f_[i] - b[i]) - fitted_residual) + w_squared[i] * trial_z_[i]) * u_[i];
    return slope;
  }

  Problem& problem_;
  const Settings& settings_;
  std::string kind_;
  double theta_, last_shift_ = 0, penalty_weight_ = 0, reads_ = 0;
  long evaluations_ = 0, hessians_ = 0;
  Point point_;
  Matrix H_, penalty_;
  Eigen::VectorXd p_;
  Vector u_, trial_z_, trial_f_;
};

int run(int argc, char** argv) {
  const Settings settings(argc, argv, {{"--hessian", "exact"}, {"--theta", "1"}});
  const double begin = now();
  Problem problem = Problem::load(settings.directory);
  Vector x = settings.start(problem.d);
  const double load_seconds = now() - begin;
  ExactNewton newton(problem, settings);

  Progress progress;
  progress.start(gradient_norm_at_zero(problem));
  Report report = newton.solve(x, progress);
  report.seconds = progress.seconds(), report.cpu = progress.cpu();
  report.load_seconds = load_seconds, report.memory_mb = peak_memory_mb();
  if (!settings.out.empty()) npy::write(settings.out, x);
  report.print(problem, progress);
  return 0;
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  try {
    return peers::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "exact_newton: %s\n", error.what());
    return 2;
  }
}
