// Owners of what the CUDA runtime hands out.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "runtime.hpp"

namespace gradtail::cuda {

// What an operation of the CUDA runtime has failed with.
class Failure : public std::runtime_error {
 public:
  Failure(const std::string& operation, const runtime::Status& status)
      : std::runtime_error(operation + ": expected CUDA to go on, got " + status.text), code(status.code) {}
  int code;
};

inline void check(const char* operation, const runtime::Status& status) {
  if (!status.ok()) throw Failure(operation, status);
}

class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(int device, std::size_t bytes) : device_(device), bytes_(bytes) {
    if (bytes > 0) check("allocate", runtime::allocate(device, bytes, &memory_));
  }
  ~DeviceMemory() {
    // Of an empty one no device is asked: to turn to device 0 is to make a context there.
    if (memory_ != nullptr) runtime::release(device_, memory_);
  }
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  void* get() const { return memory_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void swap(DeviceMemory& other) {
    std::swap(device_, other.device_);
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
  }
  int device_ = 0;
  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

// Memory of the host that the device sees.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  explicit PinnedMemory(std::size_t bytes) : bytes_(bytes) {
    if (bytes > 0) check("allocate", runtime::allocate_pinned(bytes, &host_, &on_device_));
  }
  ~PinnedMemory() {
    if (host_ != nullptr) runtime::release_pinned(host_);
  }
  PinnedMemory(PinnedMemory&& other) noexcept { swap(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  void* host() const { return host_; }
  void* on_device() const { return on_device_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void swap(PinnedMemory& other) {
    std::swap(host_, other.host_);
    std::swap(on_device_, other.on_device_);
    std::swap(bytes_, other.bytes_);
  }
  void* host_ = nullptr;
  void* on_device_ = nullptr;
  std::size_t bytes_ = 0;
};

// A stream of our own, for copies that must not be part of the caller's.
class OwnStream {
 public:
  OwnStream() = default;
  explicit OwnStream(int device) { check("create stream", runtime::create_stream(device, &stream_)); }
  ~OwnStream() {
    if (stream_ != nullptr) runtime::destroy_stream(stream_);
  }
  OwnStream(OwnStream&& other) noexcept { std::swap(stream_, other.stream_); }
  OwnStream& operator=(OwnStream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  runtime::Stream get() const { return stream_; }

 private:
  runtime::Stream stream_ = nullptr;
};

class OwnEvent {
 public:
  OwnEvent() = default;
  OwnEvent(int device, bool timing) { check("create event", runtime::create_event(device, &event_, timing)); }
  ~OwnEvent() {
    if (event_ != nullptr) runtime::destroy_event(event_);
  }
  OwnEvent(OwnEvent&& other) noexcept { std::swap(event_, other.event_); }
  OwnEvent& operator=(OwnEvent&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  runtime::Event get() const { return event_; }

 private:
  runtime::Event event_ = nullptr;
};

// Memory on a device that holds zeros to begin with, for others to point to.
class ZeroedMemory {
 public:
  ZeroedMemory(int device, std::size_t bytes);
  void* get() const { return memory_.get(); }
  std::size_t bytes() const { return memory_.bytes(); }
  void write(const void* from, std::size_t bytes);  // waits
  void read(void* to, std::size_t bytes);           // waits

 private:
  int device_;
  DeviceMemory memory_;
};

}  // namespace gradtail::cuda
