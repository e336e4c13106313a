// The main of all tests that run under mpirun. Every rank runs the same tests in the same order; at the end of each
// the ranks agree on its outcome, rank 0 prints the failures of all ranks, and all ranks exit with the same code.
//
// A rank that leaves a test while others wait for it in a collective cannot be helped; the watchdog then makes every
// rank say where it is, and aborts the job.

#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <sstream>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

namespace {

/// Prints what this rank is doing and aborts the job, unless the tests end within the given time.
class Watchdog {
 public:
  explicit Watchdog(int rank) : rank_(rank) {}

  void start(std::chrono::seconds limit) {
    thread_ = std::jthread([this, limit](const std::stop_token& stop) { watch(stop, limit); });
  }

  /// What this rank is doing from now on.
  void note(std::string activity) {
    const std::lock_guard lock(mutex_);
    activity_ = std::move(activity);
  }

 private:
  void watch(const std::stop_token& stop, std::chrono::seconds limit) {
    std::unique_lock lock(mutex_);
    if (wake_.wait_for(lock, stop, limit, [&] { return stop.stop_requested(); }) || stop.stop_requested()) return;
    std::ostringstream out;
    out << "[rank " << rank_ << "] time limit of " << limit.count() << " s: " << activity_ << '\n';
    std::cout << out.str() << std::flush;
    std::this_thread::sleep_for(std::chrono::seconds(2));  // the other ranks want to say it too
    MPI_Abort(MPI_COMM_WORLD, 124);
    std::_Exit(124);
  }

  int rank_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::string activity_ = "before the first test";
  std::jthread thread_;
};

/// Collective. The ranks' texts one after another on rank 0, nothing elsewhere.
std::string gather_to_root(const std::string& text, MPI_Comm communicator) {
  int ranks = 0;
  int rank = 0;
  MPI_Comm_size(communicator, &ranks);
  MPI_Comm_rank(communicator, &rank);
  const int length = static_cast<int>(text.size());
  std::vector<int> lengths(static_cast<std::size_t>(ranks));
  MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, communicator);
  std::vector<int> offsets(lengths.size());
  int total = 0;
  if (rank == 0) {
    for (std::size_t k = 0; k < lengths.size(); ++k) {
      offsets[k] = total;
      total += lengths[k];
    }
  }
  std::string all(static_cast<std::size_t>(total), '\0');
  MPI_Gatherv(text.data(), length, MPI_CHAR, all.data(), lengths.data(), offsets.data(), MPI_CHAR, 0, communicator);
  return all;
}

/// Collective. Whether `mine` holds on any rank.
bool any_rank(bool mine, MPI_Comm communicator) {
  int any = mine ? 1 : 0;
  MPI_Allreduce(MPI_IN_PLACE, &any, 1, MPI_INT, MPI_MAX, communicator);
  return any != 0;
}

/// Replaces GoogleTest's printer: rank 0 prints for all ranks.
class MpiListener : public testing::EmptyTestEventListener {
 public:
  MpiListener(MPI_Comm communicator, Watchdog& watchdog) : communicator_(communicator), watchdog_(watchdog) {
    MPI_Comm_rank(communicator_, &rank_);
    MPI_Comm_size(communicator_, &ranks_);
  }

  void OnTestStart(const testing::TestInfo& test) override {
    watchdog_.note("in test " + full_name(test));
    if (rank_ == 0) std::cout << "[ RUN      ] " << full_name(test) << std::endl;
  }

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (result.passed()) return;
    std::ostringstream out;
    out << "[rank " << rank_ << "] ";
    if (result.file_name() != nullptr) out << result.file_name() << ':' << result.line_number() << ": ";
    out << (result.skipped() ? "Skipped" : "Failure") << '\n' << result.message() << '\n';
    messages_ += out.str();
    failed_ = failed_ || result.failed();
  }

  void OnTestEnd(const testing::TestInfo& test) override {
    watchdog_.note("waiting for the other ranks at the end of test " + full_name(test) +
                   (messages_.empty() ? "" : ", after\n" + messages_));
    const bool failed = agree_and_print();
    if (failed) failures_.push_back(full_name(test));
    if (rank_ != 0) return;
    std::cout << (failed                     ? "[  FAILED  ] "
                  : test.result()->Skipped() ? "[  SKIPPED ] "
                                             : "[       OK ] ")
              << full_name(test) << " (" << test.result()->elapsed_time() << " ms)" << std::endl;
  }

  void OnTestProgramEnd(const testing::UnitTest& tests) override {
    watchdog_.note("after the last test");
    if (agree_and_print()) failures_.emplace_back("(outside a test)");
    if (rank_ != 0) return;
    std::cout << "[==========] " << tests.test_to_run_count() << " tests on " << ranks_ << " rank"
              << (ranks_ > 1 ? "s" : "") << ", " << failures_.size() << " failed (" << tests.elapsed_time() << " ms)\n";
    for (const auto& name : failures_) std::cout << "[  FAILED  ] " << name << '\n';
    std::cout << std::flush;
  }

 private:
  static std::string full_name(const testing::TestInfo& test) {
    return std::string(test.test_suite_name()) + '.' + test.name();
  }

  /// Collective. Prints the messages that came up since the last call; whether there is a failure among them.
  bool agree_and_print() {
    const bool failed = any_rank(failed_, communicator_);
    if (any_rank(!messages_.empty(), communicator_)) {
      const std::string all = gather_to_root(messages_, communicator_);
      if (rank_ == 0) std::cout << all << std::flush;
    }
    messages_.clear();
    failed_ = false;
    return failed;
  }

  MPI_Comm communicator_;
  Watchdog& watchdog_;
  int rank_ = 0;
  int ranks_ = 1;
  std::string messages_;  ///< of this rank, not yet printed
  bool failed_ = false;   ///< one of them is a failure
  std::vector<std::string> failures_;
};

/// Collective. Makes the order of the tests and the files written agree on all ranks.
void unify_flags(int rank) {
  int seed = GTEST_FLAG_GET(random_seed);
  if (GTEST_FLAG_GET(shuffle) && seed == 0) seed = 1;
  MPI_Bcast(&seed, 1, MPI_INT, 0, MPI_COMM_WORLD);
  GTEST_FLAG_SET(random_seed, seed);
  if (rank != 0) GTEST_FLAG_SET(output, "");
}

/// GoogleTest's filter for the tests of a source file, which is given without its directory.
std::string tests_of(const std::string& file) {
  std::string filter;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *all.GetTestSuite(s);
    for (int k = 0; k < suite.total_test_count(); ++k) {
      const testing::TestInfo& test = *suite.GetTestInfo(k);
      if (std::filesystem::path(test.file()).filename() == file)
        filter += std::string(suite.name()) + '.' + test.name() + ':';
    }
  }
  return filter;
}

int run_tests(int rank) {
  MPI_Comm communicator = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &communicator);
  int code = 0;
  {
    Watchdog watchdog(rank);
    if (const char* seconds = std::getenv("ATTNREG_TEST_WATCHDOG_SECONDS")) {
      watchdog.start(std::chrono::seconds(std::atoi(seconds)));
    }
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new MpiListener(communicator, watchdog));
    code = RUN_ALL_TESTS();
    MPI_Allreduce(MPI_IN_PLACE, &code, 1, MPI_INT, MPI_MAX, communicator);
  }
  MPI_Comm_free(&communicator);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  int provided = MPI_THREAD_SINGLE;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  testing::InitGoogleTest(&argc, argv);
  unify_flags(rank);
  if (argc > 1) {  // the one argument that is not GoogleTest's: a source file
    const std::string filter = tests_of(argv[1]);
    if (filter.empty()) {
      std::cout << "there are no tests in " << argv[1] << std::endl;
      MPI_Abort(MPI_COMM_WORLD, 1);
    }
    GTEST_FLAG_SET(filter, filter);
  }
  const int code = provided < MPI_THREAD_FUNNELED ? 1 : run_tests(rank);
  MPI_Finalize();
  return code;
}
