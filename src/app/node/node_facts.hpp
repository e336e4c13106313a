#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "app/node/known_faults.hpp"
#include "app/options/threads.hpp"
#include "attnreg/communicator.hpp"

namespace attnreg::app {

/// What a rank sees of the node that it runs on. Sizes in bytes; infinity: no limit, or nothing is known.
struct NodeFacts {
  int rank = 0;
  std::string host;
  std::string processor;
  std::string operating_system;  ///< of the kernel: "Linux 6.1.0"
  std::string container;         ///< "docker", "podman", "apptainer", "container"; empty: none was noticed
  std::string user;              ///< "root" or "user"

  int node_cores = 1;     ///< that the node has online
  std::string core_list;  ///< that this rank may use, "0-3,8"
  ThreadLayout threads;
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

nlohmann::ordered_json to_json(const NodeFacts& facts);

/// Collective. The facts of every rank, in rank order, on rank 0; elsewhere nothing. `directory` is where a run would
/// write; every rank writes and removes a file of 1 MiB there. One broadcast of about 1 KiB for each rank.
std::vector<NodeFacts> node_facts(const Communicator& communicator, const ThreadLayout& threads,
                                  const std::string& directory);

}  // namespace attnreg::app
