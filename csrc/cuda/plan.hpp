// Cuts views into items and chains. What comes out follows from sizes alone, not from where values lie, nor from the
// device.
#pragma once

#include <cstdint>
#include <vector>

#include "layout.hpp"

namespace gradtail::cuda {

struct Plan {
  std::vector<Item> items;
  std::vector<std::int32_t> chain_first;  // chains + 1
  std::vector<RowPlan> rows;
  std::int32_t stripe = 0, stripes = 0;  // buckets of a team of threads, and how many teams the sketch takes
  bool wide = false;                     // whether any value is float64
  std::int32_t chains() const { return static_cast<std::int32_t>(chain_first.size()) - 1; }
};

// Rows of the views do not decrease. `buckets`, of the map of the sketch, and `lanes` are powers of two.
Plan plan_of(const BufferView* views, std::int64_t n, std::int64_t rows, int buckets, int lanes);

}  // namespace gradtail::cuda
