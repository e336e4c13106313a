#include "measure.hpp"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>

#include "numbers/vector_clones.hpp"

namespace attnreg::bench {

namespace {

using Words = const std::uint64_t*;

ATTNREG_CLONES std::uint64_t sum_one(Words p, std::size_t count) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += p[i];
  return sum;
}

ATTNREG_CLONES std::uint64_t sum_four(Words p, std::size_t quarter) {
  std::uint64_t sum = 0;
  Words p1 = p + quarter, p2 = p1 + quarter, p3 = p2 + quarter;
  for (std::size_t i = 0; i < quarter; ++i) sum += (p[i] + p1[i]) + (p2[i] + p3[i]);
  return sum;
}

/// Calls sum(first word, words) for the part of each array that belongs to each thread: whole chunks.
template <class Sum>
std::uint64_t sum_by_threads(const BenchMatrix& matrix, Sum&& sum) {
  std::uint64_t total = 0;
#pragma omp parallel reduction(+ : total)
  {
    const auto thread = static_cast<std::size_t>(omp_get_thread_num());
    const auto threads = static_cast<std::size_t>(omp_get_num_threads());
    const std::size_t chunk = matrix.chunk_words();
    for (const auto& words : matrix.arrays()) {
      const std::size_t chunks = (words.size() + chunk - 1) / chunk;
      const std::size_t begin = std::min(words.size(), chunks * thread / threads * chunk);
      const std::size_t end = std::min(words.size(), chunks * (thread + 1) / threads * chunk);
      total += sum(words.data() + begin, end - begin);
    }
  }
  return total;
}

Quantiles quantiles(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return {0.5 * (values[(n - 1) / 2] + values[n / 2]), values.front(), values.back()};
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace

double timed(const Communicator& communicator, const std::function<void()>& run) {
  communicator.barrier();
  const auto start = std::chrono::steady_clock::now();
  run();
  return communicator.max(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

std::uint64_t sum_in_one_stream(const BenchMatrix& matrix) { return sum_by_threads(matrix, sum_one); }

std::uint64_t sum_in_four_streams(const BenchMatrix& matrix) {
  const std::size_t chunk = matrix.chunk_words();
  return sum_by_threads(matrix, [chunk](Words p, std::size_t count) {
    std::uint64_t sum = 0;
    for (; count > 0; p += std::min(chunk, count), count -= std::min(chunk, count)) {
      const std::size_t quarter = std::min(chunk, count) / 4;
      sum += sum_four(p, quarter) + sum_one(p + 4 * quarter, std::min(chunk, count) - 4 * quarter);
    }
    return sum;
  });
}

ReadTime read_time(const BenchMatrix& matrix, int sums) {
  const auto& communicator = matrix.A().communicator();
  constexpr double infinity = std::numeric_limits<double>::infinity();
  ReadTime best{infinity, infinity};
  for (int k = 0; k < sums; ++k) {
    std::uint64_t one = 0, four = 0;
    best.one_stream = std::min(best.one_stream, timed(communicator, [&] { one = sum_in_one_stream(matrix); }));
    best.four_streams = std::min(best.four_streams, timed(communicator, [&] { four = sum_in_four_streams(matrix); }));
    if (one != four) throw InternalError("the two sums over A differ");
  }
  return best;
}

Measurement measure(const BenchMatrix& matrix, const Kernel& kernel, const Kernel* versus, int repeat) {
  const auto& A = matrix.A();
  const auto& communicator = A.communicator();
  const auto time_of = [&](const Kernel& work) {
    work.prepare();
    return timed(communicator, work.run) / work.share;
  };
  Measurement result{.name = kernel.name, .goal = kernel.goal};
  result.read = read_time(matrix, 2);
  kernel.prepare();
  const double reads_before = A.reads();
  const double first = timed(communicator, kernel.run);
  result.reads = (A.reads() - reads_before) / kernel.share;
  if (kernel.error) {
    result.error = communicator.max(kernel.error());
    result.tolerance = kernel.tolerance;
  }
  const double cost = first / result.read.least();
  result.repeats = cost > 100 ? 1 : cost > 10 ? std::min(repeat, 3) : repeat;
  const int sums = (repeat + result.repeats - 1) / result.repeats;
  if (versus != nullptr) versus->prepare(), versus->run();  // first touch of its memory

  std::vector<double> seconds, over_read, over_least, over_versus;
  for (int k = 0; k < result.repeats; ++k) {
    const ReadTime read = read_time(matrix, sums);
    result.read = {std::min(result.read.one_stream, read.one_stream),
                   std::min(result.read.four_streams, read.four_streams)};
    const double other = versus != nullptr ? time_of(*versus) : 1;
    const double time = result.repeats == 1 ? first / kernel.share : time_of(kernel);
    seconds.push_back(time);
    over_read.push_back(time / read.one_stream);
    over_least.push_back(time / read.least());
    over_versus.push_back(time / other);
  }
  result.seconds = quantiles(seconds).median;
  result.over_read = quantiles(over_read);
  result.over_least_read = quantiles(over_least);
  if (versus != nullptr) result.versus = versus->name, result.over_versus = quantiles(over_versus);
  return result;
}

Report::Report(const Communicator& communicator, const std::string& path, Facts facts)
    : is_root_(communicator.is_root()), facts_(std::move(facts)) {
  if (!is_root_ || path.empty()) return;
  const bool is_new = !std::filesystem::exists(path) || std::filesystem::file_size(path) == 0;
  file_.open(path, std::ios::app);
  if (!file_) throw OutputError(path + " cannot be written");
  if (!is_new) return;
  for (const auto& fact : facts_) file_ << fact.first << ',';
  file_ << "load,kernel,goal,repeats,seconds,R,R4,reads,over_R,over_R_min,over_R_max,over_least_R,over_least_R_min,"
           "over_least_R_max,versus,over_versus,over_versus_min,over_versus_max,error,tolerance,value,limit\n";
}

void Report::write(const Facts& fields) {
  if (!file_.is_open()) return;
  for (const auto& fact : facts_) file_ << quoted(fact.second) << ',';
  file_ << number(load_average());
  for (const auto& field : fields) file_ << ',' << quoted(field.second);
  file_ << std::endl;
}

void Report::say(const std::string& line) const {
  if (is_root_) std::printf("%s\n", line.c_str()), std::fflush(stdout);
}

void Report::add(const Measurement& m) {
  char line[320];
  std::snprintf(line, sizeof line, "%-26s %-4s %9.3f ms %8.3f R [%.3f, %.3f] %8.3f least R  %4.1f reads  x%d",
                m.name.c_str(), m.goal.c_str(), 1e3 * m.seconds, m.over_read.median, m.over_read.least,
                m.over_read.largest, m.over_least_read.median, m.reads, m.repeats);
  std::string text = line;
  if (!m.versus.empty()) {
    std::snprintf(line, sizeof line, "  %.3f x %s [%.3f, %.3f]", m.over_versus.median, m.versus.c_str(),
                  m.over_versus.least, m.over_versus.largest);
    text += line;
  }
  if (m.error >= 0 || std::isnan(m.error)) {
    std::snprintf(line, sizeof line, "  error %.1e%s", m.error, m.error <= m.tolerance ? "" : " WRONG");
    text += line;
  }
  say(text);
  const auto checked = [](double value) { return value == -1 ? std::string() : number(value); };
  const auto versus = [&](double value) { return m.versus.empty() ? std::string() : number(value); };
  write({{"", m.name},
         {"", m.goal},
         {"", std::to_string(m.repeats)},
         {"", number(m.seconds)},
         {"", number(m.read.one_stream)},
         {"", number(m.read.four_streams)},
         {"", number(m.reads)},
         {"", number(m.over_read.median)},
         {"", number(m.over_read.least)},
         {"", number(m.over_read.largest)},
         {"", number(m.over_least_read.median)},
         {"", number(m.over_least_read.least)},
         {"", number(m.over_least_read.largest)},
         {"", m.versus},
         {"", versus(m.over_versus.median)},
         {"", versus(m.over_versus.least)},
         {"", versus(m.over_versus.largest)},
         {"", checked(m.error)},
         {"", m.error == -1 ? "" : number(m.tolerance)},
         {"", ""},
         {"", ""}});
}

void Report::add_figure(const std::string& name, const std::string& goal, double value, double limit) {
  char line[160];
  std::snprintf(line, sizeof line, "%-26s %-4s %.6g", name.c_str(), goal.c_str(), value);
  say(line + (limit > 0 ? "  (goal <= " + number(limit) + ")" : std::string()));
  Facts fields{{"", name}, {"", goal}};
  for (int k = 0; k < 17; ++k) fields.emplace_back("", "");
  fields.emplace_back("", number(value));
  fields.emplace_back("", limit > 0 ? number(limit) : "");
  write(fields);
}

}  // namespace attnreg::bench
