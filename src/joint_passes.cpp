#include "joint_passes.hpp"

#include <algorithm>
#include <array>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <memory>
#include <utility>

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr std::size_t kStackBytes = std::size_t{16} << 20;  // of address space: pages are taken as they are used

template <class T, class Request>
std::vector<T*> all_of(const std::vector<Request>& requests) {
  std::vector<T*> chosen;
  for (const auto& request : requests) chosen.push_back(std::get<T*>(request));
  return chosen;
}

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
    std::array<std::size_t, std::variant_size_v<Request>> waiting{};
    for (const auto& task : tasks_)
      if (task.waits) ++waiting[task.request.index()];
    const auto most = std::max_element(waiting.begin(), waiting.end());
    if (*most == 0) break;
    const auto kind = static_cast<std::size_t>(most - waiting.begin());
    std::vector<Request> served;
    for (auto& task : tasks_) {
      if (!task.waits || task.request.index() != kind) continue;
      served.push_back(task.request);
      task.waits = false;
    }
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

RowMatrix::MapSums JointPasses::map(const RowMatrix::MapRequest& request, double& reads) {
  Map map{request, reads};
  wait(&map);
  return std::move(map.result);
}

VectorXd JointPasses::normal_product(const VectorXd& p, const RowCurvature& weights, VectorXd& y, double& reads) {
  Product product{p, weights, y, reads};
  wait(&product);
  return std::move(product.result);
}

void JointPasses::sum(std::span<double> values) {
  Sum sum{values};
  wait(&sum);
}

void JointPasses::serve(const std::vector<Request>& requests) {
  if (std::holds_alternative<Map*>(requests[0])) return serve_maps(all_of<Map>(requests));
  if (std::holds_alternative<Product*>(requests[0])) return serve_products(all_of<Product>(requests));
  serve_sums(all_of<Sum>(requests));
}

void JointPasses::serve_maps(const std::vector<Map*>& maps) {
  std::vector<RowMatrix::MapRequest> requests;
  for (const Map* map : maps) requests.push_back(map->request);
  auto results = A_.maps(requests);
  for (std::size_t k = 0; k < maps.size(); ++k) {
    maps[k]->result = std::move(results[k]);
    maps[k]->reads += 1 / static_cast<double>(maps.size());
  }
}

void JointPasses::serve_products(const std::vector<Product*>& products) {
  if (products.size() == 1) {
    Product& only = *products[0];
    only.result = A_.normal_product(only.p, only.weights, only.y);
    only.reads += 1;
    return;
  }
  const auto k = static_cast<Index>(products.size());
  MatrixXd P(A_.columns(), k), Y;
  std::vector<RowCurvature> weights;
  for (Index c = 0; c < k; ++c) {
    P.col(c) = products[static_cast<std::size_t>(c)]->p;
    weights.push_back(products[static_cast<std::size_t>(c)]->weights);
  }
  const MatrixXd results = A_.normal_products(P, weights, Y);
  for (Index c = 0; c < k; ++c) {
    Product& product = *products[static_cast<std::size_t>(c)];
    product.result = results.col(c);
    product.y = Y.col(c);
    product.reads += 1 / static_cast<double>(k);
  }
}

void JointPasses::serve_sums(const std::vector<Sum*>& sums) {
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
