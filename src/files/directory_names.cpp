#include "files/directory_names.hpp"

#include <dirent.h>

#include <cerrno>
#include <memory>

namespace attnreg {

std::vector<std::string> names_in(const std::string& directory, std::error_code& error) {
  const auto last_error = [] { return std::error_code(errno, std::generic_category()); };
  std::vector<std::string> names;
  error.clear();
  const auto close = [](DIR* open) { ::closedir(open); };
  const std::unique_ptr<DIR, decltype(close)> entries(::opendir(directory.c_str()));
  if (entries == nullptr) {
    error = last_error();
    return names;
  }
  while (true) {
    errno = 0;
    const dirent* const entry = ::readdir(entries.get());
    if (entry == nullptr) break;
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  if (errno != 0) error = last_error();
  return names;
}

}  // namespace attnreg
