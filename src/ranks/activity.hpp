#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace attnreg {

/// The phases of a run. Every instant of a rank belongs to one of them.
enum class Phase {
  load,         ///< files, and their checks; what a run begins with
  scan,         ///< what is looked at in all rows before the start: sizes of columns and rows, L at x = 0
  start,        ///< what finds a point to start from
  solve,        ///< the iteration, and whatever else has no phase of its own
  certificate,  ///< what is found out about the result
  write,        ///< of results
};
constexpr std::size_t kPhases = 6;
std::string_view phase_name(Phase phase);  ///< "load"

/// This rank is in a phase while it lives, and then in the one before again. Local. Inside an object with `whole`
/// others do nothing: for tasks that take turns, each in a phase of its own.
class InPhase {
 public:
  explicit InPhase(Phase phase, bool whole = false);
  ~InPhase();
  InPhase(const InPhase&) = delete;
  InPhase& operator=(const InPhase&) = delete;

 private:
  Phase before_;
  bool changes_, whole_;
};

/// Local. Phases that would begin while they are muted do nothing: those of all but one of the tasks that do the same
/// in turn.
void mute_phases(bool muted);

/// What this rank spent in a phase so far.
struct PhaseTime {
  double seconds = 0;
  double message_seconds = 0;  ///< of these: in collectives, the waiting for other ranks included
  std::int64_t messages = 0;   ///< collectives
};
std::array<PhaseTime, kPhases> phase_times();  ///< Local. They add up to the time since `start_phases`.
void start_phases();                           ///< Local. The clock begins, with the phase load.

/// Local. What this rank does from now on, as a watchdog shows it: "loading", "iteration 3".
void note_activity(std::string_view text);
/// Local. The last line that this rank wrote.
void note_message(std::string_view text);

/// Work of `total` units that takes a while, while it lives: a pass over rows, the reading of a file. Names are
/// literals. Local; a few stores. Inside another one it stands for itself.
class InWork {
 public:
  InWork(const char* what, const char* unit, double total);
  ~InWork();
  InWork(const InWork&) = delete;
  InWork& operator=(const InWork&) = delete;
  static void add(std::int64_t units) noexcept;  ///< Local, from any thread: so much is done.

 private:
  const char *what_, *unit_;  // of the one around it
  double total_;
  std::int64_t done_, since_;
};

/// Work in so many steps of similar cost while it lives. Local.
class InSteps {
 public:
  explicit InSteps(int steps);
  ~InSteps();
  InSteps(const InSteps&) = delete;
  InSteps& operator=(const InSteps&) = delete;
  void next(const char* what);  ///< A literal.
};

/// This rank is in a collective while it lives; `call` is a literal. Its begin and its end are the progress that a
/// watchdog looks for. Local; three stores, and the clock. counts: it is a message of the phase, to another rank.
class InCollective {
 public:
  InCollective(const char* call, std::size_t count, bool counts = true);
  ~InCollective();
  InCollective(const InCollective&) = delete;
  InCollective& operator=(const InCollective&) = delete;

 private:
  std::chrono::steady_clock::time_point begin_;
  bool counts_;
};

/// What this rank does, for its watchdog and for who shows its progress, in other threads.
struct Activity {
  std::atomic<std::uint64_t> progress{0};  ///< begins and ends of collectives, and notes
  std::atomic<const char*> call{nullptr};  ///< the collective that the rank is in
  std::atomic<std::size_t> count{0};       ///< of its numbers
  std::mutex mutex;                        ///< of the texts
  std::string phase = "start", message;

  std::atomic<Phase> now{Phase::load};
  std::atomic<const char*> step{nullptr}, work{nullptr}, unit{nullptr};  ///< none: there is no such
  std::atomic<int> steps{0}, step_number{0};
  std::atomic<double> total{0};
  std::atomic<std::int64_t> done{0};                        ///< of the work
  std::atomic<std::int64_t> steps_since{0}, work_since{0};  ///< nanoseconds of the steady clock
};
Activity& own_activity();  ///< Local.

}  // namespace attnreg
