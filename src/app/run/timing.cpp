#include "app/run/timing.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::app {

ATTNREG_JSON(PhaseFigures, seconds, least, mean, largest, messages, message_share)
ATTNREG_JSON(PeakMemory, rank0, mean, largest)

namespace {

std::string percent(double share) { return fixed(100 * share, share < 0.1 ? 1 : 0) + " %"; }

std::string right_aligned(const std::string& text, std::size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : " " + text;
}

}  // namespace

RunTiming run_timing(const Communicator& communicator) {
  const auto times = phase_times();
  RunTiming timing;
  std::vector<double> sums, largest, least;
  for (const PhaseTime& time : times) {
    const double work = time.seconds - time.message_seconds;
    sums.insert(sums.end(), {work, time.message_seconds, time.seconds});
    largest.push_back(work);
    least.push_back(-work);
    timing.wall_seconds += time.seconds;
  }
  timing.memory.rank0 = peak_memory();
  largest.push_back(timing.memory.rank0);
  sums.push_back(communicator.leads_process() ? timing.memory.rank0 : 0);
  communicator.sum(sums);
  communicator.max(largest);
  communicator.max(least);
  timing.memory.mean = sums.back() / communicator.processes();
  timing.memory.largest = largest.back();
  for (std::size_t k = 0; k < kPhases; ++k) {
    const double work = sums[3 * k], messages = sums[3 * k + 1], all = sums[3 * k + 2];
    timing.phases.at(k) = {times.at(k).seconds,        -least[k],
                           work / communicator.size(), largest[k],
                           times.at(k).messages,       all > 0 ? messages / all : 0};
  }
  return timing;
}

std::string timing_text(const RunTiming& timing) {
  const auto line = [](const std::string& name, std::initializer_list<std::string> columns) {
    std::string text = "  " + padded(name, 12);
    for (const auto& column : columns) text += right_aligned(column, 10);
    return text;
  };
  const auto messages = [](std::int64_t count, double share) {
    return right_aligned(std::to_string(count), 8) + right_aligned(percent(share), 7) + "\n";
  };
  std::string text = "\nTime, in seconds; least, mean and largest work of a rank, without messages\n" +
                     line("phase", {"seconds", "share", "least", "mean", "largest"}) + "       messages\n";
  double share_of_all = 0;
  std::int64_t all = 0;
  for (std::size_t k = 0; k < kPhases; ++k) {
    const PhaseFigures& phase = timing.phases.at(k);
    const double share = phase.seconds / timing.wall_seconds;
    all += phase.messages;
    share_of_all += phase.message_share * share;
    if (phase.seconds == 0) continue;
    text += line(std::string(phase_name(static_cast<Phase>(k))),
                 {fixed(phase.seconds, 3), percent(share), fixed(phase.least, 3), fixed(phase.mean, 3),
                  fixed(phase.largest, 3)}) +
            messages(phase.messages, phase.message_share);
  }
  return text + line("all", {fixed(timing.wall_seconds, 3), "", "", "", ""}) + messages(all, share_of_all);
}

nlohmann::ordered_json timing_file(const RunTiming& timing, int ranks) {
  auto phases = nlohmann::ordered_json::array();
  for (std::size_t k = 0; k < kPhases; ++k) {
    nlohmann::ordered_json phase{{"phase", phase_name(static_cast<Phase>(k))}};
    phase["share"] = timing.phases.at(k).seconds / timing.wall_seconds;
    phase.update(nlohmann::ordered_json(timing.phases.at(k)));
    phases.push_back(std::move(phase));
  }
  return {{"schema", "attnreg-timing-1"},
          {"wall_seconds", timing.wall_seconds},
          {"ranks", ranks},
          {"peak_memory_bytes", timing.memory},
          {"phases", std::move(phases)}};
}

}  // namespace attnreg::app
