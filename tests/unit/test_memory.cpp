#include "ranks/memory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "support/temporary_directory.hpp"

namespace attnreg::test_memory {

using test::TemporaryDirectory;

/// A node with files in /proc and /sys; names are paths from the root.
class Node {
 public:
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(directory_.path(name)).parent_path());
    directory_.write(name, text);
  }
  double available() const { return available_node_memory(directory_.path("")); }
  double available_to_process() const { return available_process_memory(directory_.path("")); }

 private:
  TemporaryDirectory directory_;
};

TEST(Memory, ReadsMeminfo) {
  const Node node;
  EXPECT_TRUE(std::isinf(node.available()));
  node.write("proc/meminfo", "MemTotal:       100 kB\nMemFree:  10 kB\nMemAvailable:     64 kB\n");
  EXPECT_EQ(node.available(), 65536);
}

TEST(Memory, HonoursControlGroupsOfVersion2) {
  const Node node;
  node.write("proc/meminfo", "MemAvailable: 1000 kB\n");
  node.write("proc/self/cgroup", "0::/job/step\n");
  node.write("sys/fs/cgroup/job/step/memory.max", "max\n");
  node.write("sys/fs/cgroup/job/step/memory.current", "5000\n");
  EXPECT_EQ(node.available(), 1024000);
  node.write("sys/fs/cgroup/job/memory.max", "10000\n");
  node.write("sys/fs/cgroup/job/memory.current", "7000\n");
  EXPECT_EQ(node.available(), 3000);
  node.write("sys/fs/cgroup/job/memory.stat", "anon 3000\nfile 4000\ninactive_file 1500\nactive_file 500\n");
  EXPECT_EQ(node.available(), 5000);
  node.write("sys/fs/cgroup/job/memory.current", "20000\n");
  EXPECT_EQ(node.available(), 0);
}

TEST(Memory, HonoursControlGroupsOfVersion1) {
  const Node node;
  node.write("proc/meminfo", "MemAvailable: 1000 kB\n");
  node.write("proc/self/cgroup", "5:cpu,cpuacct:/host\n4:memory:/host/path\n0::/\nnonsense\n");
  // In a container: the path is one of the host, the mount is the container's own group.
  node.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  node.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "6000\n");
  EXPECT_EQ(node.available(), 1024000);
  node.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "10000\n");
  EXPECT_EQ(node.available(), 4000);
  node.write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 1000\ntotal_active_file 2000\n");
  EXPECT_EQ(node.available(), 7000);
}

TEST(Memory, HonoursTheLimitsOfTheProcess) {
  const Node node;
  EXPECT_TRUE(std::isinf(node.available_to_process()));
  node.write("proc/self/status", "Name:\tattnreg\nVmSize:\t   40 kB\nVmData:\t   10 kB\n");
  node.write("proc/self/limits",
             "Limit                     Soft Limit           Hard Limit           Units     \n"
             "Max data size             unlimited            unlimited            bytes     \n"
             "Max address space         102400               unlimited            bytes     \n");
  EXPECT_EQ(node.available_to_process(), 60 * 1024);
  node.write("proc/self/limits",
             "Max data size             20480                unlimited            bytes     \n"
             "Max address space         102400               unlimited            bytes     \n");
  EXPECT_EQ(node.available_to_process(), 10 * 1024);
  node.write("proc/self/status", "VmSize:\t   40 kB\nVmData:\t   30 kB\n");
  EXPECT_EQ(node.available_to_process(), 0);
}

TEST(Memory, TriesAddressSpace) {
  const Communicator communicator(MPI_COMM_WORLD);
  EXPECT_NO_THROW(try_address_space(communicator, 1e6, "buffers"));
  std::string message;
  try {
    try_address_space(communicator, 1e17, "buffers");  // more than a processor addresses
  } catch (const OutOfMemory& error) {
    message = error.what();
  }
  EXPECT_THAT(message, testing::AllOf(testing::HasSubstr("buffers: the system refuses 1e+08 GB"),
                                      testing::HasSubstr("to rank 0")));
}

TEST(Memory, KnowsThisNode) {
  const double available = available_node_memory();
  EXPECT_GT(available, 1e6);
  EXPECT_LT(available, 1e15);
}

TEST(Memory, RefusesWhatDoesNotFit) {
  const Communicator communicator(MPI_COMM_WORLD);
  EXPECT_NO_THROW(require_memory(communicator, 1000, "A.npy"));
  std::string message;
  Error::Scope scope = Error::Scope::this_rank;
  try {
    require_memory(communicator, 1e18, "A.npy");
  } catch (const OutOfMemory& error) {
    message = error.what();
    scope = error.scope();
  }
  EXPECT_THAT(message, testing::AllOf(testing::HasSubstr("A.npy: 1e+09 GB needed"), testing::HasSubstr(" GB available"),
                                      testing::HasSubstr("--storage float")));
  EXPECT_EQ(scope, Error::Scope::all_ranks);
}

}  // namespace attnreg::test_memory
