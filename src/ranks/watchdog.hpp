#pragma once

#include <memory>

#include "attnreg/communicator.hpp"

namespace attnreg {

/// Ends a job that stands still. A thread of every rank looks, four times a second or more often, whether the rank
/// began or ended a collective, or noted an activity, and writes that, and what the rank does, into memory that the
/// ranks of the node share: who waits for a rank that works does not stand still. Where no rank of the node has done
/// anything of that for `seconds`, one of them prints what each does to stderr, one line each, and aborts the job with
/// code 9. A rank whose thread is silent too has been stopped, and is named. Seconds are those in which the thread ran:
/// a job that is suspended as a whole, and goes on, does not count.
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
