// Blocks: what their communicators do, the bits of their sums, their errors.

#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include "algebra/shared_factor.hpp"
#include "attnreg/communicator.hpp"
#include "ranks/block_calls.hpp"
#include "ranks/once_in_process.hpp"
#include "support/reference.hpp"

namespace attnreg::test_blocks {

const Communicator& world() {
  static const Communicator communicator(MPI_COMM_WORLD);
  return communicator;
}

/// So many blocks, dealt out evenly, all to rank 0, all but one of each to the last, and with ranks that have none.
std::vector<std::vector<int>> deals(int blocks, int ranks) {
  const auto size = static_cast<std::size_t>(ranks);
  std::vector<int> even, first(size, 0), last(size, 1), gaps(size, 0);
  for (int rank = 0; rank < ranks; ++rank) even.push_back(blocks / ranks + (rank < blocks % ranks ? 1 : 0));
  first[0] = blocks;
  last.back() += blocks - ranks;
  gaps[0] = blocks / 3;
  gaps.back() += blocks - blocks / 3;
  return {even, first, last, gaps};
}

TEST(Blocks, DoWhatRanksDo) {
  constexpr int kBlocks = 13;
  for (const auto& deal : deals(kBlocks, world().size())) {
    std::vector<int> seen;
    int leading = 0;
    world().in_blocks(deal, [&](const Communicator& comm) {
      const int block = comm.rank();
      seen.push_back(block);
      leading += comm.leads_process() ? 1 : 0;
      EXPECT_TRUE(runs_in_block());
      EXPECT_TRUE(comm.is_of_blocks());
      EXPECT_EQ(comm.size(), kBlocks);
      EXPECT_EQ(comm.processes(), world().size());
      EXPECT_EQ(comm.is_root(), block == 0);
      EXPECT_EQ(comm.ranks_on_node(), kBlocks);  // tests run on one node
      std::vector<double> values{1.0 * block, -2.0 * block, 7};
      comm.sum(values);
      EXPECT_EQ(values, (std::vector<double>{78, -156, 91}));
      EXPECT_EQ(comm.sum(1.5), 1.5 * kBlocks);
      EXPECT_EQ(comm.sum(std::int64_t{block}), 78);
      EXPECT_EQ(comm.max(-std::abs(block - 5.0)), 0);
      EXPECT_EQ(comm.max(std::int64_t{block}), kBlocks - 1);
      EXPECT_EQ(comm.min(std::int64_t{block} - 3), -3);
      std::vector<double> at_root{1.0 * block};
      comm.sum_to_root(at_root);
      std::vector<double> sum = at_root;
      comm.broadcast(sum);
      EXPECT_EQ(sum[0], 78);
      std::vector<double> from{0.5 * block};
      comm.broadcast(from, 9);
      EXPECT_EQ(from[0], 4.5);
      EXPECT_EQ(comm.broadcast(std::string(static_cast<std::size_t>(block), 'x'), 4), "xxxx");
      const auto all = comm.all_gather(std::int64_t{1} << (4 * block));
      for (int k = 0; k < kBlocks; ++k) EXPECT_EQ(all[static_cast<std::size_t>(k)], std::int64_t{1} << (4 * k));
      const std::vector<double> own(static_cast<std::size_t>(block % 3), block);
      EXPECT_EQ(comm.all_gather(own), (std::vector<double>{1, 2, 2, 4, 5, 5, 7, 8, 8, 10, 11, 11}));
      EXPECT_EQ(comm.gather_to_root(own),
                block == 0 ? (std::vector<double>{1, 2, 2, 4, 5, 5, 7, 8, 8, 10, 11, 11}) : std::vector<double>{});
      std::vector<std::int64_t> counts(kBlocks, 1);
      std::vector<double> dealt(1), ones(kBlocks, 1);
      comm.sum_scatter(ones, counts, dealt);
      EXPECT_EQ(dealt[0], kBlocks);
      EXPECT_TRUE(comm.is_replicated(values));
      EXPECT_FALSE(comm.is_replicated(at_root));
      const std::int64_t before = comm.collectives();
      comm.barrier();
      EXPECT_EQ(comm.collectives(), before + 1);
      comm.sum(std::span<double>{});
      int made = 0;
      const auto shared = once_in_process(comm, [&] {
        ++made;
        return std::make_shared<const int>(block);
      });
      EXPECT_EQ(made, comm.leads_process() ? 1 : 0);
      EXPECT_EQ(*shared, seen.front());
    });
    EXPECT_FALSE(runs_in_block());
    std::vector<int> expected(static_cast<std::size_t>(deal[static_cast<std::size_t>(world().rank())]));
    std::iota(expected.begin(), expected.end(), std::accumulate(deal.begin(), deal.begin() + world().rank(), 0));
    EXPECT_EQ(seen, expected);
    EXPECT_EQ(leading, expected.empty() ? 0 : 1);
  }
}

TEST(Blocks, ShareAFactorAndWhatItIsAskedFor) {
  constexpr Eigen::Index d = 7;
  Eigen::MatrixXd L = Eigen::MatrixXd::Zero(d, d);
  for (Eigen::Index j = 0; j < d; ++j) {
    L.col(j).tail(d - j) = reference::random_vector(d - j, static_cast<std::uint64_t>(j));
    L(j, j) = 2 + static_cast<double>(j);
  }
  const Preconditioner expected(L);
  world().in_blocks(5, [&](const Communicator& comm) {
    const Preconditioner found = shared_preconditioner(comm, Preconditioner(L));
    for (int k = 0; k < 100; ++k) {  // more than are kept; blocks need not ask for the same
      const Eigen::VectorXd v = reference::random_vector(d, static_cast<std::uint64_t>(k % 90 + k * (comm.rank() % 2)));
      EXPECT_EQ(found.solve(v), expected.solve(v));
      EXPECT_EQ(found.multiply(v), expected.multiply(v));
      EXPECT_EQ(found.unwhiten(v), expected.unwhiten(v));
      EXPECT_EQ(found.whiten(v), expected.whiten(v));
      if (k % 30 == 0) comm.barrier();
    }
  });
}

TEST(Blocks, SpreadEvenly) {
  for (const int blocks : {1, 3, 16}) {
    double count = 0, most = 0;
    world().in_blocks(blocks, [&](const Communicator&) { ++count; });
    most = world().max(count);
    EXPECT_EQ(world().sum(count), blocks);
    EXPECT_EQ(most, std::ceil(blocks / static_cast<double>(world().size())));
  }
}

/// The sum of what block k has: of all magnitudes, so that another order gives other bits.
std::vector<double> sums(const Communicator& communicator, const std::vector<int>& deal, std::size_t size) {
  std::vector<double> result;
  communicator.in_blocks(deal, [&](const Communicator& comm) {
    const Eigen::VectorXd normal =
        reference::random_vector(static_cast<Eigen::Index>(size), 100 + static_cast<std::uint64_t>(comm.rank()));
    std::vector<double> values;
    for (std::size_t k = 0; k < size; ++k)
      values.push_back(std::ldexp(normal[static_cast<Eigen::Index>(k)], (comm.rank() * 7 + static_cast<int>(k)) % 40));
    comm.sum(values);
    result = values;
  });
  result.resize(size);
  communicator.broadcast(result);  // to those without blocks
  return result;
}

TEST(Blocks, SumsHaveTheSameBitsHoweverTheyAreDealtOut) {
  const Communicator self(MPI_COMM_SELF);
  for (const int blocks : {5, 8, 16, 23}) {
    const auto expected = sums(self, {blocks}, 1000);
    double other = 0;
    for (const auto& deal : deals(blocks, world().size())) EXPECT_EQ(sums(world(), deal, 1000), expected);
    self.in_blocks(1, [&](const Communicator& comm) {  // in the order of the blocks, as a test of the test
      std::vector<double> plain(1000);
      for (int block = 0; block < blocks; ++block) {
        const Eigen::VectorXd normal = reference::random_vector(1000, 100 + static_cast<std::uint64_t>(block));
        for (int k = 0; k < 1000; ++k)
          plain[static_cast<std::size_t>(k)] += std::ldexp(normal[k], (block * 7 + k) % 40);
      }
      for (std::size_t k = 0; k < 1000; ++k) other += plain[k] == expected[k] ? 0 : 1;
      EXPECT_EQ(comm.size(), 1);
    });
    EXPECT_GT(other, 10);
  }
}

struct Seen {
  bool thrown = false;
  ExitCode code = ExitCode::converged;
  Error::Scope scope = Error::Scope::this_rank;
  std::string message;
};

Seen seen(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return {true, error.code(), error.scope(), error.what()};
  }
  return {};
}

TEST(Blocks, AnErrorOfOneIsThrownOnAllRanks) {
  for (const auto& deal : deals(11, world().size())) {
    const Seen error = seen([&] {
      world().in_blocks(deal, [&](const Communicator& comm) {
        comm.agree([&] {
          if (comm.rank() == 7) throw InvalidArgument("block 7 has no rows");
        });
        ADD_FAILURE();
      });
    });
    EXPECT_TRUE(error.thrown);
    EXPECT_EQ(error.code, ExitCode::bad_input);
    EXPECT_EQ(error.scope, Error::Scope::all_ranks);
    EXPECT_EQ(error.message, "block 7 has no rows");
    EXPECT_EQ(world().sum(1.0), world().size());  // all go on
  }
}

// The C++ runtime has one list of exceptions that are being handled, whatever the stack.
TEST(Blocks, CollectivesInHandlersLeaveEachBlockItsOwnException) {
  for (const auto& deal : deals(9, world().size()))
    world().in_blocks(deal, [&](const Communicator& comm) {
      std::string text, outer;
      try {
        try {
          throw std::runtime_error("of " + std::to_string(comm.rank()));
        } catch (const std::exception&) {
          comm.barrier();
          try {
            throw std::logic_error("another of " + std::to_string(comm.rank()));
          } catch (const std::exception& error) {
            comm.barrier();
            text = error.what();
          }
          EXPECT_EQ(comm.sum(1.0), 9);
          throw;
        }
      } catch (const std::exception& error) {
        outer = error.what();
      }
      EXPECT_EQ(text, "another of " + std::to_string(comm.rank()));
      EXPECT_EQ(outer, "of " + std::to_string(comm.rank()));
      EXPECT_EQ(std::current_exception(), nullptr);
    });
}

TEST(Blocks, RefuseWhatIsNoDeal) {
  const auto ranks = static_cast<std::size_t>(world().size());
  const auto nothing = [](const Communicator&) { ADD_FAILURE(); };
  std::vector<int> deal(ranks, 1);
  deal[0] = 0;
  EXPECT_EQ(seen([&] { world().in_blocks(deal, nothing); }).code, ExitCode::bad_input);
  deal[0] = 2;
  deal.push_back(1);
  EXPECT_EQ(seen([&] { world().in_blocks(deal, nothing); }).code, ExitCode::bad_input);
  EXPECT_EQ(seen([&] { world().in_blocks(0, nothing); }).code, ExitCode::bad_input);
}

TEST(Blocks, TellWhoDoesNotCallTheSame) {
  const Communicator self(MPI_COMM_SELF);
  EXPECT_THROW(self.in_blocks(3,
                              [](const Communicator& comm) {
                                if (comm.rank() == 1)
                                  comm.barrier();
                                else
                                  comm.sum(1.0);
                              }),
               InternalError);
  EXPECT_THROW(self.in_blocks(3,
                              [](const Communicator& comm) {
                                if (comm.rank() < 2) comm.barrier();
                              }),
               InternalError);
  EXPECT_THROW(self.in_blocks(2,
                              [](const Communicator& comm) {
                                if (comm.rank() == 1) throw std::runtime_error("a bug");
                                comm.barrier();
                              }),
               std::runtime_error);
  EXPECT_EQ(self.sum(1.0), 1);
}

/// A block that ends alone ends those that wait for it with what it threw, at this call and at all later ones.
TEST(Blocks, EndWithTheFailureOfOne) {
  Communicator self(MPI_COMM_SELF);
  int ended = 0, later = 0;
  EXPECT_THROW(self.in_blocks(4,
                              [&](const Communicator& comm) {
                                comm.barrier();
                                if (comm.rank() == 2) throw std::bad_alloc();
                                try {
                                  comm.barrier();
                                } catch (const std::bad_alloc&) {
                                  ++ended;
                                  EXPECT_THROW(comm.barrier(), std::bad_alloc);
                                  ++later;
                                  throw;
                                }
                              }),
               std::bad_alloc);
  EXPECT_EQ(ended, 3);
  EXPECT_EQ(later, 3);
  EXPECT_EQ(self.sum(1.0), 1);
}

}  // namespace attnreg::test_blocks
