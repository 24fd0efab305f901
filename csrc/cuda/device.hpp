// What a kernel may use of CUDA, and how it is launched. Kernels include this and nothing else of CUDA: with
// GRADTAIL_SIMULATED a plain C++ compiler takes the same text, and every CUDA thread becomes a fiber of the processor.
#pragma once

#if defined(GRADTAIL_SIMULATED)

#include "simulated/fibers.hpp"

#define GRADTAIL_KERNEL
#define GRADTAIL_DEVICE inline
#define GRADTAIL_BOUNDS(threads, blocks)
#define GRADTAIL_DYNAMIC_SHARED(name) unsigned char* const name = ::gradtail::simulated::shared_memory()
#define GRADTAIL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::gradtail::simulated::launch(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

#else

#include <cuda_runtime.h>

#include <cstddef>

#define GRADTAIL_KERNEL __global__
#define GRADTAIL_DEVICE __device__ __forceinline__
#define GRADTAIL_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define GRADTAIL_DYNAMIC_SHARED(name)                                      \
  extern __shared__ __align__(16) unsigned char gradtail_dynamic_shared[]; \
  unsigned char* const name = gradtail_dynamic_shared
// Launches kernel(...) and returns nothing: runtime::launched() says whether CUDA took it.
#define GRADTAIL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::gradtail::cuda::launch(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

namespace gradtail::cuda {

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, void* stream,
            Arguments... arguments) {
  constexpr std::size_t kGrantedUnasked = 48 * 1024;
  if (shared_bytes > kGrantedUnasked && cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                             static_cast<int>(shared_bytes)) != cudaSuccess)
    return;  // the error stays for launched()
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace gradtail::cuda

#endif
