#include "ranks/alone.hpp"

namespace attnreg {

Communicator alone() { return Communicator(MPI_COMM_SELF); }

}  // namespace attnreg
