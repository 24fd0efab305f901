// The body of the pass. Each pass_<isa>.cpp defines GRADTAIL_ISA and includes this file; nothing here
// may call an inline function from outside core/ and this file (see core/portable.hpp).
//
// A chunk is brought to float32 with a length that the vector loops divide. Padding and non-finite
// values become zeros, which leave power sums alone and are taken back out of the two counts that
// see them. So the loops below have no special cases.

#include <cstdint>
#include <cstring>

#include "../core/element.hpp"
#include "../core/moments.hpp"
#include "pass.hpp"
#include "simd.hpp"
#include "subnormal.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(__GNUC__)
#define GRADTAIL_PREFETCH(address) __builtin_prefetch(address, 0, 2)
#else
#define GRADTAIL_PREFETCH(address) static_cast<void>(address)
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

// out[p-1] = sum of (x * scale - pivot)^p; n is a multiple of kStep.
GRADTAIL_OPAQUE void power_sums(const float* x, int n, float scale, float pivot, double out[4]) {
  Doubles total[4] = {};
  for (int i = 0; i < n;) {
    const int stop = n - i < kStep * kTerms ? n : i + kStep * kTerms;
    Floats s[4][kGroups] = {};
    for (; i < stop; i += kStep) {
      for (int g = 0; g < kGroups; ++g) {
        const Floats y = load<Floats>(x + i + g * kLanes) * scale - pivot;
        const Floats q = y * y;
        s[0][g] += y;
        s[1][g] += q;
        s[2][g] += q * y;
        s[3][g] += q * q;
      }
    }
    static_assert(kGroups == 4, "the sums of the groups are joined pair by pair");
    for (int p = 0; p < 4; ++p) total[p] += to_doubles((s[p][0] + s[p][1]) + (s[p][2] + s[p][3]));
  }
  for (int p = 0; p < 4; ++p) {
    out[p] = 0;
    for (int j = 0; j < kLanes; ++j) out[p] += total[p][j];
  }
}

GRADTAIL_OPAQUE void power_sums(const double* x, int n, double scale, double pivot, double out[4]) {
  Doubles s[4] = {};
  for (int i = 0; i < n; i += kLanes) {
    const Doubles y = load<Doubles>(x + i) * scale - pivot;
    const Doubles q = y * y;
    s[0] += y;
    s[1] += q;
    s[2] += q * y;
    s[3] += q * q;
  }
  for (int p = 0; p < 4; ++p) {
    out[p] = 0;
    for (int j = 0; j < kLanes; ++j) out[p] += s[p][j];
  }
}

// Where the mean is far from zero, sums about a point near it keep the digits that the central
// moments are made of. Any point will do: the sums are moved back to the origin in double.
template <typename T>
T pivot_of(const T* x, int n, T scale) {
  const int sample = n < kSample ? n : kSample, stride = n / sample;
  double sum = 0, squares = 0;
  for (int i = 0; i < sample; ++i) {
    const double y = static_cast<double>(x[i * stride] * scale);
    sum += y;
    squares += y * y;
  }
  const double mean = sum / sample, square = mean * mean;
  const bool far = square > 1.0 / 256 && squares / sample < square * (10.0 / 9);  // three standard deviations
  return far ? static_cast<T>(mean) : T(0);
}

// Scale factors must be normal numbers of type T with a normal inverse.
template <typename T>
constexpr int kLargestExponent = sizeof(T) == 4 ? 126 : 1022;

// Values x[0..n) and behind them, up to `length`, padding that `pad` points to.
template <typename T>
void add_moments(Record& r, const T* x, int n, T* pad, int length, double max_abs) {
  if (max_abs == 0) return;
  int e = exponent_of(max_abs);
  constexpr int limit = kLargestExponent<T>;
  e = e > limit ? limit : e < -limit ? -limit : e;
  const T scale = static_cast<T>(power_of_two(-e)), inverse = static_cast<T>(power_of_two(e));
  double s[4];
  T pivot;
  {
    // The square of a value 2^63 below the maximum is subnormal, counts for nothing and would cost a
    // microcode assist. So do subnormal inputs, unless the maximum is tiny too.
    const SubnormalMode mode(e > -limit + 50 ? SubnormalMode::kFlushAll : SubnormalMode::kFlushResults);
    const T filler = pivot_of(x, n, scale) * inverse;  // padding that adds nothing to sums about the pivot
    pivot = filler * scale;
    for (int i = 0; i < length - n; ++i) pad[i] = filler;
    power_sums(x, length, scale, pivot, s);
    for (int i = 0; i < length - n; ++i) pad[i] = 0;
    // The sample can mislead, say where one column in 128 is large. Sums about a point that is far from
    // the values lose what they are for, and more: sum |x|^p may be small against n |pivot|^p.
    if (4 * s[1] > static_cast<double>(n) * pivot * pivot && pivot != 0) {
      pivot = 0;
      power_sums(x, length, scale, pivot, s);
    }
  }
  shift_to_origin(s, n, pivot);
  add_power_sums(r, s, e, max_abs);
}

// n is a multiple of kStep; two values a load. This loop waits for its stores, not for memory, so it is
// the place to ask for the next chunk: `ahead` are the `bytes` a value that will be read next.
inline void count_bins(const float* x, int n, Counters& counters, int shift, const char* ahead, int bytes) {
  std::uint32_t* const first = counters.first;
  std::uint32_t* const second = counters.second;
  for (int i = 0; i < n; i += 4) {
    if (i % 16 == 0) GRADTAIL_PREFETCH(ahead + i * bytes);
    std::uint64_t a, b;
    std::memcpy(&a, x + i, sizeof a);
    std::memcpy(&b, x + i + 2, sizeof b);
    ++first[static_cast<std::uint32_t>(a) >> shift];
    ++second[a >> (32 + shift)];
    ++first[static_cast<std::uint32_t>(b) >> shift];
    ++second[b >> (32 + shift)];
  }
}

void count_bins(const float* x, int n, Counters& counters, const char* ahead, int bytes) {
  if (counters.bits == 4)
    count_bins(x, n, counters, 23 - 4, ahead, bytes);  // the default: a shift by a constant is cheaper
  else
    count_bins(x, n, counters, 23 - counters.bits, ahead, bytes);
}

struct Half {
  std::uint16_t bits;
};
struct Bfloat {
  std::uint16_t bits;
};

// Count a non-finite value.
void note_nonfinite(Record& r, bool is_nan, bool negative, std::int64_t index) {
  ++(is_nan ? r.nan : negative ? r.neginf : r.posinf);
  if (index < r.first_nonfinite) r.first_nonfinite = index;
}

// Replace non-finite values by zeros; returns how many.
int take_out_nonfinite(float* x, int n, std::int64_t index, Record& r) {
  int found = 0;
  for (int i = 0; i < n; ++i) {
    const std::uint32_t bits = bits_of(x[i]), magnitude = bits & kMagnitudeMask;
    if (magnitude < kInfinityBits) continue;
    note_nonfinite(r, magnitude > kInfinityBits, (bits >> 31) != 0, index + i);
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

// Bins and zeros of a chunk of finite float32 values of which `extra` are zeros of our own making; `ahead`
// is what will be read next.
template <typename Raw>
void add_magnitudes(Record& r, const Scan& seen, const float* x, int n, int extra, Counters& counters,
                    const Raw* ahead) {
  r.zeros += static_cast<std::int64_t>(seen.zeros) - extra;
  if (seen.max != 0) {
    const std::int64_t low = bin_of(seen.min_less_one + 1, counters.bits), high = bin_of(seen.max, counters.bits);
    if (low < r.low_bin) r.low_bin = low;
    if (high > r.high_bin) r.high_bin = high;
  }
  count_bins(x, n, counters, reinterpret_cast<const char*>(ahead), sizeof(Raw));
  counters.first[0] -= extra;  // modulo 2^32 until the two counters are joined
}

// A chunk of float32 values: in place if it needs no padding and no repair, else through `buffer`.
template <typename Raw>
void summarize_chunk(const Raw* raw, int n, std::int64_t index, float* buffer, Record& r, Counters& counters) {
  const int length = padded(n);
  int extra = length - n;
  const bool in_place = sizeof(Raw) == sizeof(float) && extra == 0;
  const float* x = in_place ? reinterpret_cast<const float*>(raw) : buffer;
  Scan seen = in_place ? scan(x, length) : widen_and_scan(raw, n, length, buffer);
  if (seen.max >= kInfinityBits) {
    if (in_place) widen(raw, n, buffer);
    const int bad = take_out_nonfinite(buffer, n, index, r);
    r.count -= bad;
    extra += bad;
    x = buffer;
    seen = scan(x, length);
  }
  r.count += n;
  add_moments(r, x, n, buffer + n, length, static_cast<double>(float_of(seen.max)));
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
int split_float64(const double* raw, int n, std::int64_t index, double* exact, float* single, double& max_abs,
                  Record& r) {
  int made = 0;
  max_abs = 0;
  for (int i = 0; i < n; ++i) {
    const double x = raw[i], magnitude = x < 0 ? -x : x;
    exact[i] = x;
    single[i] = static_cast<float>(x);
    if (!(magnitude <= 1.7976931348623157e308)) {
      note_nonfinite(r, x != x, x < 0, index + i);
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
void summarize_chunk(const double* raw, int n, std::int64_t index, float* buffer, Record& r, Counters& counters) {
  alignas(64) double exact[kChunk];
  const int length = padded(n);
  int extra = length - n;
  double max_abs = 0;
  const double* x = raw;
  if (fits_float32(raw, n, max_abs)) {
    for (int i = 0; i < n; ++i) buffer[i] = static_cast<float>(raw[i]);
    if (extra > 0) x = static_cast<const double*>(std::memcpy(exact, raw, n * sizeof(double)));
  } else {
    const int bad = split_float64(raw, n, index, exact, buffer, max_abs, r);
    extra += bad;
    x = exact;
  }
  for (int i = n; i < length; ++i) exact[i] = buffer[i] = 0;
  r.count += n;
  add_moments(r, x, n, exact + n, length, max_abs);
  add_magnitudes(r, scan(buffer, length), buffer, length, extra, counters, raw + n);
}

template <typename Raw>
void summarize_chunks(const Tile& tile, Record& r, Counters& counters) {
  alignas(64) float buffer[kChunk];
  const Raw* raw = static_cast<const Raw*>(tile.data);
  for (std::int64_t i = 0; i < tile.size; i += kChunk) {
    const int n = static_cast<int>(tile.size - i < kChunk ? tile.size - i : kChunk);
    summarize_chunk(raw + i, n, tile.start + i, buffer, r, counters);
  }
}

}  // namespace

void summarize_tile(const Tile& tile, Record& r, Counters& counters) {
  const SubnormalMode mode(SubnormalMode::kKeep);
  r = empty_record();
  r.mantissa = mantissa_of(tile.dtype);
  switch (tile.dtype) {
    case kFloat64:
      return summarize_chunks<double>(tile, r, counters);
    case kFloat32:
      return summarize_chunks<float>(tile, r, counters);
    case kFloat16:
      return summarize_chunks<Half>(tile, r, counters);
    default:
      return summarize_chunks<Bfloat>(tile, r, counters);
  }
}

}  // namespace gradtail::cpu::GRADTAIL_ISA
