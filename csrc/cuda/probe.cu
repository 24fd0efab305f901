// What the CUDA runtime finds on this machine. Needs no driver to load.

#include <cuda_runtime_api.h>

#include <cstdio>

#include "../ops.hpp"

namespace gradtail::cuda {

bool built() { return true; }

const char* architectures() { return GRADTAIL_CUDA_ARCHITECTURES; }

Probe probe() {
  Probe p;
  cudaRuntimeGetVersion(&p.runtime);
  if (cudaDriverGetVersion(&p.driver) != cudaSuccess) p.driver = 0;
  int n = 0;  // left alone on failure
  const cudaError_t status = cudaGetDeviceCount(&n);
  p.status = static_cast<int>(status);
  if (status != cudaSuccess) {
    std::snprintf(p.message, sizeof p.message, "%s", cudaGetErrorString(status));
    cudaGetLastError();  // do not leave our error behind for the next caller
    return p;
  }
  for (int i = 0; i < n && p.count < Probe::kMost; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) {
      cudaGetLastError();
      continue;
    }
    Probe::Device& device = p.devices[p.count++];
    std::snprintf(device.name, sizeof device.name, "%s", properties.name);
    device.major = properties.major;
    device.minor = properties.minor;
    device.memory = static_cast<std::int64_t>(properties.totalGlobalMem);
  }
  return p;
}

}  // namespace gradtail::cuda
