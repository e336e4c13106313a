#pragma once

#include <chrono>
#include <cmath>

#include "attnreg/communicator.hpp"
#include "ranks/stop.hpp"

namespace attnreg {

/// What long work, a Gram matrix or a pass, does with the rest of its rows once this rank was asked to stop. Whoever
/// lets it leave them looks at `Communicator::is_stopped` before the result is used, after a message that tells: one
/// that is sent anyway, or `RootClock::sum`.
enum class OnStop { finish, leave };

/// The seconds since it was made: on rank 0, and 0 on the others, so that the sum over the ranks replicates them.
/// Local, but for `sum`.
class RootClock {
 public:
  explicit RootClock(const Communicator& communicator) : counts_(communicator.is_root()) {}
  double seconds() const {
    return counts_ ? std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count() : 0;
  }

  // A message with the time also tells whether a rank was asked to stop, or for a checkpoint: that rank adds more than
  // any run takes.
  /// Local. What this rank adds to a sum, seconds included, when its part of the message is complete.
  static double part(const Communicator& communicator, double seconds) {
    return seconds + (communicator.is_asked_to_stop() ? kStop : 0) + (is_checkpoint_asked_for() ? kCheckpoint : 0);
  }
  /// Logically collective. The seconds of such a sum; notes a stop (`Communicator::is_stopped`), or a checkpoint.
  static double seconds_of(const Communicator& communicator, double sum) {
    if (!(sum >= kCheckpoint)) return sum;
    if (tells_of_stop(sum)) communicator.note_stop();
    if (std::fmod(sum, kStop) >= kCheckpoint) communicator.note_checkpoint();
    return std::fmod(sum, kCheckpoint);
  }
  /// Local. Whether such a sum, even of some of the ranks, tells of a stop.
  static bool tells_of_stop(double sum) { return sum >= kStop; }
  /// Collective. An all-reduce of 8 bytes.
  double sum(const Communicator& communicator) const {
    return seconds_of(communicator, communicator.sum(part(communicator, seconds())));
  }

 private:
  static constexpr double kCheckpoint = 0x1p27;  // 4 years
  static constexpr double kStop = 0x1p44;  // more than 100,000 ranks of the kind before; it costs digits of the time

  bool counts_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace attnreg
