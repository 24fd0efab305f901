// The parts of the DLPack ABI (version 1.3, https://dmlc.github.io/dlpack/latest/c_api.html) that we
// read: a tensor's description, and the exchange table that torch hangs on its Tensor type.
#pragma once

#include <cstdint>

namespace gradtail::dlpack {

enum Device : std::int32_t { kCpu = 1, kCuda = 2 };
enum TypeCode : std::uint8_t { kFloat = 2, kBfloat = 4 };

struct Tensor {
  void* data;
  std::int32_t device_type;
  std::int32_t device_id;
  std::int32_t ndim;
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;  // null: row-major
  std::uint64_t byte_offset;
};

struct ExchangeApi {
  std::uint32_t major, minor;
  ExchangeApi* previous;
  int (*managed_tensor_allocator)();
  int (*managed_tensor_from_py_object_no_sync)();
  int (*managed_tensor_to_py_object_no_sync)();
  int (*tensor_from_py_object_no_sync)(void* object, Tensor* out);
  int (*current_work_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};

constexpr std::uint32_t kMajor = 1;  // of the ABI declared here
constexpr const char* kExchangeName = "dlpack_exchange_api";

}  // namespace gradtail::dlpack
