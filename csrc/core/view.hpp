// Where values lie, and where the moments of their coordinates do. Plain bytes that cross from Python.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradtail {

// Values that lie in somebody else's buffer. python/gradtail/buffers.py describes the same bytes.
struct BufferView {
  std::uint64_t data;  // address of the first element
  std::int64_t size;   // elements
  std::int64_t start;  // index of the first element within the whole
  std::int64_t run;    // element i has index start + i / run * stride + i % run; at least 1
  std::int64_t stride;
  std::uint64_t key;     // of the hashes of the whole
  std::uint64_t layout;  // signature of the shape and of the order of axes in memory
  std::int64_t row;      // row of the table that this view is added to
  std::int32_t dtype;    // DType of core/element.hpp
  std::int32_t device;   // DLPack device type
  std::int32_t device_id;
  std::int32_t reserved;
};
static_assert(sizeof(BufferView) == 80, "the NumPy dtype VIEW has 80 bytes");
static_assert(offsetof(BufferView, dtype) == 64, "the NumPy dtype VIEW has dtype at byte 64");

// CoordinateMoments of one view. python/gradtail/states/coordinates.py describes the same bytes.
struct Piece {
  std::uint64_t state;         // address of float (cells, 4, 8): mean, M2, M3, M4 of x / 2^exponent; 0: none
  std::uint64_t count;         // address of uint32 (cells,): steps in which the group was finite
  std::int64_t cells_per_run;  // run q of the view owns the cells q * cells_per_run, ...
  std::int64_t elements;       // of the whole parameter
  std::int32_t exponent;
  std::int32_t cell;  // groups of a cell, a power of two
};
static_assert(sizeof(Piece) == 40, "the NumPy dtype PIECE has 40 bytes");
static_assert(offsetof(Piece, exponent) == 32, "the NumPy dtype PIECE has exponent at byte 32");

}  // namespace gradtail
