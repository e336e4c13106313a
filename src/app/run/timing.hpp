#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "attnreg/communicator.hpp"
#include "ranks/activity.hpp"

namespace attnreg::app {

/// What a phase took on all ranks. Its work is what it took without its messages, in which a rank waits for others.
struct PhaseFigures {
  double seconds = 0;                       ///< on rank 0; all phases add up to its wall clock
  double least = 0, mean = 0, largest = 0;  ///< seconds of work, over the ranks
  std::int64_t messages = 0;                ///< collectives
  double message_share = 0;                 ///< of the time of all ranks
};

/// The most memory that the processes have had at a time, each for itself; bytes, `peak_memory`.
struct PeakMemory {
  double rank0 = 0, mean = 0, largest = 0;
};

struct RunTiming {
  double wall_seconds = 0;  ///< of rank 0, from the start of the program on
  std::array<PhaseFigures, kPhases> phases{};
  PeakMemory memory;
};

/// Collective, three small all-reduces. Up to now.
RunTiming run_timing(const Communicator& communicator);

/// The last table of a summary: the phases that took place.
std::string timing_text(const RunTiming& timing);
/// timing.json.
nlohmann::ordered_json timing_file(const RunTiming& timing, int ranks);

}  // namespace attnreg::app
