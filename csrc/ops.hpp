// THE backend interface: what crosses from Python, and one declaration per operation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/record.hpp"

namespace gradtail {

// Values that lie in somebody else's buffer. python/gradtail/buffers.py describes the same bytes.
struct BufferView {
  std::uint64_t data;   // address of the first element
  std::int64_t size;    // elements
  std::int64_t start;   // index of the first element within the whole
  std::int64_t row;     // row of the table that this view is added to
  std::int32_t dtype;   // DType of core/element.hpp
  std::int32_t device;  // DLPack device type
  std::int32_t device_id;
  std::int32_t reserved;
};
static_assert(sizeof(BufferView) == 48, "the NumPy dtype VIEW has 48 bytes");

// Summaries side by side: records[row] and counts[row * bins ... (row + 1) * bins].
struct TableView {
  Record* records;
  std::uint64_t* counts;
  std::int64_t rows;
  int bits;
  std::int64_t bins() const { return std::int64_t{2} << (8 + bits); }
};

namespace cpu {

// Read every view once and add it to its row.
void summarize(const BufferView* views, std::int64_t n, TableView table);

// Add each row of `from` to the same row of `into`.
void fold(TableView into, TableView from);

// Empty every row, touching only the bins in use.
void clear(TableView table);

int num_threads();
void set_num_threads(int n);

std::vector<std::string> simd_levels();  // those this machine can run, slowest first
std::string simd();                      // the one in use
void set_simd(const std::string& level);

}  // namespace cpu

namespace cuda {

struct Probe {      // plain arrays: the .cu file may be compiled against another C++ library
  int runtime = 0;  // CUDA version of the linked runtime, e.g. 13000
  int driver = 0;   // newest CUDA version that the driver supports; 0: no driver
  int status = 0;   // cudaError_t of the device count
  char message[256] = "";
  struct Device {
    char name[256];
    int major, minor;
    std::int64_t memory;  // bytes
  };
  static constexpr int kMost = 32;
  Device devices[kMost];
  int count = 0;
};

bool built();  // false: compiled without CUDA, and probe() is empty
const char* architectures();
Probe probe();

}  // namespace cuda
}  // namespace gradtail
