#pragma once

#include <Eigen/Core>
#include <chrono>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attnreg {

/// What is left of an iteration, so that another process can go on from there: replicated values, none of them of rows.
struct Stage {
  std::string name;       ///< of the method
  bool finished = false;  ///< else it is on its way, or, without numbers, has not begun
  std::vector<double> numbers{};
  std::vector<Eigen::VectorXd> vectors{};
  std::vector<std::string> texts{};

  bool empty() const { return numbers.empty() && vectors.empty(); }
};

/// The stages of a solve, in the order in which they begin: the start, the solve from it, the next start, ... With the
/// same inputs and options they are the same in another process, which finds what the stages have left: it takes over
/// the end of those that are finished, and goes on where the next one was. That one goes on as in the process before,
/// to the last bit: at a checkpoint a stage keeps nothing but what it leaves here, and makes the rest anew. Where that
/// is dear, it leaves the same and keeps the rest, and x agrees up to rounding.
///
/// All members are local, but replicated: without a message the journals of all ranks are the same. Seconds are those
/// of rank 0 that ride on other messages.
class Journal {
 public:
  /// Where checkpoints of blocks are, whatever the time, so that x has the same bits with and without an interruption.
  struct Cadence {
    int iterations = 0;    ///< between checkpoints; 0: the time tells, and nothing else here counts
    bool at_ends = false;  ///< of stages too: where ends are compared, or followed by other solves
  };
  /// A stage is left every `interval` seconds; 0: at every iteration. `write` is called after each. With a cadence
  /// nothing is left but checkpoints, and `write` is called after one once the interval is over.
  Journal(double interval, std::function<void()> write) : Journal(interval, std::move(write), Cadence{}) {}
  Journal(double interval, std::function<void()> write, Cadence cadence);

  /// The next stage. `seconds` as in the `is_due` of this stage. What it has is of an earlier process, or of this one
  /// up to `checkpoint`; a stage of another name, and all that follow, are forgotten.
  Stage& open(std::string_view name, double seconds);

  /// How the stage that was opened last should leave what another process needs: its time has come, or `asked`.
  enum class Due {
    no,
    as_it_is,    ///< and go on: a `checkpoint` would take a hundredth of the time or more
    checkpoint,  ///< about as dear as an iteration
  };
  Due due(double seconds, bool asked);
  /// What the stage has is of something else: it and all that follow begin anew.
  void forget();
  /// The stage has what another process needs. Whether this is a checkpoint: then who opens a stage next opens this
  /// one.
  bool leave(Due due);
  /// The stage is finished. Whether this is a checkpoint: then its caller keeps nothing of the stage but what it left.
  bool finish(double seconds);
  /// For iterations that can go on from what the stage has as if they had not stopped: at any time, and `write` may be
  /// called by rank 0 alone, whose own clock tells.
  void update(bool finished);
  /// The solve is cut off, and goes on from this stage another time: what comes after it leaves nothing.
  void cut_off();

  /// A journal within this one, of one of several solves that take turns.
  std::shared_ptr<Journal> part(const std::string& name);

  /// What the last checkpoints left; `is_cut_off`: or the cut.
  bool is_cut_off() const;
  using Parts = std::map<std::string, std::vector<Stage>>;  ///< the journal's own stages are those of ""
  Parts kept() const;
  void resume(Parts parts);

 private:
  void keep() { kept_.assign(stages_.begin(), stages_.end()); }

  double interval_;
  std::function<void()> write_;
  Cadence cadence_;
  int since_ = 0;             // iterations
  bool asked_ = false;        // for a checkpoint
  std::deque<Stage> stages_;  // references to them last
  std::vector<Stage> kept_;
  std::size_t next_ = 0;
  bool reopens_ = false, cut_off_ = false;
  Stage nothing_;  // for what comes after a cut
  std::chrono::steady_clock::time_point updated_ = std::chrono::steady_clock::now();
  double seconds_ = 0;  // when it was last asked
  double since_left_ = 0, since_checkpoint_ = 0;
  std::map<std::string, std::shared_ptr<Journal>> parts_;
  Parts resumed_;  // of parts that were not asked for yet
};

}  // namespace attnreg
