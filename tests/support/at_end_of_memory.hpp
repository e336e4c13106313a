#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>

namespace attnreg::test {

/// A copy of the numbers of a matrix whose end is the end of a page, with no memory behind it: whoever reads on is
/// killed, with sanitizers or without.
template <class T>
class AtEndOfMemory {
 public:
  template <class Matrix>
  explicit AtEndOfMemory(const Matrix& numbers) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const std::size_t size = static_cast<std::size_t>(numbers.size()) * sizeof(T),
                      used = (size + page - 1) / page * page;
    bytes_ = used + page;
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char* const end = static_cast<char*>(memory_) + used;
    if (memory_ == MAP_FAILED || ::mprotect(end, page, PROT_NONE) != 0) std::abort();
    data_ = reinterpret_cast<T*>(end - size);
    std::copy_n(numbers.data(), numbers.size(), data_);
  }
  ~AtEndOfMemory() { ::munmap(memory_, bytes_); }
  AtEndOfMemory(const AtEndOfMemory&) = delete;
  AtEndOfMemory& operator=(const AtEndOfMemory&) = delete;

  const T* data() const { return data_; }

 private:
  void* memory_;
  std::size_t bytes_;
  T* data_;
};

}  // namespace attnreg::test
