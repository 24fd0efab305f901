#include "memory.hpp"

#include <cstdint>
#include <cstring>

#include "red_zone.hpp"

namespace gradtail::simulated {

void* Memory::allocate(int device, std::size_t bytes) {
  constexpr std::size_t kAlignment = 256;  // CUDA's
  if (device != kPinned && (live_bytes(false) > limit_ || bytes > limit_ - live_bytes(false))) return nullptr;
  std::unique_ptr<unsigned char[]> block(new unsigned char[bytes + 2 * kRedZone + kAlignment]);
  const auto past = reinterpret_cast<std::uintptr_t>(block.get() + kRedZone) % kAlignment;
  unsigned char* const begin = block.get() + kRedZone + (kAlignment - past);
  std::fill_n(begin, bytes, kPoison);
  paint_red_zones(begin, bytes);
  allocations_[begin] = {std::move(block), bytes, device};
  ++made_;
  return begin;
}

bool Memory::release(int device, void* memory) {
  const auto found = allocations_.find(static_cast<unsigned char*>(memory));
  if (found == allocations_.end() || found->second.device != device) return false;
  if (past_damage_.empty()) past_damage_ = damage(found->first, found->second);
  allocations_.erase(found);
  return true;
}

Memory::Map::const_iterator Memory::find(const void* p, std::size_t bytes) const {
  const auto* const first = static_cast<const unsigned char*>(p);
  auto next = allocations_.upper_bound(first + bytes + kRedZone);
  if (next == allocations_.begin()) return allocations_.end();
  --next;
  return first < next->first + next->second.bytes + kRedZone ? next : allocations_.end();
}

bool Memory::is_range(const void* p, std::size_t bytes) const {
  const auto found = find(p, bytes);
  if (found == allocations_.end()) return true;
  const auto* const first = static_cast<const unsigned char*>(p);
  return found->first <= first && first + bytes <= found->first + found->second.bytes;
}

bool Memory::is_pinned(const void* p, std::size_t bytes) const {
  const auto found = find(p, bytes);
  return found != allocations_.end() && found->second.device == kPinned && is_range(p, bytes);
}

std::string Memory::damage(const unsigned char* begin, const Allocation& allocation) {
  const std::string what = " an allocation of " + std::to_string(allocation.bytes) + " bytes";
  if (!is_painted(begin + allocation.bytes)) return "write past the end of" + what;
  if (!is_painted(begin - kRedZone)) return "write before the beginning of" + what;
  return "";
}

std::string Memory::damage() const {
  if (!past_damage_.empty()) return past_damage_;
  for (const auto& [begin, allocation] : allocations_) {
    const std::string found = damage(begin, allocation);
    if (!found.empty()) return found;
  }
  return "";
}

std::size_t Memory::live_bytes(bool pinned) const {
  std::size_t sum = 0;
  for (const auto& [begin, allocation] : allocations_)
    if ((allocation.device == kPinned) == pinned) sum += allocation.bytes;
  return sum;
}

void Memory::forget() {
  limit_ = static_cast<std::size_t>(-1);
  made_ = 0;
  past_damage_.clear();
  for (const auto& [begin, allocation] : allocations_)
    paint_red_zones(const_cast<unsigned char*>(begin), allocation.bytes);
}

}  // namespace gradtail::simulated
