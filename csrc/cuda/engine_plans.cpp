// Plans of the engine: sets of views, made ready.

#include <algorithm>
#include <cstring>

#include "engine_parts.hpp"

namespace gradtail::cuda {

std::unique_ptr<Engine::Prepared> Engine::make(const std::vector<BufferView>& views, const TrackPlan* tracks,
                                               const DevicePiece* pieces) {
  auto made = std::make_unique<Prepared>();
  made->views = views;
  const auto n = static_cast<std::int64_t>(views.size());
  made->plan = plan_of(views.data(), n, settings_.rows, state_.buckets, settings_.lanes);
  made->shape = shape_of(properties_, settings_.bits, made->plan.wide, settings_.lanes, settings_.blocks);
  made->tracks.assign(tracks, tracks + settings_.tracks);
  made->on_device.cells = 0;
  if (pieces != nullptr) {
    made->pieces.assign(pieces, pieces + n);
    for (std::int64_t v = 0; v < n; ++v) {
      DevicePiece& piece = made->pieces[static_cast<std::size_t>(v)];
      piece.first_cell = made->on_device.cells;
      if (piece.state == nullptr || views[v].size == 0) continue;
      made->on_device.cells += (views[v].size + views[v].run - 1) / views[v].run * piece.cells_per_run;
    }
  }
  made->first_block_piece.push_back(0);
  for (const BufferView& view : views) {
    const std::int64_t runs = (view.size + view.run - 1) / view.run;
    made->first_block_piece.push_back(made->first_block_piece.back() + runs * pieces_of_run(view.run));
  }
  PlanMemory& d = made->on_device;
  d.n_views = static_cast<std::int32_t>(n);
  d.n_items = static_cast<std::int32_t>(made->plan.items.size());
  d.chains = made->plan.chains();
  d.stripe = made->plan.stripe;
  d.stripes = made->plan.stripes;
  Arena size(nullptr), partials(nullptr);
  made->take(size);
  made->take_partials(partials, made->on_device);
  made->partials = partials.used();
  made->memory = DeviceMemory(settings_.device, std::max<std::size_t>(size.used(), 256));
  for (int i = 0; i < kUploads; ++i) {
    made->slots[i] = PinnedMemory(std::max<std::size_t>(n * sizeof(BufferView), 256));
    made->uploaded[i] = OwnEvent(settings_.device, false);
  }
  Arena arena(made->memory.get());
  made->take(arena);
  // Last of what may fail: it stays.
  if (scratch_.empty() || scratch_.back().bytes() < made->partials)
    scratch_.emplace_back(settings_.device, std::max<std::size_t>(made->partials, 256));

  reserve(made->memory.bytes());
  auto* const host = static_cast<unsigned char*>(staging_.host());
  std::memset(host, 0, made->memory.bytes());
  const auto put = [&](const void* at, const void* from, std::size_t bytes) {
    if (bytes > 0)
      std::memcpy(host + (static_cast<const unsigned char*>(at) - static_cast<unsigned char*>(made->memory.get())),
                  from, bytes);
  };
  put(d.views, made->views.data(), made->views.size() * sizeof(BufferView));
  put(d.items, made->plan.items.data(), made->plan.items.size() * sizeof(Item));
  put(d.chain_first, made->plan.chain_first.data(), made->plan.chain_first.size() * sizeof(std::int32_t));
  put(d.rows, made->plan.rows.data(), made->plan.rows.size() * sizeof(RowPlan));
  put(d.tracks, made->tracks.data(), made->tracks.size() * sizeof(TrackPlan));
  put(d.pieces, made->pieces.data(), made->pieces.size() * sizeof(DevicePiece));
  put(d.first_block_piece, made->first_block_piece.data(), made->first_block_piece.size() * sizeof(std::int64_t));
  const std::vector<ViewIntegers> integers(views.size(), ViewIntegers{kNoIndex, 0});
  put(d.view_integers, integers.data(), integers.size() * sizeof(ViewIntegers));
  check("copy", runtime::copy_to_device(made->memory.get(), host, made->memory.bytes(), copies_.get()));
  check("wait", runtime::synchronize(copies_.get()));
  return made;
}

int Engine::prepare(const BufferView* views, std::int64_t n, const TrackPlan* tracks, const DevicePiece* pieces) {
  const runtime::DeviceGuard guard(settings_.device);
  auto made = make({views, views + n}, tracks, pieces);
  for (std::size_t i = 0; i < plans_.size(); ++i) {
    if (plans_[i] != nullptr) continue;
    plans_[i] = std::move(made);
    return static_cast<int>(i);
  }
  plans_.push_back(std::move(made));
  return static_cast<int>(plans_.size()) - 1;
}

void Engine::forget(int plan) {
  const runtime::DeviceGuard guard(settings_.device);
  wait();
  plans_.at(static_cast<std::size_t>(plan)).reset();
}

PlanMemory Engine::memory_of(const Prepared& plan) const {
  PlanMemory memory = plan.on_device;
  Arena arena(scratch_.back().get());
  plan.take_partials(arena, memory);
  return memory;
}

// Tell the device where values lie now, through memory that the copy reads after this returns.
void Engine::upload(Prepared& plan, const BufferView* views, runtime::Stream stream) {
  const std::size_t bytes = plan.views.size() * sizeof(BufferView);
  OwnEvent& event = plan.uploaded[plan.next];
  if (!runtime::is_done(event.get())) check("wait", runtime::wait(event.get()));
  void* const slot = plan.slots[plan.next].host();
  std::memcpy(slot, views, bytes);
  check("copy", runtime::copy_to_device(const_cast<BufferView*>(plan.on_device.views), slot, bytes, stream));
  check("record", runtime::record(event.get(), stream));
  plan.next = (plan.next + 1) % kUploads;
  std::memcpy(plan.views.data(), views, bytes);
}

}  // namespace gradtail::cuda
