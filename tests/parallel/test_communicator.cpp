#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>

#include "attnreg/communicator.hpp"
#include "ranks/mpi_facts.hpp"

namespace attnreg::test_communicator {

/// Splits every message of more than 7 elements.
Communicator world() { return Communicator(MPI_COMM_WORLD, {.elements_per_call = 7}); }

std::vector<double> iota(std::size_t size, double first) {
  std::vector<double> values(size);
  std::iota(values.begin(), values.end(), first);
  return values;
}

/// The error that `call` throws: its class as an exit code, scope and message.
struct Caught {
  bool thrown = false;
  ExitCode code = ExitCode::converged;
  Error::Scope scope = Error::Scope::this_rank;
  std::string message;
};

template <class Exception = Error>
Caught caught(const std::function<void()>& call) {
  try {
    call();
  } catch (const Exception& error) {
    return {true, error.code(), error.scope(), error.what()};
  }
  return {};
}

TEST(Communicator, KnowsItsRanks) {
  const auto comm = world();
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_EQ(comm.rank(), rank);
  EXPECT_EQ(comm.size(), size);
  EXPECT_EQ(comm.is_root(), rank == 0);
}

// Parts of 0, 1, 2, ... numbers, and in another order; in one call and split.
TEST(Communicator, DealsOutASum) {
  const Communicator in_pieces = world(), at_once(MPI_COMM_WORLD);
  const int size = at_once.size();
  for (const bool rising : {true, false}) {
    std::vector<std::int64_t> counts;
    std::size_t total = 0, before = 0;
    for (int rank = 0; rank < size; ++rank) {
      counts.push_back(11 * (rising ? rank : size - 1 - rank));
      if (rank == at_once.rank()) before = total;
      total += static_cast<std::size_t>(counts.back());
    }
    const auto values = iota(total, at_once.rank());
    for (const Communicator* comm : {&in_pieces, &at_once}) {
      std::vector<double> own(static_cast<std::size_t>(counts[static_cast<std::size_t>(comm->rank())]));
      const auto collectives = comm->collectives();
      comm->sum_scatter(values, counts, own);
      EXPECT_EQ(comm->collectives(), collectives + 1);
      for (std::size_t k = 0; k < own.size(); ++k)
        EXPECT_EQ(own[k], size * static_cast<double>(before + k) + size * (size - 1) / 2.0);
    }
  }
}

TEST(Communicator, TellsWhatMpiIs) {
  char library[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(library, &length);
  const auto facts = mpi_facts();
  EXPECT_EQ(facts.library, std::string(library, static_cast<std::size_t>(length)));
  EXPECT_GE(facts.standard, "3.1");
  int level = MPI_THREAD_SINGLE;
  MPI_Query_thread(&level);
  EXPECT_EQ(facts.thread_level == "multiple", level == MPI_THREAD_MULTIPLE);
}

TEST(Communicator, DuplicatesTheCallersCommunicator) {
  const auto comm = world();
  int result = MPI_IDENT;
  MPI_Comm_compare(MPI_COMM_WORLD, comm.handle(), &result);
  EXPECT_EQ(result, MPI_CONGRUENT);
  const Communicator self(MPI_COMM_SELF);
  EXPECT_EQ(self.size(), 1);
  EXPECT_EQ(self.sum(3.0), 3.0);
}

TEST(Communicator, RanksOnNodeHaveOneHostName) {
  const auto comm = world();
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  const auto hash = static_cast<std::int64_t>(std::hash<std::string>{}(name.data()));
  const auto hashes = comm.all_gather(hash);
  EXPECT_EQ(comm.ranks_on_node(), std::count(hashes.begin(), hashes.end(), hash));
}

TEST(Communicator, SumsVectorsOfAnyLength) {
  const auto comm = world();
  const double ranks = comm.size(), rank_sum = ranks * (ranks - 1) / 2;
  for (const std::size_t size : {0u, 1u, 6u, 7u, 8u, 14u, 50u}) {
    auto values = iota(size, comm.rank());
    comm.sum(values);
    for (std::size_t k = 0; k < size; ++k) EXPECT_EQ(values[k], rank_sum + ranks * static_cast<double>(k));
  }
}

TEST(Communicator, SumsToTheRootOnly) {
  const auto comm = world();
  auto values = iota(20, comm.rank());
  const auto before = values;
  comm.sum_to_root(values);
  if (!comm.is_root()) {
    EXPECT_EQ(values, before);
    return;
  }
  const double ranks = comm.size();
  for (std::size_t k = 0; k < values.size(); ++k)
    EXPECT_EQ(values[k], ranks * (ranks - 1) / 2 + ranks * static_cast<double>(k));
}

TEST(Communicator, SumsAreTheSameBitsEverywhere) {
  const auto comm = world();
  std::vector<double> values(30);
  for (std::size_t k = 0; k < values.size(); ++k) values[k] = 1.0 / (comm.rank() + 3.0 + static_cast<double>(k));
  comm.sum(values);
  EXPECT_TRUE(comm.is_replicated(values));
}

TEST(Communicator, ReducesScalars) {
  const auto comm = world();
  const int size = comm.size();
  const std::int64_t large = std::int64_t{1} << 60;  // exact as an integer, not as a double
  const auto integer_sum = comm.sum(large / size + comm.rank());
  const auto largest = comm.max(large + comm.rank());
  const auto smallest = comm.min(comm.rank() - large);
  const double sum = comm.sum(0.5);
  const double largest_value = comm.max(-1.5 * (comm.rank() + 1));
  EXPECT_EQ(integer_sum, large / size * size + size * (size - 1) / 2);
  EXPECT_EQ(largest, large + size - 1);
  EXPECT_EQ(smallest, -large);
  EXPECT_EQ(sum, 0.5 * size);
  EXPECT_EQ(largest_value, -1.5);
}

TEST(Communicator, BroadcastsFromEveryRoot) {
  const auto comm = world();
  for (int root = 0; root < comm.size(); ++root) {
    auto values = iota(15, 100.0 * comm.rank());
    comm.broadcast(std::span<double>(values), root);
    std::string bytes(10, static_cast<char>('a' + comm.rank()));
    comm.broadcast(std::span<char>(bytes), root);
    // Other ranks hold a text of another length, or none.
    const std::string text = comm.broadcast(std::string(static_cast<std::size_t>(9 * comm.rank()), 'x'), root);
    EXPECT_EQ(values, iota(15, 100.0 * root));
    EXPECT_EQ(bytes, std::string(10, static_cast<char>('a' + root)));
    EXPECT_EQ(text, std::string(static_cast<std::size_t>(9 * root), 'x'));
  }
}

TEST(Communicator, GathersScalarsInRankOrder) {
  const auto comm = world();
  const auto all = comm.all_gather(std::int64_t{10} * comm.rank());
  EXPECT_EQ(static_cast<int>(all.size()), comm.size());
  for (std::size_t k = 0; k < all.size(); ++k) EXPECT_EQ(all[k], 10 * static_cast<std::int64_t>(k));
}

TEST(Communicator, GathersDifferentLengthsEmptyOnesToo) {
  const auto comm = world();
  const auto length = [](int rank) {
    return rank % 2 == 0 ? static_cast<std::size_t>(0) : static_cast<std::size_t>(9 * rank);
  };
  std::vector<double> expected;
  for (int rank = 0; rank < comm.size(); ++rank)
    for (const double value : iota(length(rank), 1000.0 * rank)) expected.push_back(value);
  for (const Communicator& way : {comm, Communicator(MPI_COMM_WORLD)}) {  // split, and in one call
    const auto all = way.all_gather(std::span<const double>(iota(length(way.rank()), 1000.0 * way.rank())));
    const auto none = way.all_gather(std::span<const double>());
    EXPECT_EQ(all, expected);
    EXPECT_TRUE(none.empty());
    const auto before = way.collectives();
    const auto at_root = way.gather_to_root(iota(length(way.rank()), 1000.0 * way.rank()));
    EXPECT_EQ(way.collectives() - before, 2);
    EXPECT_EQ(at_root, way.is_root() ? expected : std::vector<double>());
  }
}

TEST(Communicator, ShiftsBytesOfAnyLengthAlongTheRing) {
  const auto bytes_of = [](int rank, int size) {
    return std::string(static_cast<std::size_t>((rank * 37 + 5) % (size + 3) * 9), static_cast<char>('a' + rank % 26));
  };
  const auto check = [&](const Communicator& comm) {
    for (int by = 0; by < 4; ++by) {
      const auto before = comm.collectives();
      const std::string own = bytes_of(comm.rank(), comm.size());
      const auto got = comm.shift(own, by);
      const int from = (comm.rank() - by % comm.size() + comm.size()) % comm.size();
      EXPECT_EQ(std::string(got.begin(), got.end()), bytes_of(from, comm.size()));
      if (!comm.is_of_blocks()) {
        EXPECT_EQ(comm.collectives() - before, by % comm.size() == 0 ? 0 : 1);
      }
    }
  };
  check(world());  // in pieces
  check(Communicator(MPI_COMM_WORLD));
  world().in_blocks(5, check);
}

TEST(Communicator, FindsOutWhetherValuesAreReplicated) {
  const auto comm = world();
  const bool last = comm.rank() == comm.size() - 1, alone = comm.size() == 1;
  const auto same = comm.is_replicated(iota(9, 1));
  auto one_bit = iota(9, 1);
  if (last) one_bit[8] = std::nextafter(one_bit[8], 0);
  const auto other_bit = comm.is_replicated(one_bit);
  const auto other_length = comm.is_replicated(iota(last ? 8u : 9u, 1));
  const auto other_zero = comm.is_replicated(std::array{last ? -0.0 : 0.0});
  const auto other_order = comm.is_replicated(last ? std::array{1.0, 2.0} : std::array{2.0, 1.0});
  const auto empty = comm.is_replicated({});
  EXPECT_TRUE(same);
  EXPECT_TRUE(empty);
  EXPECT_EQ(other_bit, alone);
  EXPECT_EQ(other_length, alone);
  EXPECT_EQ(other_zero, alone);
  EXPECT_EQ(other_order, alone);
}

TEST(Communicator, CountsACollectiveOnceHoweverLong) {
  const auto comm = world();
  std::vector<double> values(50);
  std::string bytes(50, 'a');
  const std::function<void()> calls[] = {
      [&] { comm.sum(values); },
      [&] { comm.sum(1.0); },
      [&] { comm.sum(std::int64_t{1}); },
      [&] { comm.sum_to_root(values); },
      [&] { comm.max(1.0); },
      [&] { comm.max(std::int64_t{1}); },
      [&] { comm.min(std::int64_t{1}); },
      [&] { comm.broadcast(std::span<double>(values)); },
      [&] { comm.broadcast(std::span<char>(bytes)); },
      [&] { comm.broadcast(bytes); },
      [&] { comm.all_gather(std::int64_t{1}); },
      [&] { comm.barrier(); },
      [&] { comm.is_replicated(values); },
      [&] { comm.agree([] {}); },
  };
  std::vector<std::int64_t> counts;
  for (const auto& call : calls) {
    const auto before = comm.collectives();
    call();
    counts.push_back(comm.collectives() - before);
  }
  EXPECT_EQ(counts, std::vector<std::int64_t>(std::size(calls), 1));
}

TEST(Communicator, CopiesShareTheCounterAndTheDuplicate) {
  const auto comm = world();
  const Communicator copy = comm;
  copy.barrier();
  EXPECT_EQ(comm.collectives(), 1);
  EXPECT_EQ(comm.handle(), copy.handle());
  EXPECT_EQ(world().collectives(), 0);
}

TEST(Communicator, AFailingCallIsAnInternalErrorNotAnAbort) {
  const auto comm = world();
  const auto error = caught<InternalError>([&] { comm.broadcast(std::string("x"), comm.size()); });
  EXPECT_TRUE(error.thrown);
  EXPECT_NE(error.message.find("MPI_Bcast"), std::string::npos) << error.message;
}

TEST(Agree, ThrowsTheErrorOfOneRankEverywhere) {
  const auto comm = world();
  const std::string message = "a text that is longer than one call: rows 3 to 5 of A.npy";
  const auto error = caught<OutputError>([&] {
    comm.agree([&] {
      if (comm.rank() == comm.size() - 1) throw OutputError(message);
    });
  });
  EXPECT_TRUE(error.thrown);
  EXPECT_EQ(error.code, ExitCode::output);
  EXPECT_EQ(error.scope, Error::Scope::all_ranks);
  EXPECT_EQ(error.message, message);
}

TEST(Agree, TheLowestFailingRankIsHeard) {
  const auto comm = world();
  const int lowest = comm.size() > 1 ? 1 : 0;
  const auto error = caught([&] {
    comm.agree([&] {
      if (comm.rank() == lowest) throw InvalidArgument("rank " + std::to_string(comm.rank()));
      if (comm.rank() > lowest) throw OutputError("rank " + std::to_string(comm.rank()));
    });
  });
  EXPECT_EQ(error.code, ExitCode::bad_input);
  EXPECT_EQ(error.message, "rank " + std::to_string(lowest));
}

TEST(Agree, BadAllocBecomesOutOfMemory) {
  const auto comm = world();
  const int last = comm.size() - 1;
  const auto error = caught<OutOfMemory>([&] {
    comm.agree([&] {
      if (comm.rank() == last) throw std::bad_alloc();
    });
  });
  EXPECT_TRUE(error.thrown);
  EXPECT_EQ(error.scope, Error::Scope::all_ranks);
  EXPECT_NE(error.message.find("rank " + std::to_string(last)), std::string::npos) << error.message;
}

TEST(Agree, AnErrorThatAllRanksHaveAlreadyPasses) {
  const auto comm = world();
  const auto error = caught<InvalidArgument>(
      [&] { comm.agree([&] { throw InvalidArgument("agreed before", Error::Scope::all_ranks); }); });
  EXPECT_EQ(error.message, "agreed before");
  EXPECT_EQ(comm.collectives(), 0);
}

TEST(Agree, AnUnexpectedExceptionLeavesAtOnce) {
  const auto comm = world();
  EXPECT_THROW(comm.agree([] { throw std::logic_error("a bug"); }), std::logic_error);
  EXPECT_EQ(comm.collectives(), 0);
}

TEST(Agree, IsQuietWhenAllIsWellAndUsableAfterAFailure) {
  const auto comm = world();
  int runs = 0;
  const auto failed = caught([&] { comm.agree([] { throw InternalError("all ranks fail"); }); });
  comm.agree([&] { ++runs; });
  const double sum = comm.sum(1.0);
  EXPECT_EQ(failed.code, ExitCode::internal);
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(sum, comm.size());
}

#ifdef ATTNREG_CHECK_COLLECTIVES
// A planted mismatch of each kind: the call, the length, the root. Without the check these would hang, or sum rubbish.
TEST(Collectives, ThatDifferAreNamed) {
  const auto comm = world();
  const bool odd = comm.rank() == comm.size() - 1 && comm.size() > 1;
  std::vector<double> three(3, 1.0), four(4, 1.0);
  const auto call = caught<InternalError>([&] { odd ? comm.broadcast(three) : comm.sum(three); });
  const auto length = caught<InternalError>([&] { comm.sum(odd ? four : three); });
  const auto root = caught<InternalError>([&] { comm.broadcast(three, odd ? 1 : 0); });
  const auto type =
      caught<InternalError>([&] { odd ? comm.max(1.0) : static_cast<double>(comm.max(std::int64_t{1})); });
  const double sum = comm.sum(1.0);  // goes on
  EXPECT_EQ(sum, comm.size());
  if (comm.size() == 1) {
    EXPECT_FALSE(call.thrown || length.thrown || root.thrown || type.thrown);
    return;
  }
  const std::string last = "rank " + std::to_string(comm.size() - 1) + " calls ";
  EXPECT_NE(call.message.find("rank 0 calls sum of doubles of length 3"), std::string::npos) << call.message;
  EXPECT_NE(call.message.find(last + "broadcast of doubles of length 3"), std::string::npos) << call.message;
  EXPECT_NE(length.message.find(last + "sum of doubles of length 4"), std::string::npos) << length.message;
  EXPECT_NE(root.message.find(last + "broadcast of doubles of length 3 at root 1"), std::string::npos) << root.message;
  EXPECT_NE(type.message.find(last + "maximum of a double"), std::string::npos) << type.message;
  EXPECT_EQ(call.code, ExitCode::internal);
}
#endif

}  // namespace attnreg::test_communicator
