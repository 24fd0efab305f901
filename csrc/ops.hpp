// THE backend interface: what crosses from Python, and one declaration per operation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/log_sums.hpp"
#include "core/record.hpp"
#include "core/view.hpp"

namespace gradtail {

// Summaries side by side: records[row], counts[row * bins ... (row + 1) * bins], and logs[row * kBlockSizes ...]
// unless that is null.
struct TableView {
  Record* records;
  std::uint64_t* counts;
  std::int64_t rows;
  int bits;
  LogSums* logs = nullptr;
  std::int64_t bins() const { return std::int64_t{2} << (8 + bits); }
};

// What else one pass writes; a null pointer: not wanted. python/gradtail/states/outputs.py says the same.
struct Outputs {
  Record* records = nullptr;       // of each view by itself: overwritten
  double* sketch = nullptr;        // buckets: added to
  double* row_sketches = nullptr;  // rows * fold: the sketch of each row, bucket mod fold: added to
  int buckets = 0, fold = 0;
  const std::int64_t* track_first = nullptr;   // views + 1
  const std::int64_t* track_offset = nullptr;  // element offsets, ascending within each view
  float* track_value = nullptr;                // overwritten
  const Piece* pieces = nullptr;               // of each view: what they point to is updated
};

namespace cpu {

// Read every view once, add it to its row, and do all that `out` asks for.
void observe(const BufferView* views, std::int64_t n, TableView table, const Outputs& out);

// Add the sketch of every view to `out`.
void sketch(const BufferView* views, std::int64_t n, double* out, int buckets);

// Update the moments of the coordinates of every view.
void update_coordinates(const BufferView* views, std::int64_t n, const Piece* pieces);

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
