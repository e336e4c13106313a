#include "app/run/run_lock.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "attnreg/error.hpp"
#include "support/temporary_directory.hpp"

namespace attnreg::test_run_lock {

using app::LockReach;
using app::RunLock;
using test::TemporaryDirectory;

TEST(RunLock, ItsReachIsWhatTheMountSays) {
  const auto reach = [](const std::string& type, const std::string& options) {
    std::istringstream mounts(
        "22 1 0:21 / /home rw,relatime shared:1 - nfs4 server:/home rw,local_lock=all\n"
        "23 1 0:22 / /scratch rw,nolock - " +
        type + " server:/a\\040b " + options + "\n");
    return app::lock_reach(mounts, 0, 22);
  };
  for (const auto& [type, options] : {std::pair{"nfs", "rw,vers=3,nolock,addr=10.0.0.1"},
                                      {"nfs4", "rw,local_lock=flock"},
                                      {"nfs", "local_lock=all,rw"},
                                      {"lustre", "rw,lazystatfs,localflock"},
                                      {"fuse.sshfs", "rw"},
                                      {"fuse", "rw"},
                                      {"beegfs", "rw"}})
    EXPECT_EQ(LockReach::this_host, reach(type, options)) << type << ' ' << options;
  for (const auto& [type, options] : {std::pair{"nfs4", "rw,vers=4.2,local_lock=none"},
                                      {"nfs", "rw,local_lock=posix"},
                                      {"lustre", "rw,flock"},
                                      {"ext4", "rw"},
                                      {"fuseblk", "rw"},
                                      {"tmpfs", ""}})
    EXPECT_EQ(LockReach::all, reach(type, options)) << type << ' ' << options;
}

/// With a lock that this host alone knows of, the file is the lock of processes on others.
TEST(RunLock, OtherHostsAreBelievedWhereLocksDoNotReachThem) {
  const TemporaryDirectory directory;
  const std::string path = directory.path(".");
  const auto leave = [&](const app::RunOwner& owner) { directory.write("lock", app::to_json(owner).dump()); };
  app::RunOwner owner{"elsewhere", 1, 1, "2026-01-01T00:00:00Z"};
  leave(owner);
  try {
    RunLock(path, LockReach::this_host);
    FAIL() << "taken from another host";
  } catch (const OutputError& error) {
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("process 1 on elsewhere"), testing::HasSubstr("remove")));
  }
  directory.write("lock", "");  // begun, and without a name yet
  EXPECT_THROW(RunLock(path, LockReach::this_host), OutputError);
  leave(owner);
  { const RunLock lock(path, LockReach::all); }  // a lock that all know of is free: that process is gone
  owner.host = app::this_process().host;
  leave(owner);
  const RunLock lock(path, LockReach::this_host);
  EXPECT_EQ(std::optional(true), RunLock::is_held(path));
  EXPECT_THROW(RunLock(path, LockReach::this_host), OutputError);
}

}  // namespace attnreg::test_run_lock
