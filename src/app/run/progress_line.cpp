#include "app/run/progress_line.hpp"

#include <pthread.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "app/options/commands.hpp"
#include "app/report/text.hpp"
#include "errors/printable.hpp"
#include "ranks/activity.hpp"

namespace attnreg::app {

namespace {

using ProgressClock = std::chrono::steady_clock;
constexpr double kSilence = 2, kBetweenLines = 60, kBetweenCalls = 1;  // seconds
constexpr std::chrono::milliseconds kTick{250};

double seconds_now() { return std::chrono::duration<double>(ProgressClock::now().time_since_epoch()).count(); }

/// What is on stderr, of all threads.
struct Terminal {
  std::mutex mutex;
  double last_line = seconds_now();
  bool has_bar = false;
};
Terminal& terminal() {
  static Terminal it;
  return it;
}

struct SilentCall {
  std::mutex mutex;
  std::function<void()> call;
  double last = 0;
};
SilentCall& silent_call() {
  static SilentCall it;
  return it;
}

void write_to_stderr(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stderr); }

constexpr const char* kErase = "\r\x1b[K";

std::size_t bar_width() {
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : page_width();
}

std::string number_text(double value) { return value < 1e6 ? fixed(value, 0) : plain(value, 4); }

std::string bar_text(const WorkFigures& figures) {
  constexpr int kCells = 20;
  const int filled = static_cast<int>(std::lround(kCells * figures.share));
  std::string text = "[" + std::string(static_cast<std::size_t>(filled), '#') +
                     std::string(static_cast<std::size_t>(kCells - filled), '.') + "] " + figures.time_text() + ", " +
                     figures.work_text();
  return text.substr(0, bar_width() - 1);
}

}  // namespace

void print_line(const std::string& text) {
  note_message(text);
  const std::string line = to_width(text) + "\n";  // one write, so that the lines of several ranks do not mix
  const std::lock_guard lock(terminal().mutex);
  terminal().last_line = seconds_now();
  write_to_stderr(std::exchange(terminal().has_bar, false) ? kErase + line : line);
}

std::string WorkFigures::work_text() const {
  std::string text = phase + (what.empty() ? "" : ": " + what);
  if (!unit.empty()) {
    text += ", " + number_text(done) + " of " + number_text(total) + " " + unit;
    if (rate > 0) text += ", " + plain(rate, 3) + " " + unit + "/s";
  }
  return text;
}

std::string WorkFigures::time_text() const {
  return seconds_left ? fixed(std::ceil(*seconds_left), 0) + " s left" : "for " + fixed(seconds, 0) + " s";
}

WorkFigures work_figures() {
  constexpr double kKnown = 0.02;  // of the work: from here on the rest can be told
  Activity& own = own_activity();
  const Phase phase = own.now.load();
  WorkFigures figures{.phase = std::string(phase_name(phase)), .what = {}, .kind = {}, .unit = {}};
  const auto add = [&](const std::string& text, const std::string& kind) {
    figures.what += (figures.what.empty() ? "" : "; ") + text;
    figures.kind += kind + "; ";
  };
  if (phase == Phase::start || phase == Phase::solve) {
    const std::lock_guard lock(own.mutex);
    if (own.phase.find("iteration") != std::string::npos || own.phase.find("step") != std::string::npos)
      add(own.phase, own.phase);
  }
  const char *const step = own.step.load(), *const work = own.work.load(), *const unit = own.unit.load();
  const int steps = own.steps.load(), number = std::clamp(own.step_number.load(), 1, std::max(1, steps));
  const bool in_steps = steps > 0 && step != nullptr, counts = work != nullptr && unit != nullptr;
  double share = 0;
  if (in_steps) add("step " + std::to_string(number) + " of " + std::to_string(steps) + ", " + step, step);
  const auto age = [](std::int64_t since) { return seconds_now() - 1e-9 * static_cast<double>(since); };
  if (counts) {
    add(work, work);
    figures.unit = unit;
    figures.total = own.total.load();
    figures.done = std::min(static_cast<double>(own.done.load()), figures.total);
    figures.seconds = age(own.work_since.load());
    figures.rate = figures.seconds > 0 ? figures.done / figures.seconds : 0;
    share = figures.total > 0 ? figures.done / figures.total : 0;
  }
  if (in_steps) {
    share = (number - 1 + share) / steps;
    figures.seconds = age(own.steps_since.load());
  } else if (!counts) {
    figures.seconds = seconds_now() - terminal().last_line;
  }
  figures.share = std::clamp(share, 0.0, 1.0);
  if (figures.share > kKnown) figures.seconds_left = figures.seconds * (1 - figures.share) / figures.share;
  return figures;
}

nlohmann::ordered_json to_json(const WorkFigures& figures) {
  nlohmann::ordered_json json{{"phase", figures.phase}, {"what", figures.what},   {"done", figures.done},
                              {"total", figures.total}, {"unit", figures.unit},   {"rate", figures.rate},
                              {"share", figures.share}, {"seconds_left", nullptr}};
  if (figures.seconds_left) json["seconds_left"] = *figures.seconds_left;
  return json;
}

ProgressLine::ProgressLine(const Communicator& communicator, Style style) : style_(style) {
  if (!communicator.is_root()) return;
  sigset_t every, before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);  // signals are for the rank's own thread
  try {
    thread_ = std::jthread([this](const std::stop_token& stop) { show(stop); });
  } catch (const std::system_error&) {
    // A run without it is a run all the same.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ProgressLine::~ProgressLine() {
  if (thread_.joinable()) {
    thread_.request_stop();
    thread_.join();
  }
  clear();
}

void ProgressLine::clear() {
  const std::lock_guard lock(terminal().mutex);
  terminal().last_line = seconds_now();
  if (std::exchange(terminal().has_bar, false)) write_to_stderr(kErase);
}

ProgressLine::Style ProgressLine::style_of(const Arguments& arguments) {
  const std::string asked = arguments.text("progress");
  if (asked == "none" || (arguments.knows("quiet") && arguments.on("quiet"))) return Style::none;
  if (asked == "auto") return isatty(STDERR_FILENO) != 0 ? Style::bar : Style::lines;
  return asked == "bar" ? Style::bar : Style::lines;
}

void ProgressLine::show(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any waker;
  std::unique_lock lock(mutex);
  while (!waker.wait_for(lock, stop, kTick, [&] { return stop.stop_requested(); })) {
    try {
      show_once();
    } catch (const std::exception&) {
      // It may be told the next time.
    }
  }
}

void ProgressLine::show_once() {
  const double now = seconds_now();
  {
    const std::lock_guard lock(terminal().mutex);
    if (now - terminal().last_line < kSilence) return;
  }
  {
    SilentCall& silent = silent_call();
    const std::lock_guard lock(silent.mutex);
    if (silent.call && now - silent.last >= kBetweenCalls) {
      silent.last = now;
      silent.call();
    }
  }
  if (style_ == Style::none) return;
  const WorkFigures figures = work_figures();
  const std::string key = figures.phase + figures.kind;
  const std::lock_guard lock(terminal().mutex);
  if (now - terminal().last_line < kSilence) return;
  if (style_ == Style::bar) {
    terminal().has_bar = true;
    return write_to_stderr(kErase + bar_text(figures));
  }
  if (key == last_ && now - last_seconds_ < kBetweenLines) return;
  last_ = key;
  last_seconds_ = terminal().last_line = now;
  write_to_stderr(to_width("attnreg: " + figures.work_text() + ", " + figures.time_text()) + "\n");
}

WhileSilent::WhileSilent(std::function<void()> call) {
  const std::lock_guard lock(silent_call().mutex);
  silent_call().call = std::move(call);
}

WhileSilent::~WhileSilent() {
  const std::lock_guard lock(silent_call().mutex);
  silent_call().call = nullptr;
}

}  // namespace attnreg::app
