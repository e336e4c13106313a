#pragma once

#include <string>
#include <utility>
#include <vector>

#include "attnreg/communicator.hpp"

namespace attnreg::bench {

/// Names and values: what a figure depends on besides the program's arguments.
using Facts = std::vector<std::pair<std::string, std::string>>;

/// Collective. Processor, cores, ranks, threads, memory, huge pages, compiler, flags, revision, Highway's target.
Facts machine_facts(const Communicator& communicator, int threads);

/// Local. Bytes of the processor's last-level cache; 0 if unknown.
double last_cache_bytes();

/// Local. Tasks that want to run, averaged over the last minute.
double load_average();

/// Local. Resident memory of this process in bytes, now and at most since the last `reset_peak_memory`.
double resident_bytes();
double peak_resident_bytes();
/// Local. Gives freed memory back first. False where the kernel does not allow it.
bool reset_peak_memory();

}  // namespace attnreg::bench
