#pragma once

#include <string>
#include <vector>

#include "app/node/known_faults.hpp"
#include "app/options/options.hpp"
#include "app/report/json.hpp"
#include "attnreg/communicator.hpp"

namespace attnreg::app {

/// What a rank sees of the node that it runs on. Sizes in bytes; infinity: no limit, or nothing is known.
struct NodeFacts : ThreadLayout {
  int rank = 0;
  std::string host;
  std::string processor;
  std::string operating_system;  ///< of the kernel: "Linux 6.1.0"
  std::string container;         ///< "docker", "podman", "apptainer", "container"; empty: none was noticed
  std::string user;              ///< "root" or "user"

  int node_cores = 1;     ///< that the node has online
  std::string core_list;  ///< that this rank may use, "0-3,8"
  double core_quota = 0;  ///< cores' worth of time that the control group grants

  double memory = 0;         ///< still free, the control group's limit included
  double shared_memory = 0;  ///< free in /dev/shm, which Open MPI's ranks on a node talk through
  double open_files = 0, locked_memory = 0, stack = 0, processes = 0, address_space = 0;  ///< soft limits

  std::string directory_type;  ///< of the file system that was asked about: "ext4", "nfs", "lustre"
  double directory_free = 0;
  std::string directory_error;  ///< why no file could be written there; empty: it could
  double sync_seconds = 0;      ///< to write 1 MiB there until it is safe

  bool copies_off = false;  ///< Open MPI was told not to try (btl_vader_single_copy_mechanism = none)
  std::string copy_error;   ///< why this rank cannot read the memory of another on its node (CMA); empty: it can

  std::vector<MessageLibrary> libraries;  ///< MPI, PMIx and UCX as this rank has loaded them

  std::vector<std::string> mpi_settings;  ///< "OMPI_MCA_btl=tcp,self": variables that change what MPI does
};

ATTNREG_JSON(MessageLibrary, name, version, package)
ATTNREG_JSON(NodeFacts, rank, host, processor, operating_system, container, user, node_cores, core_list, cores, threads,
             ranks_on_cores, core_quota, memory, shared_memory, open_files, locked_memory, stack, processes,
             address_space, directory_type, directory_free, directory_error, sync_seconds, copies_off, copy_error,
             libraries, mpi_settings)

/// Collective. The facts of every rank, in rank order, on rank 0; elsewhere nothing. `directory` is where a run would
/// write; every rank writes and removes a file of 1 MiB there. One broadcast of about 1 KiB for each rank.
std::vector<NodeFacts> node_facts(const Communicator& communicator, const ThreadLayout& threads,
                                  const std::string& directory);

/// What the ranks do together, measured. Replicated.
struct SelfTest {
  bool right = false;                 ///< the solve converged, to a point where |g| is small by a formula of its own
  std::string found;                  ///< "converged, |g| / |g(0)| = 3.1e-15 by the definition"
  double bytes_per_second = 0;        ///< read by all ranks at once, from memory
  double reduction_seconds = 0;       ///< all-reduce of 8 bytes
  double long_reduction_seconds = 0;  ///< all-reduce of 1 MiB
  double seconds = 0;
};
ATTNREG_JSON(SelfTest, right, found, bytes_per_second, reduction_seconds, long_reduction_seconds, seconds)

/// Collective. Solves a problem of 2000 x 20 and checks the gradient by its definition, row by row; then times reads of
/// memory and all-reduces. About 2 s, less on an idle machine; 64 MB per rank.
SelfTest self_test(const Communicator& communicator);

}  // namespace attnreg::app
