#include "toys.hpp"

#include "cuda/device.hpp"

namespace gradtail::simulated {
namespace {

constexpr unsigned kAll = 0xffffffffu;

GRADTAIL_DEVICE unsigned me() { return blockIdx.x * blockDim.x + threadIdx.x; }

GRADTAIL_KERNEL void where(const unsigned*, unsigned* out, int) {
  out[2 * me()] = blockIdx.x * 1000 + threadIdx.x;
  out[2 * me() + 1] = gridDim.x * 1000 + blockDim.x;
}

// out[0] counts; behind it, who came when.
GRADTAIL_KERNEL void turns(const unsigned*, unsigned* out, int barriers) {
  for (int i = 0; i <= barriers; ++i) {
    if (i > 0) __syncthreads();
    out[1 + atomicAdd(out, 1u)] = me();
  }
}

template <bool kBarrier>
GRADTAIL_KERNEL void reverse(const unsigned* in, unsigned* out, int) {
  GRADTAIL_DYNAMIC_SHARED(memory);
  auto* const shared = reinterpret_cast<unsigned*>(memory);
  shared[threadIdx.x] = in[me()];
  if (kBarrier) __syncthreads();
  out[me()] = shared[blockDim.x - 1 - threadIdx.x];
}

// Each lane takes what its left neighbour in the warp has written.
template <bool kBarrier>
GRADTAIL_KERNEL void rotate(const unsigned* in, unsigned* out, int) {
  GRADTAIL_DYNAMIC_SHARED(memory);
  auto* const shared = reinterpret_cast<unsigned*>(memory);
  shared[threadIdx.x] = in[me()];
  if (kBarrier) __syncwarp();
  out[me()] = shared[threadIdx.x / 32 * 32 + (threadIdx.x + 31) % 32];
}

// Sum of n words in one double: shuffles, shared memory, and the last block joins the parts of all. out: a count of
// finished blocks, unused, the sum, then parts.
GRADTAIL_KERNEL void sum(const unsigned* in, unsigned* out, int n) {
  GRADTAIL_DYNAMIC_SHARED(memory);
  auto* const of_warp = reinterpret_cast<double*>(memory);
  auto* const results = reinterpret_cast<double*>(out) + 1;
  auto* const last = reinterpret_cast<int*>(of_warp + blockDim.x / 32);
  double x = 0;
  for (unsigned i = me(); i < static_cast<unsigned>(n); i += gridDim.x * blockDim.x) x += in[i];
  for (unsigned lanes = 16; lanes > 0; lanes /= 2) x += __shfl_down_sync(kAll, x, lanes);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  if (threadIdx.x == 0) {
    double part = 0;
    for (unsigned w = 0; w < blockDim.x / 32; ++w) part += of_warp[w];
    results[1 + blockIdx.x] = part;
    __threadfence();
    *last = atomicAdd(out, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (*last == 0 || threadIdx.x > 0) return;
  double total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += results[1 + b];
  results[0] = total;
}

GRADTAIL_KERNEL void shuffles(const unsigned* in, unsigned* out, int width) {
  const unsigned x = in[me()];
  const unsigned long long wide = static_cast<unsigned long long>(x) << 32 | x;
  out += 5 * me();
  out[0] = __shfl_sync(kAll, x, 5, width);
  out[1] = __shfl_xor_sync(kAll, x, 3, width);
  out[2] = __shfl_down_sync(kAll, x, 2, width);
  out[3] = __shfl_up_sync(kAll, x, 2, width);
  out[4] = static_cast<unsigned>(__shfl_xor_sync(kAll, wide, 1, width) >> 32);
}

GRADTAIL_KERNEL void votes(const unsigned* in, unsigned* out, int) {
  const int x = static_cast<int>(in[me()]);
  out += 3 * me();
  out[0] = __ballot_sync(kAll, x);
  out[1] = static_cast<unsigned>(__any_sync(kAll, x));
  out[2] = static_cast<unsigned>(__syncthreads_or(x));
}

// Two halves of a warp go different ways, each with a mask of its own.
GRADTAIL_KERNEL void halves(const unsigned* in, unsigned* out, int) {
  unsigned x = in[me()];
  if (threadIdx.x % 32 < 16) {
    for (int lanes = 8; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0x0000ffffu, x, lanes);
  } else {
    x = __shfl_sync(0xffff0000u, x, 31);
  }
  out[me()] = x;
}

GRADTAIL_KERNEL void atomics(const unsigned* in, unsigned* out, int) {
  auto* const wide = reinterpret_cast<unsigned long long*>(out) + 4;
  const unsigned x = in[me()];
  const auto high = static_cast<unsigned long long>(x) << 32;
  atomicAdd(out, x);
  atomicMax(out + 1, x);
  atomicMin(out + 2, x);
  atomicAdd(reinterpret_cast<int*>(out) + 3, -static_cast<int>(x));
  atomicMax(reinterpret_cast<int*>(out) + 4, -static_cast<int>(x));
  atomicMin(reinterpret_cast<int*>(out) + 5, -static_cast<int>(x));
  out[6 + (atomicExch(out + 7, x) != 0)] = x;
  atomicAdd(wide, high);
  atomicMax(wide + 1, high);
  atomicMin(wide + 2, high);
  atomicMin(reinterpret_cast<long long*>(wide) + 3, -static_cast<long long>(high));
  atomicMax(reinterpret_cast<long long*>(wide) + 4, -static_cast<long long>(high));
}

GRADTAIL_KERNEL void bits(const unsigned* in, unsigned* out, int) {
  const uint4 four = __ldg(reinterpret_cast<const uint4*>(in) + threadIdx.x);
  out += 4 * threadIdx.x;
  out[0] = static_cast<unsigned>(__popc(four.x));
  out[1] = static_cast<unsigned>(__ffs(static_cast<int>(four.y)));
  out[2] = static_cast<unsigned>(__clz(static_cast<int>(four.z)));
  out[3] = make_uint4(0, 0, 0, four.w).w;
}

GRADTAIL_KERNEL void unwritten(const unsigned*, unsigned* out, int) {
  GRADTAIL_DYNAMIC_SHARED(memory);
  auto* const shared = reinterpret_cast<unsigned*>(memory);
  out[me()] = shared[threadIdx.x];
  shared[threadIdx.x] = 7;
}

GRADTAIL_KERNEL void copy(const unsigned* in, unsigned* out, int n) {
  for (unsigned i = me(); i < static_cast<unsigned>(n); i += gridDim.x * blockDim.x) out[i] = in[i];
}

// ---- wrong ones

GRADTAIL_KERNEL void ends_before_barrier(const unsigned*, unsigned*, int n) {
  if (threadIdx.x == static_cast<unsigned>(n)) return;
  __syncthreads();
}

GRADTAIL_KERNEL void two_barriers(const unsigned*, unsigned* out, int n) {
  if (threadIdx.x < static_cast<unsigned>(n)) {
    __syncthreads();
    out[me()] = 1;
  } else {
    __syncthreads();
    out[me()] = 2;
  }
}

GRADTAIL_KERNEL void shuffle_and_barrier(const unsigned* in, unsigned* out, int n) {
  if (threadIdx.x == static_cast<unsigned>(n))
    out[0] = __shfl_sync(kAll, in[0], 0);
  else
    __syncthreads();
}

GRADTAIL_KERNEL void two_shuffles(const unsigned* in, unsigned* out, int n) {
  if (threadIdx.x == static_cast<unsigned>(n))
    out[0] = __shfl_sync(kAll, in[0], 0);
  else
    out[me()] = __shfl_xor_sync(kAll, in[0], 1);
}

GRADTAIL_KERNEL void mask_without_itself(const unsigned*, unsigned*, int) { __syncwarp(0x0000ffffu); }

GRADTAIL_KERNEL void past_shared(const unsigned*, unsigned*, int n) {
  GRADTAIL_DYNAMIC_SHARED(memory);
  memory[n + static_cast<int>(threadIdx.x)] = 1;
}

GRADTAIL_KERNEL void deep(const unsigned*, unsigned* out, int n) {
  volatile unsigned char deep_array[96 * 1024];
  for (volatile unsigned char& byte : deep_array) byte = static_cast<unsigned char>(n);
  out[me()] = deep_array[out[me()]];
}

struct Toy {
  const char* name;
  void (*kernel)(const unsigned*, unsigned*, int);
};
const Toy kToys[] = {
    {"where", where},
    {"turns", turns},
    {"reverse", reverse<true>},
    {"reverse_without_barrier", reverse<false>},
    {"rotate", rotate<true>},
    {"rotate_without_barrier", rotate<false>},
    {"sum", sum},
    {"shuffles", shuffles},
    {"votes", votes},
    {"halves", halves},
    {"atomics", atomics},
    {"bits", bits},
    {"unwritten", unwritten},
    {"copy", copy},
    {"ends_before_barrier", ends_before_barrier},
    {"two_barriers", two_barriers},
    {"shuffle_and_barrier", shuffle_and_barrier},
    {"two_shuffles", two_shuffles},
    {"mask_without_itself", mask_without_itself},
    {"past_shared", past_shared},
    {"deep", deep},
};

}  // namespace

bool launch_toy(const std::string& name, unsigned grid, unsigned block, std::size_t shared_bytes, void* stream,
                const unsigned* in, unsigned* out, int n) {
  for (const Toy& toy : kToys) {
    if (name != toy.name) continue;
    const auto kernel = toy.kernel;
    GRADTAIL_LAUNCH(kernel, grid, block, shared_bytes, stream, in, out, n);
    return true;
  }
  return false;
}

}  // namespace gradtail::simulated
