#include "ranks/alone.hpp"

namespace attnreg {

Communicator alone(const Communicator& other) {
  Communicator communicator(MPI_COMM_SELF);
  communicator.stop_with(other);
  return communicator;
}

}  // namespace attnreg
