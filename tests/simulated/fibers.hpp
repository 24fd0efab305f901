// The part of CUDA that kernels use, on the processor: one fiber per CUDA thread, one block at a time.
//
// A fiber runs until it waits or ends, so the order of the fibers is the only freedom there is. It is a setting: a
// missing barrier shows as a result that depends on it. Not modelled: two threads in the middle of plain reads and
// writes (a forgotten atomic), memory ordering, misaligned loads.
#pragma once

#include <math.h>  // not cmath: kernels call fmax(float, float) without std

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>

struct uint2 {
  unsigned x, y;
} __attribute__((aligned(8)));
struct uint3 {
  unsigned x, y, z;
};
struct uint4 {
  unsigned x, y, z, w;
} __attribute__((aligned(16)));
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Of the fiber that runs. Plain variables: blocks run on one operating system thread at a time.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace gradtail::simulated {

enum class Order { kAscending, kDescending, kShuffled };

struct Settings {
  Order threads = Order::kAscending;
  Order blocks = Order::kAscending;
  std::uint64_t seed = 0;
  bool poison = true;  // 0xCD in the shared memory of a new block; else what the
                       // last block left there
  bool strict = true;  // a thread may not end while others of its block wait at
                       // a barrier, or still come to one
};
const Settings& settings();
void set_settings(const Settings& settings);  // starts the shuffles again from the seed

// Runs a kernel to its end. Throws std::runtime_error where CUDA would hang or leave the result undefined.
void run(const std::string& kernel, dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body);

std::uint64_t switches();  // from fiber to fiber, since the start

// Appends to a stream; in runtime.cpp. A launch that no device would take is not enqueued: runtime::launched() says so.
void enqueue_launch(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, void* stream,
                    std::function<void()> body);

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            void* stream, Arguments... arguments) {
  enqueue_launch(name, grid, block, shared_bytes, stream,
                 [kernel, frozen = std::tuple<Parameters...>(arguments...)] { std::apply(kernel, frozen); });
}

unsigned char* shared_memory();

// Where a thread waits: by the name of what it called and the line that called it.
struct Site {
  const char* operation;
  const char* file;
  int line;
};

enum class WarpOperation { kBarrier, kShuffle, kBallot };

int wait_for_block(int predicate,
                   Site site);  // whether the predicate of any thread was not 0
// Waits for the lanes of the mask. Shuffle: the value of lane `source`. Ballot: a bit for every value that is not 0.
std::uint64_t wait_for_warp(WarpOperation operation, unsigned mask, std::uint64_t value, int source, Site site);
int lane();

template <typename T>
T shuffle(unsigned mask, T value, int source, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles values of 4 and of 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = wait_for_warp(WarpOperation::kShuffle, mask, bits, source, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The lane that a shuffle reads: its own where the other lies outside its part of the warp.
inline int lane_or_own(int other, int width) { return other / width == lane() / width && other >= 0 ? other : lane(); }

template <typename T>
T replace(T* memory, T value) {
  const T before = *memory;
  *memory = value;
  return before;
}

}  // namespace gradtail::simulated

// The caller's line is the default of the last two arguments; kernels do not pass them.
#define GRADTAIL_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(GRADTAIL_CALLER) { gradtail::simulated::wait_for_block(0, {"__syncthreads", file, line}); }
inline int __syncthreads_or(int predicate, GRADTAIL_CALLER) {
  return gradtail::simulated::wait_for_block(predicate, {"__syncthreads_or", file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffu, GRADTAIL_CALLER) {
  gradtail::simulated::wait_for_warp(gradtail::simulated::WarpOperation::kBarrier, mask, 0, 0,
                                     {"__syncwarp", file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, GRADTAIL_CALLER) {
  return static_cast<unsigned>(gradtail::simulated::wait_for_warp(gradtail::simulated::WarpOperation::kBallot, mask,
                                                                  predicate != 0, 0, {"__ballot_sync", file, line}));
}
inline int __any_sync(unsigned mask, int predicate, GRADTAIL_CALLER) {
  return gradtail::simulated::wait_for_warp(gradtail::simulated::WarpOperation::kBallot, mask, predicate != 0, 0,
                                            {"__any_sync", file, line}) != 0;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, GRADTAIL_CALLER) {
  const int first = gradtail::simulated::lane() / width * width;
  return gradtail::simulated::shuffle(mask, value, first + (source & (width - 1)), {"__shfl_sync", file, line});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, GRADTAIL_CALLER) {
  const int other = gradtail::simulated::lane() ^ lanes;
  // An earlier part of the warp may be read, a later one not: as CUDA has it.
  const bool later = other / width > gradtail::simulated::lane() / width;
  return gradtail::simulated::shuffle(mask, value, later ? gradtail::simulated::lane() : other,
                                      {"__shfl_xor_sync", file, line});
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, GRADTAIL_CALLER) {
  const int other = gradtail::simulated::lane() + static_cast<int>(delta);
  return gradtail::simulated::shuffle(mask, value, gradtail::simulated::lane_or_own(other, width),
                                      {"__shfl_down_sync", file, line});
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, GRADTAIL_CALLER) {
  const int other = gradtail::simulated::lane() - static_cast<int>(delta);
  return gradtail::simulated::shuffle(mask, value, gradtail::simulated::lane_or_own(other, width),
                                      {"__shfl_up_sync", file, line});
}

#undef GRADTAIL_CALLER

// No templates: CUDA has these types and no others, so a std::uint64_t has to be cast here too.
#define GRADTAIL_ATOMIC(name, type, result) \
  inline type name(type* memory, type value) { return gradtail::simulated::replace(memory, static_cast<type>(result)); }
GRADTAIL_ATOMIC(atomicAdd, unsigned, *memory + value)
GRADTAIL_ATOMIC(atomicAdd, unsigned long long, *memory + value)
GRADTAIL_ATOMIC(atomicAdd, int, static_cast<unsigned>(*memory) + static_cast<unsigned>(value))
#define GRADTAIL_ATOMIC_EXTREMES(type)                                \
  GRADTAIL_ATOMIC(atomicMax, type, *memory < value ? value : *memory) \
  GRADTAIL_ATOMIC(atomicMin, type, value < *memory ? value : *memory) \
  GRADTAIL_ATOMIC(atomicExch, type, value)
GRADTAIL_ATOMIC_EXTREMES(unsigned)
GRADTAIL_ATOMIC_EXTREMES(int)
GRADTAIL_ATOMIC_EXTREMES(unsigned long long)
#undef GRADTAIL_ATOMIC_EXTREMES
GRADTAIL_ATOMIC(atomicMax, long long, *memory < value ? value : *memory)
GRADTAIL_ATOMIC(atomicMin, long long, value < *memory ? value : *memory)
GRADTAIL_ATOMIC(atomicExch, float, value)
#undef GRADTAIL_ATOMIC

inline void __threadfence() {}
inline void __threadfence_system() {}

template <typename T>
T __ldg(const T* memory) {
  return *memory;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }
inline int __clzll(long long bits) { return bits == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(bits)); }
