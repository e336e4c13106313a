#ifdef ATTNREG_FAULT_INJECTION

#include <cstdlib>
#include <new>

#include "errors/faults.hpp"

// All memory of the program, that of matrices included, comes from here: the site `allocate`.

extern "C" {

void* __real_malloc(std::size_t bytes);

/// What the linker puts in the place of malloc.
void* __wrap_malloc(std::size_t bytes) {
  try {
    attnreg::faults::at("allocate");
  } catch (...) {
    return nullptr;
  }
  return __real_malloc(bytes);
}
}

void* operator new(std::size_t bytes) {
  attnreg::faults::at("allocate");
  if (void* const memory = __real_malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}

void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return operator new(bytes);
  } catch (...) {
    return nullptr;
  }
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

#endif
