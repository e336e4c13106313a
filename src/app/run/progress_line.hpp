#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <thread>

#include "app/options/options.hpp"
#include "attnreg/communicator.hpp"

namespace attnreg::app {

/// What this rank is at, and how far it is.
struct WorkFigures {
  std::string phase;           ///< "certificate"
  std::string what;            ///< "step 2 of 5, convexity; read of A"; may be empty
  std::string kind{};          ///< the same without the numbers of steps: where it changes, something new began
  std::string unit;            ///< of the numbers: "rows"; empty: they cannot be counted
  double done = 0, total = 0;  ///< of the innermost piece of work
  double rate = 0;             ///< units a second
  double share = 0;            ///< of the steps, or of that piece, from 0 to 1
  double seconds = 0;          ///< since they began
  std::optional<double> seconds_left{};  ///< once that can be said

  std::string work_text() const;  ///< "certificate: step 2 of 5, convexity, 1200 of 4000 rows, 300 rows/s"
  std::string time_text() const;  ///< "18 s left", or "for 4 s"
};
WorkFigures work_figures();  ///< Local, from any thread.
nlohmann::ordered_json to_json(const WorkFigures& figures);

/// Says on rank 0's stderr what the program is at once nothing was written there for 2 s: a bar that is redrawn, or a
/// line for each step, and each minute. It is a thread; an object on another rank does nothing.
class ProgressLine {
 public:
  enum class Style { none, lines, bar };

  /// Local. Where no thread can be started there is no progress to see.
  ProgressLine(const Communicator& communicator, Style style);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// Local. Takes a bar away: what follows is no line of stderr.
  static void clear();

  /// Local. That of --progress, and where it is auto a bar on a terminal, else lines; with --quiet none.
  static Style style_of(const Arguments& arguments);

 private:
  void show(const std::stop_token& stop);
  void show_once();

  Style style_;
  std::string last_;         // the step that was shown
  double last_seconds_ = 0;  // when
  std::jthread thread_;
};

/// While it lives, `call` is made about once a second as long as nothing is written to stderr: by the thread of a
/// `ProgressLine`, if there is one. Local.
class WhileSilent {
 public:
  explicit WhileSilent(std::function<void()> call);
  ~WhileSilent();
  WhileSilent(const WhileSilent&) = delete;
  WhileSilent& operator=(const WhileSilent&) = delete;
};

}  // namespace attnreg::app
