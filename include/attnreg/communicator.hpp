#pragma once

#include <mpi.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "attnreg/error.hpp"

namespace attnreg {

class BlockCalls;
class JointSums;

/// A group of ranks and everything that they say to each other.
///
/// It duplicates the caller's communicator, so that attnreg's messages never mix with the caller's, and frees the
/// duplicate with its last copy. Copies are cheap: they share the duplicate and the counter of collectives. Sizes are
/// 64-bit; a call with more elements than MPI's `int` counts allow is split. A failing MPI call throws `InternalError`.
///
/// A sum over ranks has the same bits on all ranks of a run; its order depends on the number of ranks. On *blocks*
/// (`in_blocks`) it does not.
class Communicator {
 public:
  struct Limits {
    std::int64_t elements_per_call = std::int64_t{1} << 30;  ///< longer messages are split; tests make it small
  };

  /// Collective over `parent`: duplicates it. MPI must be initialized and outlive every copy. Threads of a
  /// process take turns with attnreg: two must be neither in a collective of one communicator nor in BLAS at once.
  explicit Communicator(MPI_Comm parent, Limits limits);
  explicit Communicator(MPI_Comm parent) : Communicator(parent, Limits{}) {}

  int rank() const noexcept;
  int size() const noexcept;
  bool is_root() const noexcept { return rank() == 0; }
  int ranks_on_node() const noexcept;  ///< ranks that share this rank's memory
  MPI_Comm handle() const noexcept;    ///< the duplicate; of blocks MPI_COMM_NULL

  /// Local. Collective operations of this communicator so far, agreements included. One that was split counts once.
  std::int64_t collectives() const noexcept;

  /// Local, from any thread and from a signal handler. Asks what runs on this communicator, or on a copy, to end with
  /// what it has: a solve ends after the pass over A that it is in, on all ranks, with `Termination::stopped`. It
  /// cannot be taken back: what comes later on this communicator stops at once. Signals are the caller's business; the
  /// program has its own way.
  void ask_to_stop() const noexcept;
  bool is_asked_to_stop() const noexcept;  ///< Local. This rank, by `ask_to_stop` or as the program is.
  /// Local, replicated. Whether a message has told that one of the ranks was asked to stop.
  bool is_stopped() const noexcept;
  void note_stop() const noexcept;  ///< Logically collective.
  /// Local, replicated. Whether one of them was asked for a checkpoint, since the last call.
  bool takes_checkpoint() const noexcept;
  void note_checkpoint() const noexcept;  ///< Logically collective.

  /// Collective. Calls `work` with the communicators of so many *blocks*, which it cannot tell from ranks: what is
  /// computed has the same bits on any number of processes with any number of threads, and however the blocks are dealt
  /// out. blocks: how many of them each rank takes, in rank order, replicated; rank 0 one at least, others perhaps
  /// none. The blocks of a rank take turns on its thread, each on a stack of its own, and go on from a collective when
  /// all blocks of all ranks have called it. Sums are made along one binary tree over the blocks, and passes over rows
  /// divided in parts that follow from a block's size alone. What a rank has once, each block has: d x d matrices, what
  /// is replicated. An error that all blocks agree on is thrown here, on all ranks. Calls within `work` do not nest.
  void in_blocks(const std::vector<int>& blocks, const std::function<void(const Communicator&)>& work) const;
  /// Collective. The same with `blocks` blocks, spread evenly; those ranks that come last get none if they are more.
  void in_blocks(int blocks, const std::function<void(const Communicator&)>& work) const;
  bool is_of_blocks() const noexcept;
  int processes() const noexcept;          ///< that the ranks are on: `size()`, but for blocks
  int processes_on_node() const noexcept;  ///< likewise; of blocks those that have any
  bool leads_process() const noexcept;     ///< whether this is the first rank of its process: not every block is

  /// Collective. Replaces `values` by their sum over the ranks, on every rank. One all-reduce of 8 size bytes.
  void sum(std::span<double> values) const;
  double sum(double value) const;
  std::int64_t sum(std::int64_t value) const;
  /// Collective. Like `sum`, but only rank 0 receives the result; elsewhere `values` is left as it was, or
  /// on blocks holds a part of the sum.
  void sum_to_root(std::span<double> values) const;
  /// Collective. Sums `values` over the ranks and deals the sum out: the first counts[0] numbers to rank 0, the next
  /// counts[1] to rank 1, ... One reduce-scatter of 8 size bytes. counts: replicated; own: counts[rank()] numbers.
  void sum_scatter(std::span<const double> values, std::span<const std::int64_t> counts, std::span<double> own) const;

  /// Collective. The largest (smallest) value over the ranks, on every rank.
  double max(double value) const;
  void max(std::span<double> values) const;  ///< of each of the numbers
  std::int64_t max(std::int64_t value) const;
  std::int64_t min(std::int64_t value) const;

  /// Collective. Replaces `values` everywhere by those of rank `root`.
  void broadcast(std::span<double> values, int root = 0) const;
  void broadcast(std::span<char> bytes, int root = 0) const;
  std::string broadcast(std::string text, int root = 0) const;

  /// Collective. One value per rank, in rank order, on every rank.
  std::vector<std::int64_t> all_gather(std::int64_t value) const;
  /// Collective. The ranks' values one after another in rank order, on every rank; the lengths may differ.
  std::vector<double> all_gather(std::span<const double> values) const;

  /// Collective. The same on rank 0 only, empty elsewhere. An all-gather of 8 bytes, and a gather.
  std::vector<double> gather_to_root(std::span<const double> values) const;

  /// Collective. The bytes of the rank that comes `by` before this one, in a ring; lengths may differ. by >= 0,
  /// replicated. One message from each rank to one other; of blocks an all-gather of all bytes.
  std::vector<char> shift(std::span<const char> bytes, int by) const;

  /// Collective. Returns on no rank before all ranks have called it.
  void barrier() const;

  /// Collective. Whether `values` has the same length and bits on all ranks, as a replicated argument must.
  bool is_replicated(std::span<const double> values) const;

  /// Collective. Runs `phase`, which may not contain collectives, and agrees on how it ended: if it threw an attnreg
  /// error or `std::bad_alloc` on any rank, the error of the lowest such rank is thrown on all ranks. One all-reduce of
  /// 8 bytes when all is well. Any other exception leaves at once: it is a bug.
  template <class Phase>
  void agree(Phase&& phase) const {
    std::optional<Failure> failure;
    try {
      phase();
    } catch (const Error& error) {
      if (error.scope() == Error::Scope::all_ranks) throw;
      failure = Failure{error.code(), error.what()};
    } catch (const std::bad_alloc&) {
      failure = Failure{ExitCode::memory, "out of memory on rank " + std::to_string(rank())};
    }
    agree_on(failure);
  }
  /// Collective. The same where rank 0 alone runs `phase`.
  template <class Phase>
  void agree_on_root(Phase&& phase) const {
    agree([&] {
      if (is_root()) phase();
    });
  }

 private:
  friend class RowPasses;  // makes the communicators of tasks that share messages
  friend Communicator alone(const Communicator& other);
  void stop_with(const Communicator& other);  ///< Local. From now on a request to stop is one of both.
  /// Local. The same ranks with a counter of collectives of its own. Sums of doubles are left to `joint`, which must
  /// outlive the result.
  Communicator joined(JointSums& joint) const;

  /// Local. That of a block of these ranks.
  Communicator of_block(BlockCalls& calls, int block) const;

  struct Failure {
    ExitCode code;
    std::string message;
  };
  struct State;
  explicit Communicator(std::shared_ptr<State> state) : state_(std::move(state)) {}

  void agree_on(const std::optional<Failure>& failure) const;

  std::shared_ptr<State> state_;
};

}  // namespace attnreg
