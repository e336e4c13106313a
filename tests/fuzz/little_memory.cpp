// A machine with little memory for the readers under test: a valid input of a few bytes may ask for gigabytes, for rows
// without entries, say, and would take seconds. The linker leads their calls of
// `require_memory`, whose symbol is REQUIRE_MEMORY, here (--wrap).

#include "attnreg/communicator.hpp"
#include "attnreg/error.hpp"

#include <string>

namespace attnreg {

void require_real_memory(const Communicator& communicator, double bytes_this_rank,
                         const std::string& what) asm("__real_" REQUIRE_MEMORY);
void require_little_memory(const Communicator& communicator, double bytes_this_rank,
                           const std::string& what) asm("__wrap_" REQUIRE_MEMORY);

void require_little_memory(const Communicator& communicator, double bytes_this_rank, const std::string& what) {
  constexpr double kRoom = 0x1p26;
  if (bytes_this_rank > kRoom) throw OutOfMemory(what + " needs more than 64 MiB", Error::Scope::all_ranks);
  require_real_memory(communicator, bytes_this_rank, what);
}

}  // namespace attnreg
