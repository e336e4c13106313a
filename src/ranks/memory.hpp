#pragma once

#include <cstddef>
#include <string>

#include "attnreg/communicator.hpp"

namespace attnreg {

/// Local. Bytes that the processes of this node can still take without swapping: the least of MemAvailable and, for
/// the control group (version 1 or 2) of this process and those above it, limit - usage + file cache, which the
/// kernel gives up when asked. Infinity where nothing is known. `root` stands before /proc and /sys, for tests.
double available_node_memory(const std::string& root = "");

/// Local. Bytes that this process can still take before it meets its limits on address space and data segment (`ulimit
/// -v`, `-d`); infinity without limits. `root` as above.
double available_process_memory(const std::string& root = "");

/// Local. The most memory that this process has had at a time since its program began, pages that it shares with others
/// included; 0 where the system does not say. `root` as above.
double peak_memory(const std::string& root = "");

/// Local. From now on `peak_memory` is that since this call; memory that was given back to the allocator goes back to
/// the system before. False where the system cannot do that.
bool forget_peak_memory();

/// Local. Asks for large pages for memory that has not been touched yet: it is then read 10 to 20 % faster. A hint;
/// does nothing where the system has none.
void advise_huge_pages(void* memory, std::size_t bytes);

/// Collective. Throws `OutOfMemory` on all ranks if a rank needs more than its own limits leave, or if on some node the
/// ranks together, each taken to need as much as the most demanding of all, need more than is there; the message names
/// the limit. Where a node needs less than a megabyte nothing is looked at. Call it before allocating: `bytes_this_rank` is what
/// this rank is going to allocate. `what` ("A.npy: shape (10, 3) as double") starts the message.
void require_memory(const Communicator& communicator, double bytes_this_rank, const std::string& what);

/// Collective. Takes so much address space and gives it back; throws `OutOfMemory` on all ranks, with the limit, if a
/// rank does not get it. For libraries that wait for ever where an allocation fails, as OpenBLAS does. Nothing is
/// touched: it costs no memory. `what` starts the message.
void try_address_space(const Communicator& communicator, double bytes, const std::string& what);

}  // namespace attnreg
