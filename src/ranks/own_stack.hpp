#pragma once

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <exception>
#include <functional>

namespace attnreg {

/// Work on a stack of its own, of 16 MiB of address space, on the thread that resumes it. The exceptions that are being
/// handled, which the C++ runtime keeps for a thread, belong to the stack. Sanitizers for addresses are told of it.
class OwnStack {
 public:
  OwnStack() = default;
  /// Work that has not ended is unwound.
  ~OwnStack();
  OwnStack(const OwnStack&) = delete;
  OwnStack& operator=(const OwnStack&) = delete;

  /// Local. The work begins with the first `resume`.
  void begin(std::function<void()> work);
  /// Local. Until the work steps aside, or ends.
  void resume();
  /// Local, of the work: back to where it was resumed, until it is resumed again.
  void step_aside();

  bool is_done() const { return is_done_; }
  bool is_suspended() const { return static_cast<bool>(stack_); }  ///< it has stepped aside
  const std::exception_ptr& failure() const { return failure_; }   ///< what ended the work, or none

 private:
  struct Exceptions {
    void* caught = nullptr;
    unsigned int uncaught = 0;
  };
  struct Memory {
    const void* bottom = nullptr;
    std::size_t size = 0;
    void* fake = nullptr;  ///< a sanitizer's own
  };
  void make();
  template <class Change>
  void on_it(Change&& change);
  /// The thread is about to change to where it was resumed.
  void leave(bool for_good);

  std::function<void()> work_;  ///< until it begins
  boost::context::fiber stack_, caller_;
  Exceptions exceptions_;
  Memory own_, of_caller_;
  bool is_done_ = false;
  std::exception_ptr failure_;
};

}  // namespace attnreg
