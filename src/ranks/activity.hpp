#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace attnreg {

/// Local. What this rank does from now on, as a watchdog shows it: "loading", "iteration 3".
void note_activity(std::string_view text);
/// Local. The last line that this rank wrote.
void note_message(std::string_view text);

/// This rank is in a collective while it lives; `call` is a literal. Its begin and its end are the progress that a
/// watchdog looks for. Local; three stores.
class InCollective {
 public:
  InCollective(const char* call, std::size_t count);
  ~InCollective();
  InCollective(const InCollective&) = delete;
  InCollective& operator=(const InCollective&) = delete;
};

/// What this rank does, for its watchdog.
struct Activity {
  std::atomic<std::uint64_t> progress{0};  ///< begins and ends of collectives, and notes
  std::atomic<const char*> call{nullptr};  ///< the collective that the rank is in
  std::atomic<std::size_t> count{0};       ///< of its numbers
  std::mutex mutex;                        ///< of the texts
  std::string phase = "start", message;
};
Activity& own_activity();  ///< Local.

}  // namespace attnreg
