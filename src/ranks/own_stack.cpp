#include "ranks/own_stack.hpp"

#include <cxxabi.h>

#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstring>
#include <memory>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace attnreg {

namespace {

constexpr std::size_t kStackBytes = std::size_t{16} << 20;  // of address space: pages are taken as they are used

/// A thread is about to change to the stack `to`; fake: what it leaves behind, none if it does not come back.
void start_switch([[maybe_unused]] void** fake, [[maybe_unused]] const void* to, [[maybe_unused]] std::size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake, to, size);
#endif
}

/// It has changed, from a stack that is said to be there.
void finish_switch([[maybe_unused]] void* fake, [[maybe_unused]] const void** from,
                   [[maybe_unused]] std::size_t* size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, from, size);
#endif
}

/// Another stack may have been there, whose last functions did not return.
void forget_former_stack([[maybe_unused]] const void* bottom, [[maybe_unused]] std::size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(bottom, size);
#endif
}

}  // namespace

template <class Change>
void OwnStack::on_it(Change&& change) {
  auto* const current = reinterpret_cast<char*>(abi::__cxa_get_globals());
  Exceptions of_caller;
  std::memcpy(&of_caller, current, sizeof of_caller);
  std::memcpy(current, &exceptions_, sizeof exceptions_);
  start_switch(&of_caller_.fake, own_.bottom, own_.size);
  change();
  finish_switch(of_caller_.fake, nullptr, nullptr);
  std::memcpy(&exceptions_, current, sizeof exceptions_);
  std::memcpy(current, &of_caller, sizeof of_caller);
}

OwnStack::~OwnStack() {
  if (stack_) on_it([&] { stack_ = {}; });
}

void OwnStack::resume() {
  if (work_) make();
  on_it([&] { stack_ = std::move(stack_).resume(); });
}

void OwnStack::leave(bool for_good) {
  start_switch(for_good ? nullptr : &own_.fake, of_caller_.bottom, of_caller_.size);
}

void OwnStack::begin(std::function<void()> work) { work_ = std::move(work); }

void OwnStack::make() {
  boost::context::protected_fixedsize_stack allocator(kStackBytes);
  const auto memory = allocator.allocate();
  own_ = {static_cast<const char*>(memory.sp) - memory.size, memory.size};
  forget_former_stack(own_.bottom, own_.size);
  stack_ =
      boost::context::fiber(std::allocator_arg, boost::context::preallocated(memory.sp, memory.size, memory), allocator,
                            [this, work = std::exchange(work_, nullptr)](boost::context::fiber&& caller) {
                              finish_switch(nullptr, &of_caller_.bottom, &of_caller_.size);
                              caller_ = std::move(caller);
                              try {
                                work();
                              } catch (const boost::context::detail::forced_unwind&) {
                                leave(true);
                                throw;
                              } catch (...) {
                                failure_ = std::current_exception();
                              }
                              is_done_ = true;
                              leave(true);
                              return std::move(caller_);
                            });
}

void OwnStack::step_aside() {
  struct Return {
    OwnStack& stack;
    ~Return() { finish_switch(stack.own_.fake, &stack.of_caller_.bottom, &stack.of_caller_.size); }
  };
  leave(false);
  const Return at_the_end{*this};  // also where the work is unwound
  caller_ = std::move(caller_).resume();
}

}  // namespace attnreg
