// What the host needs of the CUDA runtime. runtime.cu has it over CUDA; tests/simulated has it over host memory.
#pragma once

#include <cstddef>

namespace gradtail::cuda::runtime {

struct Status {
  int code = 0;  // of CUDA; 0: success
  const char* text = "";
  bool ok() const { return code == 0; }
};

using Stream = void*;  // null: the default stream of the current device
using Event = void*;

struct Properties {
  int major = 0, minor = 0;
  int multiprocessors = 0;
  std::size_t shared_per_block = 0;  // bytes: the most that a launch may ask for
  std::size_t shared_per_multiprocessor = 0;
  int threads_per_multiprocessor = 0;
};
Properties properties(int device);  // all 0 where there is no such device

// Makes a device the current one of this thread, and puts the former one back.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = -1;  // -1: nothing to put back
};

Status allocate(int device, std::size_t bytes, void** memory);
Status release(int device, void* memory);  // waits for all that was enqueued on the device; null: nothing to do
// Host memory that the device reads and writes under the address `on_device`.
Status allocate_pinned(std::size_t bytes, void** host, void** on_device);
Status release_pinned(void* host);

// Lets this thread allocate memory and wait for other streams while a stream is captured, which else spoils the
// capture.
class RelaxedCapture {
 public:
  RelaxedCapture();
  ~RelaxedCapture();
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  int before_;
};

// Enqueued, not done, when they return.
Status copy_to_device(void* to, const void* from_pinned, std::size_t bytes, Stream stream);
Status copy_to_host(void* to_pinned, const void* from, std::size_t bytes, Stream stream);
Status fill(void* memory, int byte, std::size_t bytes, Stream stream);

// Whether the device took the launches that this thread made since it last asked.
Status launched();

Status create_stream(int device, Stream* stream);
Status destroy_stream(Stream stream);
Status synchronize(Stream stream);  // waits for all that was enqueued
bool is_capturing(Stream stream);

Status create_event(int device, Event* event, bool timing);
Status destroy_event(Event event);
Status record(Event event, Stream stream);
bool is_done(Event event);  // an event that was never recorded is done
Status wait(Event event);
Status stream_waits(Stream stream, Event event);
Status elapsed(Event from, Event to, float* milliseconds);

}  // namespace gradtail::cuda::runtime
