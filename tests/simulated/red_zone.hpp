// Bytes around memory that nobody may write to.
#pragma once

#include <algorithm>
#include <cstddef>

namespace gradtail::simulated {

constexpr unsigned char kPoison = 0xcd;   // memory that nobody has written to
constexpr unsigned char kRedByte = 0xa5;  // of a red zone
constexpr std::size_t kRedZone = 256;     // bytes on both sides

inline void paint_red_zone(unsigned char* zone) { std::fill_n(zone, kRedZone, kRedByte); }

inline void paint_red_zones(unsigned char* begin, std::size_t bytes) {
  paint_red_zone(begin - kRedZone);
  paint_red_zone(begin + bytes);
}

inline bool is_painted(const unsigned char* zone) {
  return std::all_of(zone, zone + kRedZone, [](unsigned char byte) { return byte == kRedByte; });
}

inline bool is_intact(const unsigned char* begin, std::size_t bytes) {
  return is_painted(begin - kRedZone) && is_painted(begin + bytes);
}

}  // namespace gradtail::simulated
