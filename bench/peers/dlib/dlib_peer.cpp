// dlib: L-BFGS (find_min), and a trust region with the exact Hessian (find_min_trust_region).
// usage: dlib_peer DIR [--method lbfgs|tr] [--pairs 20] [--rtol 1e-10] [--time-limit 60] [--x0 FILE] [--out FILE]
#include <dlib/optimization.h>

#include "../kernels/run.hpp"

namespace peers {
namespace {

using Column = dlib::matrix<double, 0, 1>;

struct Stop {};  // thrown out of dlib: it has no test of the gradient against |g(0)|, nor of the time

// L / |g(0)|, remembered at the last point.
class Objective {
 public:
  Objective(Problem& problem, Progress& progress, const Settings& settings)
      : problem_(problem), progress_(progress), settings_(settings), scale_(1 / progress.reference) {}

  double value(const Column& x) { return evaluate(x), scale_ * point_.value; }

  Column gradient(const Column& x) {
    evaluate(x);
    Column g(problem_.d);
    for (int k = 0; k < problem_.d; ++k) g(k) = scale_ * point_.gradient[std::size_t(k)];
    return g;
  }

  void hessian(const Column& x, dlib::matrix<double>& result) {
    evaluate(x);
    const std::size_t d = std::size_t(problem_.d);
    Vector H(d * d);
    problem_.set_hessian_diagonal(point_.s);
    problem_.gram_pass(H.data());
    point_.add_low_rank(H.data());
    ++hessians, ++reads;
    result.set_size(problem_.d, problem_.d);
    for (long i = 0; i < problem_.d; ++i)
      for (long j = 0; j <= i; ++j) result(i, j) = result(j, i) = scale_ * H[std::size_t(i) * d + std::size_t(j)];
  }

  long evaluations = 0, hessians = 0, iterations = 0;
  double reads = 0, best_gradient_norm = std::numeric_limits<double>::infinity(), best_value = 0;
  Vector best_x;

 private:
  void evaluate(const Column& x) {
    if (evaluations > 0 && progress_.seconds() > settings_.time_limit) throw Stop();
    if (x_.size() == std::size_t(x.size()) && std::equal(x.begin(), x.end(), x_.begin())) return;
    x_.assign(x.begin(), x.end());
    problem_.evaluate(x_.data(), point_);
    ++evaluations, ++reads;
    const double gradient_norm = norm(point_.gradient);
    progress_.record(gradient_norm, reads);
    if (gradient_norm < best_gradient_norm) best_gradient_norm = gradient_norm, best_value = point_.value, best_x = x_;
    if (gradient_norm <= settings_.rtol * progress_.reference) throw Stop();
  }

  Problem& problem_;
  Progress& progress_;
  const Settings& settings_;
  double scale_;
  Vector x_;
  Point point_;
};

// find_min_trust_region takes a model.
struct Model {
  using column_vector = Column;
  using general_matrix = dlib::matrix<double>;
  Objective* objective;
  double operator()(const Column& x) const { return objective->value(x); }
  void get_derivative_and_hessian(const Column& x, Column& gradient, general_matrix& H) const {
    gradient = objective->gradient(x);
    objective->hessian(x, H);
    ++objective->iterations;
  }
};

// Ends find_min only when its line search returns without a new point.
struct UntilStagnation {
  Objective* objective;
  long seen = -1;
  int idle = 0;
  template <class Point, class Gradient>
  bool should_continue_search(const Point&, double, const Gradient&) {
    idle = objective->evaluations == seen ? idle + 1 : 0;
    seen = objective->evaluations;
    ++objective->iterations;
    return idle <= 3;
  }
};

void minimise(Objective& objective, const Settings& settings, Column& x) {
  if (settings.own.at("--method") == "tr") {
    dlib::find_min_trust_region(dlib::objective_delta_stop_strategy(0, 1000000), Model{&objective}, x, 1.0);
  } else {
    dlib::find_min(
        dlib::lbfgs_search_strategy(std::stoul(settings.own.at("--pairs"))), UntilStagnation{&objective},
        [&](const Column& y) { return objective.value(y); }, [&](const Column& y) { return objective.gradient(y); }, x,
        -std::numeric_limits<double>::max());
  }
}

int run(int argc, char** argv) {
  const Settings settings(argc, argv, {{"--method", "lbfgs"}, {"--pairs", "20"}});
  const double begin = now();
  Problem problem = Problem::load(settings.directory);
  const Vector start = settings.start(problem.d);
  Report report;
  report.peer = "dlib-" + settings.own.at("--method");
  report.load_seconds = now() - begin;

  Progress progress;
  progress.start(gradient_norm_at_zero(problem));
  Objective objective(problem, progress, settings);
  Column x(problem.d);
  std::copy(start.begin(), start.end(), x.begin());
  std::string end = "stalled";
  try {
    minimise(objective, settings, x);
  } catch (const Stop&) {
    end = "time limit";
  } catch (const std::exception&) {
    end = "stalled: exception";
  }
  report.seconds = progress.seconds(), report.cpu = progress.cpu();
  report.status = progress.best <= settings.rtol ? "converged" : end;
  report.iterations = objective.iterations, report.evaluations = objective.evaluations;
  report.hessians = objective.hessians, report.reads = objective.reads;
  report.value = objective.best_value, report.gradient_norm = objective.best_gradient_norm;
  report.memory_mb = peak_memory_mb();
  if (!settings.out.empty()) npy::write(settings.out, objective.best_x);
  report.print(problem, progress);
  return 0;
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  try {
    return peers::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dlib_peer: %s\n", error.what());
    return 2;
  }
}
