#include "ranks/activity.hpp"

namespace attnreg {

Activity& own_activity() {
  static Activity activity;
  return activity;
}

void note_activity(std::string_view text) {
  Activity& own = own_activity();
  const std::lock_guard lock(own.mutex);
  own.phase = text;
  own.progress.fetch_add(1, std::memory_order_relaxed);
}

void note_message(std::string_view text) {
  Activity& own = own_activity();
  const std::lock_guard lock(own.mutex);
  own.message = text;
}

InCollective::InCollective(const char* call, std::size_t count) {
  Activity& own = own_activity();
  own.count.store(count, std::memory_order_relaxed);
  own.call.store(call, std::memory_order_relaxed);
  own.progress.fetch_add(1, std::memory_order_relaxed);
}

InCollective::~InCollective() {
  Activity& own = own_activity();
  own.call.store(nullptr, std::memory_order_relaxed);
  own.progress.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace attnreg
