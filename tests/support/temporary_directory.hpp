#pragma once

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace attnreg::test {

/// A new empty directory, removed with what is in it at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() : TemporaryDirectory(make(), true) {}

  /// Collective. The ranks must be done with it (a barrier) before rank 0 leaves its scope.
  template <class Communicator>
  static TemporaryDirectory shared(const Communicator& communicator) {
    const bool root = communicator.is_root();
    return {communicator.broadcast(root ? make() : std::string()), root};
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (owner_) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  std::string path(std::string_view name) const { return path_ + "/" + std::string(name); }

  /// Writes a file and returns its path.
  std::string write(std::string_view name, std::string_view bytes) const {
    std::ofstream(path(name), std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path(name);
  }

  std::string read(std::string_view name) const {
    std::ifstream file(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  /// The names in the directory, sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) result.push_back(entry.path().filename());
    std::sort(result.begin(), result.end());
    return result;
  }

 private:
  TemporaryDirectory(std::string path, bool owner) : path_(std::move(path)), owner_(owner) {}

  static std::string make() {
    std::string name = (std::filesystem::temp_directory_path() / "attnreg-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot create " + name);
    return name;
  }

  std::string path_;
  bool owner_;
};

}  // namespace attnreg::test
