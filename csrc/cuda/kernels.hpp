// The two launches of an update.
#pragma once

#include <cstddef>

#include "layout.hpp"
#include "runtime.hpp"

namespace gradtail::cuda {

// How an update is launched on a device.
struct Shape {
  int lanes;                 // threads of a team: 512 or 128
  int pass_blocks;           // of the first kernel
  int finish_blocks;         // of the second
  bool wide;                 // whether any value is float64
  BinMode bins;              // which of them lie in shared memory
  std::size_t shared_bytes;  // of the first kernel
};

// The best shape for a device. `blocks`: of the first kernel; 0: as many as the device holds at a time.
Shape shape_of(const runtime::Properties& device, int bits, bool wide, int lanes = 512, int blocks = 0);

runtime::Status launch_update(const PassArguments& update, const Shape& shape, runtime::Stream stream);

}  // namespace gradtail::cuda
