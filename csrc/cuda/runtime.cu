// runtime.hpp over the CUDA runtime.

#include <cuda_runtime.h>

#include "runtime.hpp"

namespace gradtail::cuda::runtime {
namespace {

// CUDA also keeps an error until somebody asks for it; ours would be found by the next caller, who did nothing wrong.
Status status_of(cudaError_t error) {
  if (error == cudaSuccess) return {};
  cudaGetLastError();
  return {static_cast<int>(error), cudaGetErrorString(error)};
}

cudaStream_t as_stream(Stream stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t as_event(Event event) { return static_cast<cudaEvent_t>(event); }

bool read(int* value, cudaDeviceAttr attribute, int device) {
  return status_of(cudaDeviceGetAttribute(value, attribute, device)).ok();
}

bool read(std::size_t* bytes, cudaDeviceAttr attribute, int device) {
  int value = 0;
  if (!read(&value, attribute, device)) return false;
  *bytes = static_cast<std::size_t>(value);
  return true;
}

}  // namespace

// Single attributes: cudaGetDeviceProperties takes milliseconds.
Properties properties(int device) {
  Properties p;
  const bool known = read(&p.major, cudaDevAttrComputeCapabilityMajor, device) &&
                     read(&p.minor, cudaDevAttrComputeCapabilityMinor, device) &&
                     read(&p.multiprocessors, cudaDevAttrMultiProcessorCount, device) &&
                     read(&p.shared_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) &&
                     read(&p.shared_per_multiprocessor, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device) &&
                     read(&p.threads_per_multiprocessor, cudaDevAttrMaxThreadsPerMultiProcessor, device);
  return known ? p : Properties{};
}

DeviceGuard::DeviceGuard(int device) {
  int now = -1;
  if (!status_of(cudaGetDevice(&now)).ok() || now == device) return;
  if (status_of(cudaSetDevice(device)).ok()) before_ = now;
}

DeviceGuard::~DeviceGuard() {
  if (before_ >= 0) status_of(cudaSetDevice(before_));
}

RelaxedCapture::RelaxedCapture() : before_(cudaStreamCaptureModeRelaxed) {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;  // the new one, then the former
  if (status_of(cudaThreadExchangeStreamCaptureMode(&mode)).ok()) before_ = mode;
}

RelaxedCapture::~RelaxedCapture() {
  auto mode = static_cast<cudaStreamCaptureMode>(before_);
  status_of(cudaThreadExchangeStreamCaptureMode(&mode));
}

Status allocate(int device, std::size_t bytes, void** memory) {
  const DeviceGuard guard(device);
  *memory = nullptr;
  return status_of(cudaMalloc(memory, bytes));
}

Status release(int device, void* memory) {
  const DeviceGuard guard(device);
  return status_of(cudaFree(memory));
}

Status allocate_pinned(std::size_t bytes, void** host, void** on_device) {
  *host = *on_device = nullptr;
  const Status status = status_of(cudaHostAlloc(host, bytes, cudaHostAllocMapped | cudaHostAllocPortable));
  if (!status.ok()) return status;
  const Status mapped = status_of(cudaHostGetDevicePointer(on_device, *host, 0));
  if (!mapped.ok()) {
    status_of(cudaFreeHost(*host));
    *host = nullptr;
  }
  return mapped;
}

Status release_pinned(void* host) { return status_of(cudaFreeHost(host)); }

Status copy_to_device(void* to, const void* from_pinned, std::size_t bytes, Stream stream) {
  return status_of(cudaMemcpyAsync(to, from_pinned, bytes, cudaMemcpyHostToDevice, as_stream(stream)));
}

Status copy_to_host(void* to_pinned, const void* from, std::size_t bytes, Stream stream) {
  return status_of(cudaMemcpyAsync(to_pinned, from, bytes, cudaMemcpyDeviceToHost, as_stream(stream)));
}

Status fill(void* memory, int byte, std::size_t bytes, Stream stream) {
  return status_of(cudaMemsetAsync(memory, byte, bytes, as_stream(stream)));
}

Status launched() { return status_of(cudaGetLastError()); }

Status create_stream(int device, Stream* stream) {
  const DeviceGuard guard(device);
  cudaStream_t made = nullptr;
  const Status status = status_of(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
  *stream = made;
  return status;
}

Status destroy_stream(Stream stream) { return status_of(cudaStreamDestroy(as_stream(stream))); }

Status synchronize(Stream stream) { return status_of(cudaStreamSynchronize(as_stream(stream))); }

bool is_capturing(Stream stream) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(as_stream(stream), &capture);
  // The default stream may not even be asked while another one is captured.
  if (!status_of(error).ok()) return error == cudaErrorStreamCaptureImplicit;
  return capture != cudaStreamCaptureStatusNone;
}

Status create_event(int device, Event* event, bool timing) {
  const DeviceGuard guard(device);
  cudaEvent_t made = nullptr;
  const Status status = status_of(cudaEventCreateWithFlags(&made, timing ? cudaEventDefault : cudaEventDisableTiming));
  *event = made;
  return status;
}

Status destroy_event(Event event) { return status_of(cudaEventDestroy(as_event(event))); }

Status record(Event event, Stream stream) { return status_of(cudaEventRecord(as_event(event), as_stream(stream))); }

bool is_done(Event event) { return status_of(cudaEventQuery(as_event(event))).ok(); }

Status wait(Event event) { return status_of(cudaEventSynchronize(as_event(event))); }

Status stream_waits(Stream stream, Event event) {
  return status_of(cudaStreamWaitEvent(as_stream(stream), as_event(event), 0));
}

Status elapsed(Event from, Event to, float* milliseconds) {
  return status_of(cudaEventElapsedTime(milliseconds, as_event(from), as_event(to)));
}

}  // namespace gradtail::cuda::runtime
