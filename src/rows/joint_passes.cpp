#include "rows/joint_passes.hpp"

#include <algorithm>
#include <exception>
#include <utility>

namespace attnreg {

void JointPasses::run(const std::vector<std::function<void()>>& tasks) {
  tasks_ = std::vector<Task>(tasks.size());
  for (std::size_t k = 0; k < tasks.size(); ++k) tasks_[k].stack.begin(tasks[k]);
  for (;;) {
    for (auto& task : tasks_) {
      if (task.pass != nullptr || task.sum || task.stack.is_done()) continue;
      running_ = &task;
      task.stack.resume();
      running_ = nullptr;
      const std::exception_ptr failure = task.stack.failure();
      if (!failure) continue;
      tasks_.clear();  // unwinds the stacks of the others
      std::rethrow_exception(failure);
    }
    std::vector<std::span<double>> sums;
    for (auto& task : tasks_)
      if (task.sum) sums.push_back(*std::exchange(task.sum, std::nullopt));
    if (!sums.empty()) {
      serve(sums);
      continue;
    }
    std::vector<Pass*> passes;
    for (auto& task : tasks_)
      if (task.pass != nullptr) passes.push_back(std::exchange(task.pass, nullptr));
    if (passes.empty()) break;
    serve(passes);
  }
  tasks_.clear();
}

void JointPasses::make(Pass& pass) {
  if (running_ == nullptr) return serve({&pass});
  running_->pass = &pass;
  running_->stack.step_aside();
}

RowPasses::MapSums JointPasses::map(const RowPasses::MapRequest& request, double& reads) {
  Pass pass{request, nullptr, reads};
  make(pass);
  return std::move(pass.result);
}

VectorXd JointPasses::normal_product(const VectorXd& p, const RowCurvature& weights, VectorXd& y, double& reads) {
  const auto map = [&](Index first, Index rows, double* u, double* moment) {
    for (Index i = first; i < first + rows; ++i) *u++ = weights.weight(i, y[i], *moment);
  };
  Pass pass{{.x = &p, .z = &y, .columns = 1, .scalars = 1, .map = map}, &weights, reads};
  make(pass);
  VectorXd product(A_.columns() + 1);
  product << pass.result.columns, pass.result.scalars;
  return product;
}

void JointPasses::sum(std::span<double> values) {
  if (running_ == nullptr) return serve(std::vector{values});
  running_->sum = values;
  running_->stack.step_aside();
}

void JointPasses::serve(const std::vector<Pass*>& passes) {
  Pass& first = *passes[0];
  if (passes.size() == 1 && first.weights != nullptr) {
    const VectorXd product = A_.passes().normal_product(*first.request.x, *first.weights, *first.request.z);
    first.result = {product.head(A_.columns()), product.tail(1)};
    first.reads += 1;
    return;
  }
  std::vector<RowPasses::MapRequest> requests;
  for (const Pass* pass : passes) requests.push_back(pass->request);
  auto results = A_.passes().maps(requests);
  for (std::size_t k = 0; k < passes.size(); ++k) {
    passes[k]->result = std::move(results[k]);
    passes[k]->reads += 1 / static_cast<double>(passes.size());
  }
}

void JointPasses::serve(const std::vector<std::span<double>>& sums) {
  if (sums.size() == 1) return A_.communicator().sum(sums[0]);
  std::vector<double> message;
  for (const auto& sum : sums) message.insert(message.end(), sum.begin(), sum.end());
  A_.communicator().sum(message);
  auto next = message.begin();
  for (const auto& sum : sums) {
    std::copy_n(next, sum.size(), sum.begin());
    next += static_cast<std::ptrdiff_t>(sum.size());
  }
}

}  // namespace attnreg
