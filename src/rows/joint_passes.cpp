#include "rows/joint_passes.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <memory>
#include <utility>

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr std::size_t kStackBytes = std::size_t{16} << 20;  // of address space: pages are taken as they are used

}  // namespace

void JointPasses::start(Task& task, const std::function<void()>& body) {
  task.stack = boost::context::fiber(std::allocator_arg, boost::context::protected_fixedsize_stack(kStackBytes),
                                     [this, &task, &body](boost::context::fiber&& caller) {
                                       caller_ = std::move(caller);
                                       try {
                                         body();
                                       } catch (const boost::context::detail::forced_unwind&) {
                                         throw;
                                       } catch (...) {
                                         failure_ = std::current_exception();
                                       }
                                       task.done = true;
                                       return std::move(caller_);
                                     });
}

void JointPasses::run(const std::vector<std::function<void()>>& tasks) {
  tasks_ = std::vector<Task>(tasks.size());
  for (std::size_t k = 0; k < tasks.size(); ++k) start(tasks_[k], tasks[k]);
  for (;;) {
    for (auto& task : tasks_) {
      if (task.waits || task.done) continue;
      running_ = &task;
      task.stack = std::move(task.stack).resume();
      running_ = nullptr;
      if (!failure_) continue;
      tasks_.clear();  // unwinds the stacks of the others
      std::rethrow_exception(std::exchange(failure_, nullptr));
    }
    const bool any_sum =
        std::any_of(tasks_.begin(), tasks_.end(), [](const Task& task) { return task.waits_for_sum(); });
    std::vector<Request> served;
    for (auto& task : tasks_) {
      if (!task.waits || task.waits_for_sum() != any_sum) continue;
      served.push_back(task.request);
      task.waits = false;
    }
    if (served.empty()) break;
    serve(served);
  }
  tasks_.clear();
}

void JointPasses::wait(Request request) {
  if (running_ == nullptr) return serve({request});
  running_->request = request;
  running_->waits = true;
  caller_ = std::move(caller_).resume();
}

RowPasses::MapSums JointPasses::map(const RowPasses::MapRequest& request, double& reads) {
  Map map{request, reads};
  wait(&map);
  return std::move(map.result);
}

VectorXd JointPasses::normal_product(const VectorXd& p, const RowCurvature& weights, VectorXd& y, double& reads) {
  const RowPasses::RowMap map = [&](Index first, Index rows, double* u, double* moment) {
    for (Index i = first; i < first + rows; ++i) {
      const double centred = weights.curvature[i] * (y[i] - weights.centre);
      *u++ = centred + weights.ridge[i] * y[i];
      *moment += centred;
    }
  };
  Product product{p, weights, map, y, reads};
  wait(&product);
  return std::move(product.result);
}

void JointPasses::sum(std::span<double> values) {
  Sum sum{values};
  wait(&sum);
}

void JointPasses::serve(const std::vector<Request>& requests) {
  if (std::holds_alternative<Sum*>(requests[0])) return serve_sums(requests);
  serve_passes(requests);
}

void JointPasses::serve_passes(const std::vector<Request>& requests) {
  if (requests.size() == 1 && std::holds_alternative<Product*>(requests[0])) {
    Product& only = *std::get<Product*>(requests[0]);
    only.result = A_.passes().normal_product(only.p, only.weights, only.y);
    only.reads += 1;
    return;
  }
  const double share = 1 / static_cast<double>(requests.size());
  std::vector<RowPasses::MapRequest> maps;
  for (const auto& request : requests)
    if (const auto* map = std::get_if<Map*>(&request))
      maps.push_back((*map)->request);
    else
      maps.push_back(std::get<Product*>(request)->as_map());
  auto results = A_.passes().maps(maps);
  for (std::size_t k = 0; k < requests.size(); ++k) {
    if (const auto* map = std::get_if<Map*>(&requests[k])) {
      (*map)->result = std::move(results[k]);
      (*map)->reads += share;
    } else {
      Product& product = *std::get<Product*>(requests[k]);
      product.result.resize(A_.columns() + 1);
      product.result << results[k].columns, results[k].scalars;
      product.reads += share;
    }
  }
}

RowPasses::MapRequest JointPasses::Product::as_map() const {
  return {.x = &p, .z = &y, .columns = 1, .scalars = 1, .map = &map};
}

void JointPasses::serve_sums(const std::vector<Request>& requests) {
  std::vector<Sum*> sums;
  for (const auto& request : requests) sums.push_back(std::get<Sum*>(request));
  if (sums.size() == 1) return A_.communicator().sum(sums[0]->values);
  std::vector<double> message;
  for (const Sum* sum : sums) message.insert(message.end(), sum->values.begin(), sum->values.end());
  A_.communicator().sum(message);
  auto next = message.begin();
  for (const Sum* sum : sums) {
    std::copy_n(next, sum->values.size(), sum->values.begin());
    next += static_cast<std::ptrdiff_t>(sum->values.size());
  }
}

}  // namespace attnreg
