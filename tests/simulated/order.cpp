#include "order.hpp"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace gradtail::simulated {
namespace {

// Not std::shuffle, whose order differs between C++ libraries.
void shuffle_range(int* first, int* last, Random& random) {
  for (auto n = static_cast<std::size_t>(last - first); n > 1; --n) std::swap(first[n - 1], first[random.below(n)]);
}

}  // namespace

void choose_order(Order order, int n, Random& random, int* out) {
  std::iota(out, out + n, 0);
  if (order == Order::kDescending) std::reverse(out, out + n);
  if (order != Order::kShuffled) return;
  if (random.next() & 1) return shuffle_range(out, out + n, random);
  std::vector<int> warps(static_cast<std::size_t>((n + kWarpLanes - 1) / kWarpLanes));
  std::iota(warps.begin(), warps.end(), 0);
  shuffle_range(warps.data(), warps.data() + warps.size(), random);
  for (const int warp : warps) {
    const int first = warp * kWarpLanes, lanes = std::min(n - first, kWarpLanes);
    std::iota(out, out + lanes, first);
    shuffle_range(out, out + lanes, random);
    out += lanes;
  }
}

}  // namespace gradtail::simulated
