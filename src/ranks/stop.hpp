#pragma once

#include <string>

namespace attnreg {

// What this process was asked for, by signals for example. The program asks; nothing in the library does, so that a
// library user's signals remain his own. Local and lock-free: a signal handler may ask.
//
// Ranks learn from messages that are sent anyway whether one of them was asked to stop, whichever it is. Where there is
// something to end with, as in a solve, it rides beside the time (ranks/root_clock.hpp), and
// `Communicator::is_stopped` then says so on all ranks. Where there is not, `StopsEndPhases` turns it into an error.

void ask_to_stop(int signal) noexcept;
void ask_for_checkpoint() noexcept;
int stop_signal() noexcept;               ///< The last one that asked to stop; 0: none did.
bool is_checkpoint_asked_for() noexcept;  ///< Since the last call.

/// While one exists, sums, maxima and agreements over all ranks of the job throw an `Error` with `ExitCode::limit` on
/// all of them once one was asked to stop, and `throw_if_stopped` does on this rank. Logically collective.
class StopsEndPhases {
 public:
  StopsEndPhases();
  ~StopsEndPhases();
  StopsEndPhases(const StopsEndPhases&) = delete;
  StopsEndPhases& operator=(const StopsEndPhases&) = delete;

  /// From here on there is a result, and a stop comes too late to be an error. Logically collective.
  static void end() noexcept;
  static bool active() noexcept;
};

/// Local. Whether this rank's part of the phase will not be used, since the next message ends it: passes over rows then
/// leave out the rest. With `StopsEndPhases` only.
bool is_in_vain() noexcept;
/// Local, for the phase of an agreement that lasts: throws where it is in vain.
void throw_if_stopped();

/// Local. "stopped by SIGTERM", as far as this rank knows.
std::string stop_text();

}  // namespace attnreg
