#include "memory.hpp"

#include <cstring>

namespace gradtail::cuda {

ZeroedMemory::ZeroedMemory(int device, std::size_t bytes) : device_(device), memory_(device, bytes) {
  const runtime::DeviceGuard guard(device);
  const OwnStream stream(device);
  check("fill", runtime::fill(memory_.get(), 0, bytes, stream.get()));
  check("wait", runtime::synchronize(stream.get()));
}

void ZeroedMemory::write(const void* from, std::size_t bytes) {
  const runtime::DeviceGuard guard(device_);
  const OwnStream stream(device_);
  const PinnedMemory staging(bytes);
  std::memcpy(staging.host(), from, bytes);
  check("copy", runtime::copy_to_device(memory_.get(), staging.host(), bytes, stream.get()));
  check("wait", runtime::synchronize(stream.get()));
}

void ZeroedMemory::read(void* to, std::size_t bytes) {
  const runtime::DeviceGuard guard(device_);
  const OwnStream stream(device_);
  const PinnedMemory staging(bytes);
  check("copy", runtime::copy_to_host(staging.host(), memory_.get(), bytes, stream.get()));
  check("wait", runtime::synchronize(stream.get()));
  std::memcpy(to, staging.host(), bytes);
}

}  // namespace gradtail::cuda
