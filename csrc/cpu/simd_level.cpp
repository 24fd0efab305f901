#include "simd_level.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "../ops.hpp"

#if defined(GRADTAIL_X86)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace gradtail::cpu {
namespace {

struct Level {
  const char* name;
  const Kernels* kernels;
};
const Level kLevels[] = {
    {"base", &base::kKernels},
#if defined(GRADTAIL_X86)
    {"avx2", &avx2::kKernels},
    {"avx512", &avx512::kKernels},
#endif
};

#if defined(GRADTAIL_X86)
// Not __builtin_cpu_supports: some toolchains that build portable wheels do not have it.
void cpuid(unsigned leaf, unsigned out[4]) {
#if defined(_MSC_VER)
  __cpuidex(reinterpret_cast<int*>(out), static_cast<int>(leaf), 0);
#else
  __cpuid_count(leaf, 0, out[0], out[1], out[2], out[3]);
#endif
}

unsigned long long enabled_registers() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<unsigned long long>(high) << 32 | low;
#endif
}

bool has(unsigned word, int bit) { return word >> bit & 1; }

int best_level() {
  unsigned r[4];
  cpuid(0, r);
  if (r[0] < 7) return 0;
  cpuid(1, r);
  const unsigned features = r[2];
  if (!has(features, 27) || !has(features, 28) || !has(features, 12) || !has(features, 29))
    return 0;  // OSXSAVE AVX FMA F16C
  const unsigned long long registers = enabled_registers();
  if ((registers & 0x6) != 0x6) return 0;
  cpuid(7, r);
  if (!has(r[1], 5) || !has(r[1], 8)) return 0;                                          // AVX2 BMI2
  const bool avx512 = has(r[1], 16) && has(r[1], 17) && has(r[1], 30) && has(r[1], 31);  // F DQ BW VL
  return avx512 && (registers & 0xe6) == 0xe6 ? 2 : 1;
}
#else
int best_level() { return 0; }
#endif

int find(const std::string& name) {
  for (int i = 0; i <= best_level(); ++i)
    if (name == kLevels[i].name) return i;
  return -1;
}

int initial_level() {
  const char* asked = std::getenv("GRADTAIL_SIMD");
  const int level = asked ? find(asked) : -1;
  return level >= 0 ? level : best_level();
}

std::atomic<int>& current() {
  static std::atomic<int> level{initial_level()};
  return level;
}

}  // namespace

const Kernels& kernels() { return *kLevels[current()].kernels; }

std::vector<std::string> simd_levels() {
  std::vector<std::string> names;
  for (int i = 0; i <= best_level(); ++i) names.emplace_back(kLevels[i].name);
  return names;
}

std::string simd() { return kLevels[current()].name; }

void set_simd(const std::string& level) {
  const int i = find(level);
  if (i < 0) throw std::invalid_argument("level: expected one that this machine can run, got " + level);
  current() = i;
}

}  // namespace gradtail::cpu
