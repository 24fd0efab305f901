// What the files of the engine share.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine.hpp"

namespace gradtail::cuda {

constexpr int kUploads = 16;  // tables on their way at a time

// Gives out parts of one allocation; without one it only adds up.
class Arena {
 public:
  explicit Arena(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}
  template <typename T>
  T* take(std::int64_t n) {
    const std::size_t at = used_;
    used_ += (static_cast<std::size_t>(n) * sizeof(T) + 255) / 256 * 256;
    return memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + at);
  }
  std::size_t used() const { return used_; }

 private:
  unsigned char* memory_;
  std::size_t used_ = 0;
};

// A set of views, made ready.
struct Engine::Prepared {
  std::vector<BufferView> views;  // as the device has them
  std::vector<TrackPlan> tracks;
  std::vector<DevicePiece> pieces;
  std::vector<std::int64_t> first_block_piece;
  Plan plan;
  Shape shape;
  DeviceMemory memory;
  PlanMemory on_device{};
  std::size_t partials = 0;  // bytes of scratch memory
  std::array<PinnedMemory, kUploads> slots;
  std::array<OwnEvent, kUploads> uploaded;
  int next = 0;

  void take(Arena& arena) {
    PlanMemory& d = on_device;
    d.views = arena.take<BufferView>(static_cast<std::int64_t>(views.size()));
    d.items = arena.take<Item>(static_cast<std::int64_t>(plan.items.size()));
    d.chain_first = arena.take<std::int32_t>(static_cast<std::int64_t>(plan.chain_first.size()));
    d.rows = arena.take<RowPlan>(static_cast<std::int64_t>(plan.rows.size()));
    d.tracks = arena.take<TrackPlan>(static_cast<std::int64_t>(tracks.size()));
    d.pieces = arena.take<DevicePiece>(static_cast<std::int64_t>(pieces.size()));
    d.first_block_piece = arena.take<std::int64_t>(static_cast<std::int64_t>(first_block_piece.size()));
    d.view_integers = arena.take<ViewIntegers>(static_cast<std::int64_t>(views.size()));
  }
  // Partials lie in memory that all plans share: an update is done with them when it ends.
  void take_partials(Arena& arena, PlanMemory& into) const {
    const std::int64_t items = static_cast<std::int64_t>(plan.items.size()), size = plan.wide ? 2 : 1;
    into.item_sums = arena.take<ItemSums>(items);
    into.item_folds = arena.take<float>(items * kFold * size);
    into.chain_sketch = arena.take<float>(plan.chains() * size * plan.stripe * plan.stripes);
  }
};

}  // namespace gradtail::cuda
