// Memory of the simulated devices: counted, poisoned, and between red zones.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>

namespace gradtail::simulated {

constexpr int kPinned = -1;  // in place of a device

class Memory {
 public:
  // Null where the limit forbids it.
  void* allocate(int device, std::size_t bytes);
  // False if this is not the address of an allocation of that device.
  bool release(int device, void* memory);

  // Whether [p, p + bytes) lies in one allocation, or has nothing to do with any.
  bool is_range(const void* p, std::size_t bytes) const;
  bool is_pinned(const void* p, std::size_t bytes) const;

  // Which red zone was written to, of a live allocation or of one that was released; empty: none.
  std::string damage() const;

  std::size_t live_bytes(bool pinned) const;
  std::size_t live() const { return allocations_.size(); }
  std::size_t made() const { return made_; }
  void set_limit(std::size_t bytes) { limit_ = bytes; }
  void forget();  // the limit, the count, and damage to what was released

 private:
  struct Allocation {
    std::unique_ptr<unsigned char[]> block;
    std::size_t bytes;
    int device;
  };
  using Map = std::map<const unsigned char*, Allocation>;

  // The one whose memory or red zones have a byte of [p, p + bytes).
  Map::const_iterator find(const void* p, std::size_t bytes) const;
  static std::string damage(const unsigned char* begin, const Allocation& allocation);

  Map allocations_;
  std::size_t limit_ = static_cast<std::size_t>(-1);  // of all devices together, without pinned memory
  std::size_t made_ = 0;
  std::string past_damage_;
};

}  // namespace gradtail::simulated
