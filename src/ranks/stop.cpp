#include "ranks/stop.hpp"

#include <atomic>
#include <csignal>

#include "attnreg/error.hpp"

namespace attnreg {

namespace {

std::atomic<int> asking_signal{0};
std::atomic<bool> checkpoint_asked{false}, ends_phases{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

}  // namespace

void ask_to_stop(int signal) noexcept { asking_signal.store(signal, std::memory_order_relaxed); }
void ask_for_checkpoint() noexcept { checkpoint_asked.store(true, std::memory_order_relaxed); }
int stop_signal() noexcept { return asking_signal.load(std::memory_order_relaxed); }
bool is_checkpoint_asked_for() noexcept { return checkpoint_asked.exchange(false, std::memory_order_relaxed); }

StopsEndPhases::StopsEndPhases() { ends_phases = true; }
StopsEndPhases::~StopsEndPhases() { end(); }
void StopsEndPhases::end() noexcept { ends_phases = false; }
bool StopsEndPhases::active() noexcept { return ends_phases.load(std::memory_order_relaxed); }

bool is_in_vain() noexcept { return StopsEndPhases::active() && stop_signal() != 0; }

void throw_if_stopped() {
  if (is_in_vain()) throw Error(ExitCode::limit, stop_text() + " before there was a result");
}

std::string stop_text() {
  switch (stop_signal()) {
    case SIGINT: return "stopped by SIGINT";
    case SIGTERM: return "stopped by SIGTERM";
    case SIGHUP: return "stopped by SIGHUP";
    case SIGUSR2: return "stopped by SIGUSR2";
    default: return "stopped by a signal";
  }
}

}  // namespace attnreg
