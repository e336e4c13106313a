// What the C++ peers share as programs: command line, clock, stopping rule, the JSON line at the end.
#pragma once
#include <sys/resource.h>

#include <chrono>
#include <map>
#include <sstream>

#include "problem.hpp"

namespace peers {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// User and system time of all threads.
inline double cpu_seconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return double(t.tv_sec) + 1e-6 * double(t.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

inline double peak_memory_mb() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) / 1024.0;
}

// The command line of a peer without MPI: DIR, then pairs --name value.
struct Settings {
  std::string directory, x0, out;
  double rtol = 1e-10, time_limit = 60;
  std::map<std::string, std::string> own;  // options of one peer, with their defaults

  Settings(int argc, char** argv, std::map<std::string, std::string> own_options) : own(std::move(own_options)) {
    if (argc < 2 || argc % 2 != 0)
      throw std::runtime_error("usage: " + std::string(argv[0]) + " DIR [--name value]...");
    directory = argv[1];
    for (int i = 2; i < argc; i += 2) set(argv[i], argv[i + 1]);
  }

  Vector start(int d) const { return x0.empty() ? Vector(std::size_t(d), 0.0) : npy::read_vector(x0, std::size_t(d)); }

 private:
  void set(const std::string& name, const std::string& text) {
    if (name == "--x0")
      x0 = text;
    else if (name == "--out")
      out = text;
    else if (name == "--rtol")
      rtol = std::stod(text);
    else if (name == "--time-limit")
      time_limit = std::stod(text);
    else if (own.count(name) != 0)
      own[name] = text;
    else
      throw std::runtime_error("unknown option " + name);
  }
};

// Gradient norms met during the solve, against |g(0)|.
struct Progress {
  double reference = 0;  // |g(0)|, whatever the start
  double best = std::numeric_limits<double>::infinity();
  double start_time = 0, start_cpu = 0;
  int level = 1;
  std::string levels;  // [k, seconds, reads]: when |g| first came below 10^-k |g(0)|

  void start(double gradient_at_zero) {
    reference = gradient_at_zero;
    start_time = now(), start_cpu = cpu_seconds();
  }
  double seconds() const { return now() - start_time; }
  double cpu() const { return cpu_seconds() - start_cpu; }

  void record(double gradient_norm, double reads) {
    best = std::min(best, gradient_norm / reference);
    for (; level <= 12 && gradient_norm <= std::pow(10.0, -level) * reference; ++level) {
      std::ostringstream entry;
      entry << (levels.empty() ? "[" : ", [") << level << ", " << seconds() << ", " << reads << "]";
      levels += entry.str();
    }
  }
};

// |g(0)| of a single process, to be found before the clock starts.
inline double gradient_norm_at_zero(Problem& problem) {
  Point point;
  problem.evaluate(Vector(std::size_t(problem.d), 0.0).data(), point);
  return norm(point.gradient);
}

// The JSON line.
struct Report {
  std::string peer, status;
  int ranks = 1, threads = omp_get_max_threads();
  long iterations = 0, evaluations = 0, hessian_products = 0, hessians = 0;
  double reads = 0, load_seconds = 0, seconds = 0, cpu = 0, value = 0, gradient_norm = 0, memory_mb = 0;

  void print(const Problem& problem, const Progress& progress) const {
    std::ostringstream line;
    const auto field = [&](const char* name, double number) {
      line << ", \"" << name << "\": ";
      if (std::isfinite(number))
        line << number;
      else
        line << "null";
    };
    line.precision(17);
    line << "{\"peer\": \"" << peer << "\", \"status\": \"" << status << "\"";
    field("ranks", ranks), field("threads", threads);
    field("rows", double(problem.n)), field("columns", problem.d);
    field("iterations", double(iterations)), field("evaluations", double(evaluations));
    field("hessian_products", double(hessian_products)), field("hessians", double(hessians));
    field("reads_of_a", reads), field("load_seconds", load_seconds);
    field("seconds", seconds), field("cpu_seconds", cpu);
    field("value", value), field("gradient_norm", gradient_norm), field("gradient_reference", progress.reference);
    field("relative_gradient", gradient_norm / progress.reference);
    field("best_relative_gradient", progress.best), field("peak_memory_mb", memory_mb);
    line << ", \"levels\": [" << progress.levels << "]}";
    std::puts(line.str().c_str());
  }
};

}  // namespace peers
