// The journal of a solve: from whatever it has at any checkpoint, another solve ends with the same bits.

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "attnreg/regression.hpp"
#include "newton/journal.hpp"
#include "support/attention_problems.hpp"
#include "support/reference.hpp"

namespace attnreg::test_journal {

using Eigen::MatrixXd;
using Eigen::VectorXd;

const Communicator& world() {
  static const Communicator communicator(MPI_COMM_WORLD);
  return communicator;
}

/// What `solve` gives, and what its journal had at each checkpoint.
struct Solved {
  VectorXd x;
  std::vector<Journal::Parts> left;
};

Solved leave_checkpoints(const std::function<VectorXd(const std::shared_ptr<Journal>&)>& solve) {
  Solved solved;
  std::shared_ptr<Journal> journal;
  journal = std::make_shared<Journal>(0, [&] { solved.left.push_back(journal->kept()); });
  solved.x = solve(journal);
  return solved;
}

void expect_same_bits_from_everywhere(const std::function<VectorXd(const std::shared_ptr<Journal>&)>& solve,
                                      std::size_t fewest, double tolerance = 0) {
  const Solved solved = leave_checkpoints(solve);
  const auto count = world().is_root() ? static_cast<double>(solved.left.size()) : 0;
  EXPECT_GE(world().sum(count), static_cast<double>(fewest));
  for (std::size_t k = 0; k < solved.left.size(); ++k) {
    SCOPED_TRACE("checkpoint " + std::to_string(k));
    const auto journal = std::make_shared<Journal>(0, [] {});
    journal->resume(solved.left[k]);
    EXPECT_LE((solved.x - solve(journal)).norm(), tolerance * solved.x.norm());
  }
}

void check(const reference::Problem& problem, RegressionOptions options, std::size_t fewest) {
  const auto data = reference::distribute(world(), problem, reference::Layout::random);
  expect_same_bits_from_everywhere(
      [&](const std::shared_ptr<Journal>& journal) {
        options.newton.journal = journal;
        const auto result = solve_regression(data.A, data.b, data.w, options);
        EXPECT_EQ(result.summary.termination, Termination::converged);
        return result.x;
      },
      fewest);
}

TEST(Journal, MethodsAndStarts) {
  const auto problem = reference::random_problem(1200, 5, 1, 1e-3, 1);
  for (const Method method : {Method::newton, Method::newton_cg, Method::surrogate})
    for (const Start start : {Start::zero, Start::cross_entropy, Start::automatic}) {
      SCOPED_TRACE(std::string(method_name(method)) + " from " + std::string(start_name(start)));
      RegressionOptions options;
      options.method = method;
      options.start = start;
      check(problem, options, 3);
    }
}

TEST(Journal, RandomStartsAndLosses) {
  RegressionOptions options;
  options.random_starts = 2;
  check(reference::random_problem(600, 4, 1, 1e-3, 3), options, 6);
  options.random_starts = 0;
  options.certificate = CertificateLevel::full;
  for (const char* const loss : {"cross-entropy", "exp", "rescaled-exp", "cosh"}) {
    SCOPED_TRACE(loss);
    options.loss = loss;
    check(reference::random_problem(300, 3, 1, 1e-2, 3), options, 1);
  }
}

TEST(Journal, Paths) {
  const auto data =
      reference::distribute(world(), reference::random_problem(900, 4, 1, 1e-3, 4), reference::Layout::random);
  expect_same_bits_from_everywhere(
      [&](const std::shared_ptr<Journal>& journal) {
        RegressionOptions options;
        options.newton.journal = journal;
        VectorXd all(12);
        const auto path = solve_path(data.A, data.b, {1e-2, 1e-3, 1e-4}, options);
        for (Eigen::Index k = 0; k < 3; ++k) all.segment(4 * k, 4) = path[static_cast<std::size_t>(k)].x;
        return all;
      },
      6);
}

TEST(Journal, Targets) {
  const auto data =
      reference::distribute(world(), reference::random_problem(900, 4, 1, 1e-3, 5), reference::Layout::random);
  MatrixXd B(data.b.size(), 3);
  B << data.b, 0.5 * data.b, data.b.cwiseSqrt() / 30;
  expect_same_bits_from_everywhere(
      [&](const std::shared_ptr<Journal>& journal) {
        RegressionOptions options;
        options.newton.journal = journal;
        VectorXd all(12);
        const auto results = solve_targets(data.A, B, data.w, options);
        for (Eigen::Index k = 0; k < 3; ++k) all.segment(4 * k, 4) = results[static_cast<std::size_t>(k)].x;
        return all;
      },
      6, 1e-6);  // products round by what shares a pass; the condition is less than 1e4
}

class Journals : public attention_problems::Attention {};

TEST_F(Journals, Heads) {
  using namespace attention_problems;
  auto planted = plant({40, 36, 8, 7}, 2, 1.5, 3, 1);
  for (auto& whole : planted.sequences) whole.target.array() *= 1 + 0.02 * (31 * whole.target.array()).sin();
  std::vector<AttentionSequence> sequences;
  for (const auto& whole : planted.sequences)
    sequences.push_back(distributed(world(), whole, reference::Layout::random));
  for (const Index rank : {Index{2}, HeadOptions::rank_from_data}) {
    expect_same_bits_from_everywhere(
        [&](const std::shared_ptr<Journal>& journal) {
          HeadOptions options;
          options.rank = rank;
          options.journal = journal;
          return VectorXd(recover_heads(world(), sequences, {}, options).at(0).X.reshaped());
        },
        2);
  }
}

TEST(Journal, OtherStagesAreForgotten) {
  Journal journal(1, [] {});
  journal.resume({{"", {{"first", true, {1}}, {"second", false, {2}}}}});
  EXPECT_EQ(journal.open("first", 0).numbers, std::vector<double>{1});
  EXPECT_TRUE(journal.open("third", 0).empty());
  EXPECT_TRUE(journal.open("second", 0).empty());
}

TEST(Journal, IsDueAfterItsInterval) {
  using Due = Journal::Due;
  int written = 0;
  Journal journal(10, [&] { ++written; });
  Stage& stage = journal.open("newton", 100);
  EXPECT_EQ(journal.due(109, false), Due::no);
  EXPECT_EQ(journal.due(109.5, true), Due::as_it_is);  // asked for; a checkpoint takes half a second of 9.5
  EXPECT_EQ(journal.due(109.55, true), Due::checkpoint);
  EXPECT_EQ(journal.due(110, false), Due::as_it_is);
  EXPECT_EQ(journal.due(110.1, false), Due::checkpoint);
  stage.numbers = {3};
  EXPECT_TRUE(journal.leave(Due::checkpoint));
  EXPECT_EQ(written, 1);
  EXPECT_EQ(&journal.open("newton", 110.1), &stage);
  EXPECT_EQ(journal.due(120, false), Due::no);
  EXPECT_EQ(journal.due(120.2, false), Due::as_it_is);
  EXPECT_EQ(journal.kept().at("").size(), 1u);
  journal.cut_off();
  EXPECT_TRUE(journal.open("newton", 121).empty());
  EXPECT_EQ(journal.kept().at("").size(), 1u);
}

TEST(Journal, WithIterationsTheClockOnlyTellsWhatIsWritten) {
  using Due = Journal::Due;
  int written = 0;
  Journal journal(10, [&] { ++written; }, {.iterations = 3, .at_ends = true});
  journal.open("newton", 0).numbers = {1};
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(journal.due(1000, true), Due::no);
    EXPECT_EQ(journal.due(1001, false), Due::no);
    EXPECT_EQ(journal.due(1002, false), Due::checkpoint);
    EXPECT_TRUE(journal.leave(Due::checkpoint));
    EXPECT_EQ(written, 1 + round);  // asked for before
    journal.open("newton", 1002);
  }
  for (int iteration = 0; iteration < 3; ++iteration) journal.due(1003, false);
  journal.leave(Due::checkpoint);
  EXPECT_EQ(written, 2);  // too soon
  journal.open("newton", 1003).numbers = {2};
  EXPECT_EQ(journal.due(1004, false), Due::no);
  EXPECT_TRUE(journal.finish(1020));
  EXPECT_EQ(written, 3);
  EXPECT_TRUE(journal.kept().at("").at(0).finished);
  journal.open("next", 1020).numbers = {7};
  journal.cut_off();  // what was not left by a checkpoint is not kept
  EXPECT_EQ(journal.kept().at("").size(), 1u);
  Journal single(10, [&] { ++written; }, {.iterations = 3});
  single.open("newton", 0).numbers = {1};
  EXPECT_FALSE(single.finish(20));
  EXPECT_EQ(written, 3);
  EXPECT_TRUE(single.kept().at("").empty());
}

}  // namespace attnreg::test_journal
