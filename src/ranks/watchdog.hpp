#pragma once

#include <memory>

#include "attnreg/communicator.hpp"

namespace attnreg {

/// Ends a job that stands still. A thread of every rank looks, four times a second or more often, whether the rank
/// began or ended a collective, or noted an activity, and writes what it does into memory that the ranks of the node
/// share. A rank that has done nothing of that for `seconds` prints what the ranks of its node do to stderr, one line
/// each, and aborts the job with code 9; one rank of a node prints. A rank whose thread is silent too has been stopped,
/// and is named. Seconds are those in which the thread ran: a job that is suspended as a whole, and goes on, does not
/// count.
///
/// The threads call MPI only to abort.
class Watchdog {
 public:
  /// Collective. Throws on all ranks if there is no thread or no memory for it.
  Watchdog(const Communicator& communicator, double seconds);
  /// Collective: frees the memory.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace attnreg
