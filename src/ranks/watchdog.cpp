#include "ranks/watchdog.hpp"

#include <mpi.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "attnreg/error.hpp"
#include "errors/printable.hpp"
#include "ranks/activity.hpp"

namespace attnreg {

namespace {

constexpr auto kUnordered = std::memory_order_relaxed;

/// "T" of a stopped process, as /proc has it; empty if it cannot be read.
std::string process_state(int process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(')');
  return name_end == std::string::npos || name_end + 2 >= line.size() ? "" : line.substr(name_end + 2, 1);
}

void check_call(int result, const char* call) {
  if (result != MPI_SUCCESS) throw InternalError(std::string(call) + " failed for the watchdog");
}

}  // namespace

class Watchdog::Impl {
  /// A text that other processes read while it is written: then it may be a mixture, but it ends.
  class SharedText {
   public:
    void set(std::string_view text) {
      const std::size_t length = std::min(text.size(), characters_.size() - 1);
      for (std::size_t k = 0; k < length; ++k) characters_[k].store(text[k], kUnordered);
      characters_[length].store(0, kUnordered);
    }
    std::string get() const {
      std::string text;
      for (std::size_t k = 0; k + 1 < characters_.size(); ++k) {
        const char c = characters_[k].load(kUnordered);
        if (c == 0) break;
        text += c;
      }
      return printable(text);
    }

   private:
    std::array<std::atomic<char>, 240> characters_;
  };

  /// A rank in the memory of its node, which begins as zeros.
  struct Slot {
    std::atomic<std::uint64_t> beats;     // of its watchdog
    std::atomic<std::uint64_t> progress;  // of the rank
    std::atomic<int> rank, process;
    std::atomic<bool> reported;  // in the first slot: somebody prints
    SharedText does, message;
  };

 public:
  Impl(const Communicator& all, double seconds)
      : seconds_(seconds), tick_(std::min(seconds / 8, 0.25)), rank_(all.rank()) {
    const std::exception_ptr failure = begin_to_watch();
    const Communicator communicator(all.handle());  // what is said here is no part of the run
    communicator.agree([&] {
      if (failure) std::rethrow_exception(failure);
    });
    MPI_Comm node = MPI_COMM_NULL;
    check_call(MPI_Comm_split_type(communicator.handle(), MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
               "MPI_Comm_split_type");
    int ranks = 1, own = 0, unit = 1;
    MPI_Comm_size(node, &ranks);
    MPI_Comm_rank(node, &own);
    void* memory = nullptr;
    check_call(MPI_Win_allocate_shared(own == 0 ? static_cast<MPI_Aint>(sizeof(Slot)) * ranks : 0, 1, MPI_INFO_NULL,
                                       node, &memory, &window_),
               "MPI_Win_allocate_shared");
    MPI_Aint bytes = 0;
    check_call(MPI_Win_shared_query(window_, 0, &bytes, &unit, &memory), "MPI_Win_shared_query");
    Slot* const slots = static_cast<Slot*>(memory);
    Slot* const slot = new (slots + own) Slot{};
    slot->rank.store(rank_);
    slot->process.store(getpid());
    MPI_Comm_free(&node);
    communicator.barrier();  // all slots are there
    const std::lock_guard lock(mutex_);
    slots_ = slots, own_ = slot;
    seen_.assign(static_cast<std::size_t>(ranks), Seen{});
  }

  ~Impl() {
    if (thread_.joinable()) {
      thread_.request_stop();
      thread_.join();
    }
    if (window_ != MPI_WIN_NULL) MPI_Win_free(&window_);
  }

 private:
  struct Seen {
    std::uint64_t beats = 0, progress = 0;
    int age = 0;  // ticks since the beats changed
  };

  /// Before the first message: a rank may be stopped there, too.
  std::exception_ptr begin_to_watch() {
    std::exception_ptr failure;
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);  // signals are for the rank's own thread
    try {
      thread_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
    } catch (const std::system_error& error) {
      failure = std::make_exception_ptr(OutOfMemory(std::string("no thread for the watchdog: ") + error.what()));
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return failure;
  }

  void watch(const std::stop_token& stop) {
    std::uint64_t before = 0;
    int idle = 0;  // ticks without progress
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait_for(lock, stop, std::chrono::duration<double>(tick_), [] { return false; });
      if (stop.stop_requested()) return;
      const std::uint64_t now = own_activity().progress.load(kUnordered);
      bool moves = now != before;
      before = now;
      if (slots_ != nullptr) {
        publish(now);
        moves |= others_move();
      }
      idle = moves ? 0 : idle + 1;
      if (idle * tick_ >= seconds_) abort_job(idle);
    }
  }

  void publish(std::uint64_t progress) {
    Activity& own = own_activity();
    std::string text, message;
    {
      const std::lock_guard lock(own.mutex);
      text = own.phase;
      message = own.message;
    }
    const char* const call = own.call.load(kUnordered);
    own_->does.set(text + (call == nullptr ? ", not in a collective: it computes, reads or writes"
                                           : ", waits for other ranks in a " + std::string(call) + " of length " +
                                                 std::to_string(own.count.load(kUnordered))));
    own_->message.set(message);
    own_->progress.store(progress, kUnordered);
    own_->beats.fetch_add(1, kUnordered);
  }

  /// Whether a rank of this node made progress since the last call: then those that wait for it do not stand still.
  bool others_move() {
    bool move = false;
    for (std::size_t k = 0; k < seen_.size(); ++k) {
      const std::uint64_t beats = slots_[k].beats.load(kUnordered), progress = slots_[k].progress.load(kUnordered);
      move |= progress != seen_[k].progress;
      seen_[k] = {beats, progress, beats == seen_[k].beats ? seen_[k].age + 1 : 0};
    }
    return move;
  }

  std::string line_of(std::size_t k, int idle) const {
    const Slot& slot = slots_[k];
    std::string text = "attnreg: watchdog: rank " + std::to_string(slot.rank.load(kUnordered)) + ": ";
    if (seen_[k].age > std::max(idle / 2, 3)) {
      const int process = slot.process.load(kUnordered);
      const std::string state = process_state(process);
      text += (state == "T" ? "STOPPED by a signal (process " : "SILENT, stopped or dead (process ") +
              std::to_string(process) + "); before: ";
    }
    const std::string message = slot.message.get();
    return text + slot.does.get() + (message.empty() ? "" : "; last message: " + message) + "\n";
  }

  [[noreturn]] void abort_job(int idle) {
    constexpr auto kOthersPrint = std::chrono::seconds(1);  // on other nodes; and mpirun passes on what was printed
    std::signal(SIGALRM, SIG_DFL);
    alarm(10);  // if MPI_Abort waits, too
    if (slots_ == nullptr || !slots_[0].reported.exchange(true)) {
      std::string text = "attnreg: error on rank " + std::to_string(rank_) + ": no progress for " + text_of(seconds_) +
                         " s (--watchdog); ranks on " + printable(host_name()) + ":\n";
      if (slots_ == nullptr) text += "attnreg: watchdog: not all of them have begun to watch\n";
      for (std::size_t k = 0; k < seen_.size(); ++k) text += line_of(k, idle);
      std::fwrite(text.data(), 1, text.size(), stderr);
      std::fflush(stderr);
    }
    std::this_thread::sleep_for(kOthersPrint);
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::internal));
    std::_Exit(static_cast<int>(ExitCode::internal));
  }

  double seconds_, tick_;
  int rank_;
  MPI_Win window_ = MPI_WIN_NULL;
  Slot *slots_ = nullptr, *own_ = nullptr;
  std::vector<Seen> seen_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;
};

Watchdog::Watchdog(const Communicator& communicator, double seconds)
    : impl_(std::make_unique<Impl>(communicator, seconds)) {}
Watchdog::~Watchdog() = default;

}  // namespace attnreg
