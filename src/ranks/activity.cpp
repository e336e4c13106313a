#include "ranks/activity.hpp"

namespace attnreg {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

/// Of the rank's own thread.
struct PhaseClock : std::chrono::steady_clock {
  time_point since = now();
  std::array<PhaseTime, kPhases> times{};
  bool is_whole = false, is_muted = false;
};
PhaseClock phase_clock;

double seconds_between(PhaseClock::time_point begin, PhaseClock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

std::int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(PhaseClock::now().time_since_epoch()).count();
}

void change_phase(Phase next) {
  Activity& own = own_activity();
  const auto now = PhaseClock::now();
  phase_clock.times.at(static_cast<std::size_t>(own.now.load())).seconds += seconds_between(phase_clock.since, now);
  phase_clock.since = now;
  if (own.now.exchange(next) != next) own.progress.fetch_add(1, kRelaxed);
}

}  // namespace

Activity& own_activity() {
  static Activity activity;
  return activity;
}

void note_activity(std::string_view text) {
  Activity& own = own_activity();
  const std::lock_guard lock(own.mutex);
  own.phase = text;
  own.progress.fetch_add(1, std::memory_order_relaxed);
}

void note_message(std::string_view text) {
  Activity& own = own_activity();
  const std::lock_guard lock(own.mutex);
  own.message = text;
}

InCollective::InCollective(const char* call, std::size_t count, bool counts)
    : begin_(PhaseClock::now()), counts_(counts) {
  Activity& own = own_activity();
  own.count.store(count, std::memory_order_relaxed);
  own.call.store(call, std::memory_order_relaxed);
  own.progress.fetch_add(1, std::memory_order_relaxed);
}

InCollective::~InCollective() {
  Activity& own = own_activity();
  own.call.store(nullptr, std::memory_order_relaxed);
  own.progress.fetch_add(1, std::memory_order_relaxed);
  PhaseTime& time = phase_clock.times.at(static_cast<std::size_t>(own.now.load()));
  time.message_seconds += seconds_between(begin_, PhaseClock::now());
  if (counts_) ++time.messages;
}

std::string_view phase_name(Phase phase) {
  constexpr std::array<std::string_view, kPhases> names{"load", "scan", "start", "solve", "certificate", "write"};
  return names.at(static_cast<std::size_t>(phase));
}

void start_phases() { phase_clock = {}; }
void mute_phases(bool muted) { phase_clock.is_muted = muted; }

std::array<PhaseTime, kPhases> phase_times() {
  change_phase(own_activity().now);
  return phase_clock.times;
}

InPhase::InPhase(Phase phase, bool whole)
    : before_(own_activity().now), changes_(!phase_clock.is_whole && !phase_clock.is_muted), whole_(whole && changes_) {
  if (changes_) change_phase(phase);
  if (whole_) phase_clock.is_whole = true;
}

InPhase::~InPhase() {
  if (whole_) phase_clock.is_whole = false;
  if (changes_) change_phase(before_);
}

InWork::InWork(const char* what, const char* unit, double total) {
  Activity& own = own_activity();
  what_ = own.work.load(kRelaxed);
  unit_ = own.unit.load(kRelaxed);
  total_ = own.total.load(kRelaxed);
  done_ = own.done.load(kRelaxed);
  since_ = own.work_since.load(kRelaxed);
  own.total.store(total, kRelaxed);
  own.done.store(0, kRelaxed);
  own.work_since.store(nanoseconds(), kRelaxed);
  own.unit.store(unit, kRelaxed);
  own.work.store(what, kRelaxed);
}

InWork::~InWork() {
  Activity& own = own_activity();
  own.total.store(total_, kRelaxed);
  own.done.store(done_, kRelaxed);
  own.work_since.store(since_, kRelaxed);
  own.unit.store(unit_, kRelaxed);
  own.work.store(what_, kRelaxed);
}

void InWork::add(std::int64_t units) noexcept { own_activity().done.fetch_add(units, kRelaxed); }

InSteps::InSteps(int steps) {
  Activity& own = own_activity();
  own.step_number.store(0, kRelaxed);
  own.steps_since.store(nanoseconds(), kRelaxed);
  own.steps.store(steps, kRelaxed);
}

InSteps::~InSteps() {
  own_activity().steps.store(0, kRelaxed);
  own_activity().step.store(nullptr, kRelaxed);
}

void InSteps::next(const char* what) {
  Activity& own = own_activity();
  own.step.store(what, kRelaxed);
  own.step_number.fetch_add(1, kRelaxed);
  own.progress.fetch_add(1, kRelaxed);
}

}  // namespace attnreg
