#pragma once

#include "algebra/hessian.hpp"
#include "attnreg/communicator.hpp"

namespace attnreg {

/// Collective on blocks, without a message where all ranks have some; else local. A replicated preconditioner; of
/// blocks, that of the first of each process counts, and others may be empty. They hold it together, and what several
/// of them ask of it is computed once.
Preconditioner shared_preconditioner(const Communicator& communicator, Preconditioner own);

}  // namespace attnreg
