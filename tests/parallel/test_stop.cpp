// A request to stop, of any one rank: who hears of it, and how a solve ends.

#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <vector>

#include "attention/attention_objective.hpp"
#include "attnreg/attention_regression.hpp"
#include "attnreg/regression.hpp"
#include "losses/losses.hpp"
#include "newton/minimise.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/alone.hpp"
#include "ranks/root_clock.hpp"
#include "ranks/stop.hpp"
#include "support/attention_problems.hpp"
#include "support/reference.hpp"
#include "support/stub_objective.hpp"

namespace attnreg::test_stop {

using Eigen::MatrixXd;
using Eigen::VectorXd;

/// Each test has a communicator of its own, which forgets with it that it was stopped.
class Stop : public testing::Test {
 protected:
  ~Stop() override { ask_to_stop(0); }

  bool is_last() const { return comm_.rank() == comm_.size() - 1; }
  /// Of the last rank, which is not rank 0 where there are several.
  void ask() const {
    if (is_last()) ask_to_stop(SIGTERM);
  }
  /// A callback that asks at an iteration.
  std::function<void(const IterationRecord&)> ask_at(int iteration) const {
    return [this, iteration](const IterationRecord& record) {
      if (record.iteration == iteration) ask();
    };
  }

  Communicator comm_{MPI_COMM_WORLD};
  reference::Problem problem_ = reference::random_problem(400, 6, 2, 1e-4, 5);
  reference::Distributed data_ = reference::distribute(comm_, problem_, reference::Layout::random);
};

TEST_F(Stop, RidesBesideTheTime) {
  const RootClock clock(comm_);
  EXPECT_LT(clock.sum(comm_), 1000);
  EXPECT_FALSE(comm_.is_stopped());
  ask();
  const auto before = comm_.collectives();
  const double seconds = clock.sum(comm_);
  EXPECT_EQ(1, comm_.collectives() - before);
  EXPECT_GE(seconds, 0);
  EXPECT_LT(seconds, 1000);
  EXPECT_TRUE(comm_.is_stopped());
}

TEST_F(Stop, EndsPhasesAtTheNextMessage) {
  const auto code_of = [&](const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.scope() == Error::Scope::all_ranks ? static_cast<int>(error.code()) : -1;
    }
    return 0;
  };
  std::vector<double> few(10, 1), many(5000, 1);
  const std::vector<std::function<void()>> messages{
      [&] { comm_.sum(std::span(few)); },  [&] { comm_.sum(std::span(many)); },
      [&] { comm_.max(std::span(few)); },  [&] { comm_.sum(1.0); },
      [&] { comm_.sum(std::int64_t{1}); }, [&] { comm_.max(1.0); },
      [&] { comm_.max(std::int64_t{1}); }, [&] { comm_.min(std::int64_t{1}); },
      [&] { comm_.agree([] {}); },         [&] { comm_.agree([] { throw_if_stopped(); }); },
  };
  const double ranks = comm_.size();
  {
    const StopsEndPhases active;
    for (const auto& message : messages) EXPECT_EQ(0, code_of(message));
    EXPECT_EQ(std::vector<double>(few.size(), ranks), few);  // the sums of sums and maxima of equal numbers
    EXPECT_EQ(std::vector<double>(many.size(), ranks), many);
    EXPECT_EQ(-1, comm_.min(std::int64_t{-1}));
    EXPECT_EQ(-2, comm_.max(-2.0));
    ask();
    for (const auto& message : messages) {
      const auto before = comm_.collectives();
      EXPECT_EQ(static_cast<int>(ExitCode::limit), code_of(message));
      EXPECT_EQ(1, comm_.collectives() - before);
    }
    const Communicator one(MPI_COMM_SELF);  // others would not hear of it
    if (comm_.size() > 1) {
      EXPECT_EQ(0, code_of([&] { one.sum(1.0); }));
    }
    StopsEndPhases::end();
    for (const auto& message : messages) EXPECT_EQ(0, code_of(message));
  }
  for (const auto& message : messages) EXPECT_EQ(0, code_of(message));
  EXPECT_FALSE(comm_.is_stopped());
}

TEST_F(Stop, OfACommunicatorEndsWhatRunsOnItsCopies) {
  for (const Method method : {Method::newton, Method::newton_cg, Method::surrogate}) {
    const Communicator comm(MPI_COMM_WORLD), other(MPI_COMM_WORLD);
    const auto data = reference::distribute(comm, problem_, reference::Layout::random);
    RegressionOptions options;
    options.method = method;
    options.start = Start::zero;
    options.newton.relative_tolerance = 1e-15;
    options.newton.on_iteration = [&](const IterationRecord& record) {
      if (is_last() && record.iteration == 1) comm.ask_to_stop();
    };
    const auto result = solve_regression(data.A, data.b, data.w, options);
    EXPECT_EQ(Termination::stopped, result.summary.termination) << method_name(method);
    EXPECT_LE(result.summary.iterations, 3) << method_name(method);
    EXPECT_TRUE(comm.is_stopped());
    EXPECT_EQ(is_last(), comm.is_asked_to_stop());
    EXPECT_EQ(is_last(), alone(comm).is_asked_to_stop());
    EXPECT_FALSE(other.is_asked_to_stop());
    EXPECT_FALSE(comm_.is_asked_to_stop());
    RootClock(other).sum(other);
    EXPECT_FALSE(other.is_stopped());
    EXPECT_EQ(0, stop_signal());
  }
}

TEST_F(Stop, EachMethodEndsWithWhatItHas) {
  for (const Method method : {Method::newton, Method::newton_cg, Method::surrogate}) {
    const Communicator comm(MPI_COMM_WORLD);
    const auto data = reference::distribute(comm, problem_, reference::Layout::random);
    RegressionOptions options;
    options.method = method;
    options.start = Start::zero;
    options.certificate = CertificateLevel::full;
    options.newton.relative_tolerance = 1e-15;
    options.newton.on_iteration = ask_at(1);
    double at_zero = 0;
    const auto ask = options.newton.on_iteration;
    options.newton.on_iteration = [&](const IterationRecord& record) {
      if (record.iteration == 0) at_zero = record.value;
      ask(record);
    };
    const auto result = solve_regression(data.A, data.b, data.w, options);
    ask_to_stop(0);
    EXPECT_EQ(Termination::stopped, result.summary.termination) << method_name(method);
    EXPECT_LE(result.summary.iterations, 3) << method_name(method);
    EXPECT_LT(result.summary.value, at_zero) << method_name(method);
    EXPECT_TRUE(result.x.allFinite());
    EXPECT_FALSE(result.certificate.distance_bound) << method_name(method);
    EXPECT_EQ("not available: the run was stopped", result.certificate.distance_reason);
    EXPECT_LT(result.summary.seconds, 1000);
  }
}

/// That is left early, and of no use: the step before is the last one.
TEST_F(Stop, EndsALongHessian) {
  const Index n = 12000 * comm_.size();
  reference::Problem problem{reference::random_matrix(n, 300, 5), reference::random_vector(n, 6).array().exp(),
                             VectorXd::Constant(n, 1e-2)};
  problem.b /= problem.b.sum();
  const auto data = reference::distribute(comm_, problem, reference::Layout::even);
  RegressionOptions options;
  options.method = Method::newton;
  options.start = Start::zero;
  options.newton.relative_tolerance = 1e-15;
  const auto ask = ask_at(1);
  double last = 0;
  options.newton.on_iteration = [&](const IterationRecord& record) {
    last = record.value;
    ask(record);
  };
  const auto result = solve_regression(data.A, data.b, data.w, options);
  EXPECT_EQ(Termination::stopped, result.summary.termination);
  EXPECT_EQ(1, result.summary.iterations);
  EXPECT_EQ(last, result.summary.value);
  EXPECT_TRUE(result.x.allFinite());
}

TEST_F(Stop, AModelThatIsLeftIsNone) {
  const Communicator comm(MPI_COMM_WORLD);
  const auto data = reference::distribute(comm, problem_, reference::Layout::random);
  RegressionObjective objective(data.A, data.b, data.w, make_loss("softmax"));
  const Point point = objective.evaluate(VectorXd::Zero(data.A.columns()));
  if (is_last()) comm.ask_to_stop();
  EXPECT_FALSE(objective.refresh_preconditioner(point, false));
  EXPECT_TRUE(objective.preconditioner().empty());
  EXPECT_TRUE(objective.is_stopped());
}

TEST_F(Stop, AnAttentionModelThatIsLeftIsNone) {
  using namespace attention_problems;
  for (const Index values : {0, 2})
    for (const auto model : {AttentionModel::dense, AttentionModel::kronecker}) {
      const Communicator comm(MPI_COMM_WORLD);
      const auto planted = plant({.d3 = values, .dv = values}, 1, 1, 1, 7);
      const std::vector<AttentionSequence> all{distributed(comm, planted.sequences[0], reference::Layout::random)};
      const AttentionUnknowns& at = planted.unknowns;
      const MatrixXd before = evaluate_attention(comm, all, "softmax", at, true).hessian;
      AttentionPasses passes(comm, all, {at.X.rows(), at.X.cols(), at.Y.rows(), at.Y.cols()}, "softmax");
      const AttentionParameters full(at.X.rows(), at.X.cols(), 0);
      AttentionObjective objective(passes, full, AttentionMethod::joint, model);
      const Point point = objective.evaluate(objective.unknowns(full.nearest(comm, at.X), at.Y));
      if (is_last()) comm.ask_to_stop();
      EXPECT_FALSE(comm.is_stopped());
      EXPECT_FALSE(objective.refresh_preconditioner(point, false)) << model_name(model);
      EXPECT_TRUE(objective.preconditioner().empty()) << model_name(model);
      EXPECT_TRUE(objective.is_stopped()) << model_name(model);
      // What is not a solve is done whole.
      EXPECT_EQ(before, evaluate_attention(comm, all, "softmax", at, true).hessian) << model_name(model);
    }
}

TEST_F(Stop, InALineSearchComesBeforeTheStep) {
  struct Stopped : StubObjective {
    bool is_stopped() const override { return tried; }
    std::vector<Trial> try_steps(const Point& point, const Direction& direction, std::span<const double> ts) override {
      tried = true;
      return StubObjective::try_steps(point, direction, ts);
    }
    bool refresh_preconditioner(const Point&, bool) override {
      preconditioner_ = Preconditioner(MatrixXd::Identity(1, 1));
      return true;
    }
    bool tried = false;
  };
  for (const bool by_products : {false, true}) {
    Stopped objective;
    Point point = objective.evaluate(VectorXd::Constant(1, 2.0));
    const auto summary = by_products ? newton_cg(objective, point, {}) : newton(objective, point, {});
    EXPECT_EQ(Termination::stopped, summary.termination);
    EXPECT_EQ(0, objective.steps);
    EXPECT_EQ(2, point.x[0]);
  }
}

TEST_F(Stop, EndsAModelThatIsMade) {
  for (const Method method : {Method::newton_cg, Method::surrogate}) {
    const Communicator comm(MPI_COMM_WORLD);
    const auto data = reference::distribute(comm, problem_, reference::Layout::random);
    RegressionOptions options;
    options.method = method;
    options.start = Start::zero;
    options.newton.on_iteration = ask_at(0);
    const auto result = solve_regression(data.A, data.b, data.w, options);
    ask_to_stop(0);
    EXPECT_EQ(Termination::stopped, result.summary.termination) << method_name(method);
    EXPECT_LE(result.summary.iterations, method == Method::newton_cg ? 0 : 1) << method_name(method);
    EXPECT_TRUE(result.x.allFinite()) << method_name(method);
  }
}

TEST_F(Stop, OfSeveralStartsTheBestEndIsKept) {
  RegressionOptions options;
  options.method = Method::newton;
  options.start = Start::zero;
  options.random_starts = 1000;
  std::vector<double> ends;
  double last = 0;
  options.newton.on_iteration = [&](const IterationRecord& record) {
    if (record.iteration == 0) ends.push_back(last);
    if (ends.size() == 4 && record.iteration == 1) ask();
    last = record.value;
  };
  const auto result = solve_regression(data_.A, data_.b, data_.w, options);
  ASSERT_LE(ends.size(), 5u);
  EXPECT_EQ(Termination::stopped, result.summary.termination);
  double best = last;
  for (std::size_t k = 1; k < ends.size(); ++k) best = std::min(best, ends[k]);
  EXPECT_NEAR(best, result.summary.value, 1e-9 * std::abs(best));
}

TEST_F(Stop, PathAndTargetsLeaveOutTheRest) {
  RegressionOptions options;
  options.newton.on_iteration = ask_at(1);
  const auto path = solve_path(data_.A, data_.b, {1e-2, 1e-3, 1e-4}, options);
  EXPECT_EQ(1u, path.size());
  EXPECT_EQ(Termination::stopped, path.back().summary.termination);
  ask_to_stop(0);

  const Communicator comm(MPI_COMM_WORLD);
  const auto data = reference::distribute(comm, problem_, reference::Layout::random);
  const MatrixXd B = data.b * VectorXd::Ones(70).transpose();
  const auto results = solve_targets(data.A, B, data.w, {}, [&](int target, const IterationRecord& record) {
    if (target == 1 && record.iteration == 1) ask();
  });
  EXPECT_TRUE(comm.is_stopped());
  ASSERT_EQ(70u, results.size());
  for (const auto& result : results) {
    EXPECT_EQ(Termination::stopped, result.summary.termination);
    EXPECT_EQ(data.A.columns(), result.x.size());
  }
}

TEST_F(Stop, AttentionEndsWithWhatItHas) {
  using namespace attention_problems;
  std::vector<AttentionSequence> all;
  for (const auto& whole : plant({}, 2, 1, 2, 7).sequences)
    all.push_back(distributed(comm_, whole, reference::Layout::random));
  AttentionOptions options;
  options.certificate = CertificateLevel::full;
  options.newton.relative_tolerance = 1e-15;
  options.newton.on_iteration = ask_at(1);
  const auto result = solve_attention(comm_, all, options);
  EXPECT_EQ(Termination::stopped, result.summary.termination);
  EXPECT_LE(result.summary.iterations, 2);
  EXPECT_EQ("the run was stopped", result.certificate.reason);
}

TEST_F(Stop, TheTimeLimitCoversTheCertificate) {
  RegressionOptions options;
  options.certificate = CertificateLevel::full;
  options.newton.time_limit_seconds = 1e-9;
  const auto result = solve_regression(data_.A, data_.b, data_.w, options);
  EXPECT_EQ(Termination::time_limit, result.summary.termination);
  EXPECT_EQ("not available: the time limit came before the end of the report", result.certificate.distance_reason);
}

}  // namespace attnreg::test_stop
