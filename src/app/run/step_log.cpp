#include "app/run/step_log.hpp"

#include <vector>

#include "app/options/commands.hpp"
#include "app/report/text.hpp"

namespace attnreg::app {

namespace {

std::string right(const std::string& text, std::size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : " " + text;
}

}  // namespace

void StepLog::print(const std::string& phase, const IterationRecord& record) {
  if (verbosity_ == Verbosity::quiet) return;
  const bool verbose = verbosity_ == Verbosity::verbose;
  if (!header_printed_) {
    print_line(right("iteration", 9) + right("L", 17) + right("|g|/|g_ref|", 13) + right("step", 11) +
               right("radius", 11) + right("reads of A", 12) + (verbose ? right("collectives", 13) : "") +
               right("seconds", 11));
    header_printed_ = true;
  }
  const bool stepped = record.iteration > 0;
  print_line(right(phase + std::to_string(record.iteration), 9) + right(scientific(record.value, 9), 17) +
             right(scientific(record.relative_gradient, 3), 13) +
             right(stepped ? scientific(record.step, 3) : "-", 11) +
             right(stepped ? scientific(record.radius, 3) : "-", 11) + right(fixed(record.reads_of_a, 1), 12) +
             (verbose ? right(std::to_string(record.collectives), 13) : "") + right(fixed(record.seconds, 3), 11));
}

}  // namespace attnreg::app
