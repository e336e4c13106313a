// R: the time of one streaming read of so many bytes, best of several sums over doubles that are in memory.
// usage: stream BYTES [REPETITIONS]
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>

int main(int argc, char** argv) {
  if (argc < 2) return std::fputs("usage: stream BYTES [REPETITIONS]\n", stderr), 2;
  const std::size_t bytes = std::stoul(argv[1]), count = bytes / sizeof(double);
  const int repetitions = argc > 2 ? std::stoi(argv[2]) : 9;
  constexpr std::size_t huge_page = std::size_t(2) << 20;
  const std::size_t room = (bytes + huge_page - 1) / huge_page * huge_page;
  auto* a = static_cast<double*>(std::aligned_alloc(huge_page, room));
  if (a == nullptr) return std::fputs("stream: out of memory\n", stderr), 1;
  madvise(a, room, MADV_HUGEPAGE);
#pragma omp parallel for schedule(static)
  for (std::size_t i = 0; i < count; ++i) a[i] = double(i % 1021) * 1e-3;

  double best = std::numeric_limits<double>::infinity(), check = 0;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    const auto begin = std::chrono::steady_clock::now();
    double sum = 0;
#pragma omp parallel for simd schedule(static) reduction(+ : sum)
    for (std::size_t i = 0; i < count; ++i) sum += a[i];
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::min(best, seconds.count());
    check += sum;
  }
  std::printf("{\"bytes\": %zu, \"read_seconds\": %.6g, \"gb_per_second\": %.4g, \"check\": %.17g}\n", bytes, best,
              double(bytes) * 1e-9 / best, check);
  std::free(a);
}
