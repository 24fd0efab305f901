// The body of the pass. Each pass_<isa>.cpp defines GRADTAIL_ISA and includes this file; nothing here
// may call an inline function from outside core/ and this file (see core/portable.hpp).
//
// A chunk is brought to float32 with a length that the vector loops divide. Padding and non-finite
// values become zeros, which leave power sums alone and are taken back out of the two counts that
// see them. So the loops below have no special cases.

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../core/coordinates.hpp"
#include "../core/element.hpp"
#include "../core/log_sums.hpp"
#include "../core/moments.hpp"
#include "../core/projection.hpp"
#include "pass.hpp"
#include "simd.hpp"
#include "subnormal.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(_MSC_VER)
#define GRADTAIL_RESTRICT __restrict
#else
#define GRADTAIL_RESTRICT __restrict__
#endif
#if defined(__GNUC__) && !defined(__clang__)
#define GRADTAIL_OPAQUE __attribute__((noipa))
#elif defined(__GNUC__)
#define GRADTAIL_OPAQUE __attribute__((noinline))
#else
#define GRADTAIL_OPAQUE
#endif

namespace gradtail::cpu::GRADTAIL_ISA {
namespace {

using namespace gradtail::GRADTAIL_ISA;

constexpr int kGroups = 4;               // independent accumulators: hides the latency of an addition
constexpr int kTerms = 8;                // float32 additions before sums move to double: at most 12 roundings a term
constexpr int kStep = kLanes * kGroups;  // a padded chunk is a multiple of this
constexpr int kSample = 32;              // values that the pivot is taken from

static_assert(kChunk % kStep == 0, "a full chunk needs no padding");

struct Scan {
  std::uint32_t max = 0;             // largest magnitude pattern
  std::uint32_t min_less_one = ~0u;  // smallest nonzero magnitude pattern - 1: zeros wrap to the top
  std::uint32_t zeros = 0;

  void add(std::uint32_t magnitude) {
    const std::uint32_t less_one = magnitude - 1;
    max = magnitude > max ? magnitude : max;
    min_less_one = less_one < min_less_one ? less_one : min_less_one;
    zeros += magnitude == 0;
  }
};

Scan scan(const float* x, int n) {
  Scan s;
  for (int i = 0; i < n; ++i) s.add(bits_of(x[i]) & kMagnitudeMask);
  return s;
}

#include "bins.inl"
#include "power_sums.inl"

struct Half {
  std::uint16_t bits;
};
struct Bfloat {
  std::uint16_t bits;
};

// Where the values of a chunk lie in the whole.
struct Place {
  const BufferView* view;
  std::int64_t offset;  // of the first value, within the view

  std::int64_t index(std::int64_t i) const {
    const std::int64_t at = offset + i;
    if (at < view->run) return view->start + at;  // most views are one run
    return view->start + at / view->run * view->stride + at % view->run;
  }
  std::int64_t left_in_run(std::int64_t i) const {
    const std::int64_t at = offset + i;
    return view->run - (at < view->run ? at : at % view->run);
  }
};

// Count a non-finite value.
void note_nonfinite(Record& r, bool is_nan, bool negative, std::int64_t index) {
  ++(is_nan ? r.nan : negative ? r.neginf : r.posinf);
  if (index < r.first_nonfinite) r.first_nonfinite = index;
}

// Replace non-finite values by zeros; returns how many.
int take_out_nonfinite(float* x, int n, const Place& place, Record& r) {
  int found = 0;
  for (int i = 0; i < n; ++i) {
    const std::uint32_t bits = bits_of(x[i]), magnitude = bits & kMagnitudeMask;
    if (magnitude < kInfinityBits) continue;
    note_nonfinite(r, magnitude > kInfinityBits, (bits >> 31) != 0, place.index(i));
    x[i] = 0;
    ++found;
  }
  return found;
}

void widen(const float* raw, int n, float* out) { std::memcpy(out, raw, n * sizeof(float)); }

void widen(const Bfloat* raw, int n, float* out) {
  for (int i = 0; i < n; ++i) out[i] = widen_bfloat16(raw[i].bits);
}

void widen(const Half* raw, int n, float* out) {
  int i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16)
    _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(raw + i))));
#elif defined(__F16C__)
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(raw + i))));
#endif
  for (; i < n; ++i) out[i] = widen_float16(raw[i].bits);
}

// The scan of the values of a chunk as they are brought to float32, padding included.
template <typename Raw>
Scan widen_and_scan(const Raw* raw, int n, int length, float* out) {
  widen(raw, n, out);
  std::memset(out + n, 0, (length - n) * sizeof(float));
  return scan(out, length);
}

// In one loop where widening is a shift.
Scan widen_and_scan(const Bfloat* raw, int n, int length, float* out) {
  Scan s;
  for (int i = 0; i < n; ++i) {
    const std::uint32_t bits = static_cast<std::uint32_t>(raw[i].bits) << 16;
    out[i] = float_of(bits);
    s.add(bits & kMagnitudeMask);
  }
  std::memset(out + n, 0, (length - n) * sizeof(float));
  s.zeros += length - n;
  return s;
}

int padded(int n) { return (n + kStep - 1) / kStep * kStep; }

#include "coordinates.inl"
#include "log_sums.inl"
#include "sketch.inl"

constexpr double kLargeForFloat = 0x1p100;  // float32 sums of kTile values below this stay finite

// The sketch of finite values, run by run of the view.
template <typename T>
void add_sketch(Sketch& out, const Place& place, const T* x, int n, double max_abs) {
  if (out.tile == nullptr || max_abs == 0) return;
  const BufferView& view = *place.view;
  for (int i = 0; i < n;) {
    const std::int64_t left = place.left_in_run(i);
    const int count = left < n - i ? static_cast<int>(left) : n - i;
    if constexpr (sizeof(T) == sizeof(float)) {
      if (max_abs < kLargeForFloat)
        sketch_floats(out, view.key, place.index(i), x + i, count);
      else
        sketch_doubles(out, view.key, place.index(i), x + i, count);
    } else {
      sketch_doubles(out, view.key, place.index(i), x + i, count);
    }
    i += count;
  }
}

// A chunk of float32 values: in place if it needs no padding and no repair, else through `buffer`.
template <typename Raw>
void summarize_chunk(const Raw* raw, int n, const Place& place, float* buffer, Record& r, Counters& counters,
                     Sketch& sketch) {
  const int length = padded(n);
  int extra = length - n;
  const bool in_place = sizeof(Raw) == sizeof(float) && extra == 0;
  const float* x = in_place ? reinterpret_cast<const float*>(raw) : buffer;
  Scan seen = in_place ? scan(x, length) : widen_and_scan(raw, n, length, buffer);
  if (seen.max >= kInfinityBits) {
    if (in_place) widen(raw, n, buffer);
    const int bad = take_out_nonfinite(buffer, n, place, r);
    r.count -= bad;
    extra += bad;
    x = buffer;
    seen = scan(x, length);
  }
  r.count += n;
  const double max_abs = static_cast<double>(float_of(seen.max));
  add_moments(r, x, n, buffer + n, length, max_abs);
  add_sketch(sketch, place, x, n, max_abs);
  add_magnitudes(r, seen, x, length, extra, counters, raw + n);
}

// Between these magnitude patterns a float64 is finite and not zero as float32.
constexpr std::uint64_t kVanishes = 0x3690000000000000u;   // 2^-150, and all below, round to zero
constexpr std::uint64_t kOverflows = 0x47effffff0000000u;  // 2^128 - 2^103, and all above, round to infinity

// All of a chunk of float64 has a float32 of its own. Sets max_abs.
bool fits_float32(const double* x, int n, double& max_abs) {
  std::uint64_t max = 0, min_less_one = ~std::uint64_t{0};
  for (int i = 0; i < n; ++i) {
    std::uint64_t magnitude;
    std::memcpy(&magnitude, x + i, sizeof magnitude);
    magnitude &= ~std::uint64_t{0} >> 1;
    const std::uint64_t less_one = magnitude - 1;  // zeros wrap to the top
    max = magnitude > max ? magnitude : max;
    min_less_one = less_one < min_less_one ? less_one : min_less_one;
  }
  std::memcpy(&max_abs, &max, sizeof max);
  return max < kOverflows && min_less_one >= kVanishes;
}

// The same value by value where some have none: zeros take their place in `single`, and in `exact` that of
// non-finite ones. Returns how many zeros that made; sets max_abs.
int split_float64(const double* raw, int n, const Place& place, double* exact, float* single, double& max_abs,
                  Record& r) {
  int made = 0;
  max_abs = 0;
  for (int i = 0; i < n; ++i) {
    const double x = raw[i], magnitude = x < 0 ? -x : x;
    exact[i] = x;
    single[i] = static_cast<float>(x);
    if (!(magnitude <= 1.7976931348623157e308)) {
      note_nonfinite(r, x != x, x < 0, place.index(i));
      --r.count;
      exact[i] = 0;
    } else {
      if (magnitude > max_abs) max_abs = magnitude;
      const bool overflows = !is_finite(single[i]);
      const bool vanishes = x != 0 && (bits_of(single[i]) & kMagnitudeMask) == 0;
      r.overflowed += overflows;
      r.vanished += vanishes;
      if (!overflows && !vanishes) continue;
    }
    single[i] = 0;
    ++made;
  }
  return made;
}

// float64: moments in double from the values, bins from the values rounded to float32.
void summarize_chunk(const double* raw, int n, const Place& place, float* buffer, Record& r, Counters& counters,
                     Sketch& sketch) {
  alignas(64) double exact[kChunk];
  const int length = padded(n);
  int extra = length - n;
  double max_abs = 0;
  const double* x = raw;
  if (fits_float32(raw, n, max_abs)) {
    for (int i = 0; i < n; ++i) buffer[i] = static_cast<float>(raw[i]);
    if (extra > 0) x = static_cast<const double*>(std::memcpy(exact, raw, n * sizeof(double)));
  } else {
    const int bad = split_float64(raw, n, place, exact, buffer, max_abs, r);
    extra += bad;
    x = exact;
  }
  for (int i = n; i < length; ++i) exact[i] = buffer[i] = 0;
  r.count += n;
  add_moments(r, x, n, exact + n, length, max_abs);
  add_sketch(sketch, place, x, n, max_abs);
  add_magnitudes(r, scan(buffer, length), buffer, length, extra, counters, raw + n);
}

#if defined(__AVX512F__)
#include "fused.inl"

constexpr std::int64_t kShortRun = 256;  // shorter runs are sketched one by one
constexpr int kLookedAt = 64;            // values that the first guess at the scale of a tile is made from

// A chunk in one loop where that can be; returns how many values it took, 0 where it cannot. Makes `quads` null
// where it has not left them.
template <typename Raw>
int summarize_fused(const Raw* raw, int n, const Place& place, float* buffer, const void* ahead, Guess& guess,
                    Record& r, Counters& counters, Sketch& sketch, float*& quads) {
  const BufferView& view = *place.view;
  if (counters.bits != 4) return 0;
  if (sketch.tile != nullptr) {
    if (view.run < kShortRun && view.run < view.size) return 0;
    const std::int64_t left = place.left_in_run(0);
    n = left < n ? static_cast<int>(left) : n;
    const int odd = static_cast<int>(place.index(0) % kFusedStep);
    if (odd != 0) {  // up to the next multiple of 32 without
      const int head = kFusedStep - odd < n ? kFusedStep - odd : n;
      summarize_chunk(raw, head, place, buffer, r, counters, sketch);
      return head;
    }
  }
  constexpr bool widen_first = std::is_same<Raw, Half>::value;  // its conversion is no shift
  if (widen_first) widen(raw, n, buffer);
  if (!guess.usable) {  // a few values will do: the loop bears what is far larger, and then a look at all
    const int few = n < kLookedAt ? n : kLookedAt;
    Scan seen = widen_first ? scan(buffer, few) : widen_and_scan(raw, few, few, buffer);
    if (seen.max == 0 || guess.refused) seen = widen_first ? scan(buffer, n) : widen_and_scan(raw, n, n, buffer);
    if (seen.max == 0 || seen.max >= kInfinityBits) return 0;
    guess = {true, false, exponent_of(static_cast<double>(float_of(seen.max))), 0};
  }
  if constexpr (widen_first)
    return fused_chunk(buffer, n, place, buffer, ahead, guess, r, counters, sketch, quads);
  else
    return fused_chunk(raw, n, place, buffer, ahead, guess, r, counters, sketch, quads);
}

template <typename Raw>
void summarize_values(const Raw* raw, const Tile& tile, Record& r, Counters& counters, Sketch& sketch) {
  alignas(64) float buffer[kChunk + kStep];
  Guess guess;
  BlockLogs<Raw> logs(raw, tile);
  for (std::int64_t i = 0; i < tile.size;) {
    const int n = static_cast<int>(tile.size - i < kChunk ? tile.size - i : kChunk);
    const Place place{tile.view, tile.offset + i};
    const void* const ahead = i + n < tile.size || tile.next == nullptr ? raw + i + n : tile.next;
    float* quads = logs.wanted_quads(i, n);
    int done = summarize_fused(raw + i, n, place, buffer, ahead, guess, r, counters, sketch, quads);
    // A guess that took nothing is dropped, and one is made from all values; what still cannot be taken goes the
    // plain way.
    if (done == 0 && !guess.usable) {
      guess.refused = true;
      quads = logs.wanted_quads(i, n);
      done = summarize_fused(raw + i, n, place, buffer, ahead, guess, r, counters, sketch, quads);
    }
    if (done == 0) {
      quads = nullptr;
      summarize_chunk(raw + i, n, place, buffer, r, counters, sketch);
      done = n;
    }
    i += done;
    logs.go(i, quads);
  }
}
#else
template <typename Raw>
void summarize_values(const Raw* raw, const Tile& tile, Record& r, Counters& counters, Sketch& sketch) {
  alignas(64) float buffer[kChunk + kStep];
  BlockLogs<Raw> logs(raw, tile);
  for (std::int64_t i = 0; i < tile.size; i += kChunk) {
    const int n = static_cast<int>(tile.size - i < kChunk ? tile.size - i : kChunk);
    summarize_chunk(raw + i, n, {tile.view, tile.offset + i}, buffer, r, counters, sketch);
    logs.go(i + n);
  }
}
#endif

void summarize_values(const double* raw, const Tile& tile, Record& r, Counters& counters, Sketch& sketch) {
  alignas(64) float buffer[kChunk];
  BlockLogs<double> logs(raw, tile);
  for (std::int64_t i = 0; i < tile.size; i += kChunk) {
    const int n = static_cast<int>(tile.size - i < kChunk ? tile.size - i : kChunk);
    summarize_chunk(raw + i, n, {tile.view, tile.offset + i}, buffer, r, counters, sketch);
    logs.go(i + n);
  }
}

template <typename Raw>
const Raw* values_of(const Tile& tile) {
  return reinterpret_cast<const Raw*>(static_cast<std::uintptr_t>(tile.view->data)) + tile.offset;
}

void summarize_tile(const Tile& tile, Record& r, Counters& counters, Sketch& sketch) {
  const SubnormalMode mode(SubnormalMode::kKeep);
  r = empty_record();
  r.mantissa = mantissa_of(tile.view->dtype);
  switch (tile.view->dtype) {
    case kFloat64:
      return summarize_values(values_of<double>(tile), tile, r, counters, sketch);
    case kFloat32:
      return summarize_values(values_of<float>(tile), tile, r, counters, sketch);
    case kFloat16:
      return summarize_values(values_of<Half>(tile), tile, r, counters, sketch);
    default:
      return summarize_values(values_of<Bfloat>(tile), tile, r, counters, sketch);
  }
}

}  // namespace

extern const Kernels kKernels;
const Kernels kKernels = {flush, summarize_tile, end_sketch, end_row, update_piece};

}  // namespace gradtail::cpu::GRADTAIL_ISA
