// Scan, power sums, sketch and bins of a chunk in one loop, for AVX-512 and the default of 4 bits. Counting bins
// is bound by stores, one a cycle, and leaves the vector units idle; here they do the rest meanwhile. Part of pass.inl.
//
// The scale and the pivot of the power sums are those of the chunk before; the sums are taken again if they
// do not fit. The loop stops in front of values that are far too large for the scale, or not finite. All this
// is relative to the values, so powers of two still change no bit.

constexpr int kFusedStep = 32;
constexpr int kFusedShift = 23 - 4;
constexpr int kFusedRange = 16;      // binades between the scale and the maximum
constexpr int kLeastInFloat = -100;  // exponents of maxima whose sketch may be taken in float32, subnormals
constexpr int kMostInFloat = 100;    // flushed and no sum overflowing

// Sums of values no smaller than this one are zero or normal: the loop may flush what is subnormal.
constexpr std::uint32_t kNoSubnormalSums = (127u - 126 + 24) << 23;

struct Fused {
  Scan seen;
  double sums[4];  // of (x * scale - pivot)^p
  int done;        // values that were taken
};

template <typename Raw>
struct Reader;

template <>
struct Reader<float> {
  static __m512 load(const float* p) { return _mm512_loadu_ps(p); }
  static __m512 load(const float* p, __mmask16 k) { return _mm512_maskz_loadu_ps(k, p); }
  static void count16(const float* p, std::uint32_t* first, std::uint32_t* second) {
    for (int i = 0; i < 16; i += 4) {
      std::uint64_t a, b;
      std::memcpy(&a, p + i, sizeof a);
      std::memcpy(&b, p + i + 2, sizeof b);
      ++first[static_cast<std::uint32_t>(a) >> kFusedShift];
      ++second[a >> (32 + kFusedShift)];
      ++first[static_cast<std::uint32_t>(b) >> kFusedShift];
      ++second[b >> (32 + kFusedShift)];
    }
  }
};

template <>
struct Reader<Bfloat> {
  static __m512 widen(__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }
  static __m512 load(const Bfloat* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static __m512 load(const Bfloat* p, __mmask16 k) { return widen(_mm256_maskz_loadu_epi16(k, p)); }
  // Straight from the stored patterns, four a load.
  static void count16(const Bfloat* p, std::uint32_t* first, std::uint32_t* second) {
    constexpr int shift = kFusedShift - 16;
    for (int i = 0; i < 16; i += 4) {
      std::uint64_t a;
      std::memcpy(&a, p + i, sizeof a);
      ++first[static_cast<std::uint16_t>(a) >> shift];
      ++second[static_cast<std::uint32_t>(a) >> (16 + shift)];
      ++first[static_cast<std::uint16_t>(a >> 32) >> shift];
      ++second[a >> (48 + shift)];
    }
  }
};

inline __m512d low_doubles(__m512 v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
inline __m512d high_doubles(__m512 v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }

// Two sums of 16 lanes each for every power. Moved to double after 8 terms.
struct FusedSums {
  __m512 s[4][2];
  __m512d total[4];

  void clear() {
    for (int p = 0; p < 4; ++p) s[p][0] = s[p][1] = _mm512_setzero_ps();
  }
  void add(__m512 y, int g) {
    const __m512 q = _mm512_mul_ps(y, y);
    s[0][g] = _mm512_add_ps(s[0][g], y);
    s[1][g] = _mm512_add_ps(s[1][g], q);
    s[2][g] = _mm512_fmadd_ps(q, y, s[2][g]);
    s[3][g] = _mm512_fmadd_ps(q, q, s[3][g]);
  }
  void move() {
    for (int p = 0; p < 4; ++p) {
      const __m512 v = _mm512_add_ps(s[p][0], s[p][1]);
      total[p] = _mm512_add_pd(total[p], _mm512_add_pd(low_doubles(v), high_doubles(v)));
    }
    clear();
  }
};

// n values from `index` on, a multiple of 32 where there is a sketch. `quads`: see BlockLogs; null: not wanted.
template <typename Raw, bool kSketch, bool kFold>
GRADTAIL_OPAQUE void fused_loop(const Raw* raw, int n, std::int64_t index, std::uint64_t key, float scale, float pivot,
                                std::uint32_t stop_at, const char* ahead, Counters& counters, Sketch& out, float* quads,
                                Fused& result) {
  const __m512 scales = _mm512_set1_ps(scale), pivots = _mm512_set1_ps(pivot), sign = _mm512_set1_ps(-0.0f);
  const __m512i one = _mm512_set1_epi32(1), limit = _mm512_set1_epi32(static_cast<int>(stop_at));
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff), ones = _mm512_set1_epi32(-1);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i max = _mm512_setzero_si512(), least = ones, nonzero = max;
  std::uint32_t* const first = counters.first;
  std::uint32_t* const second = counters.second;
  FusedSums sums;
  sums.clear();
  for (int p = 0; p < 4; ++p) sums.total[p] = _mm512_setzero_pd();
  const int r = kSketch ? out.buckets : kChunk, groups = r / kGroup;
  std::uint32_t words[kChunk / kSignsAWord];
  constexpr int bytes = static_cast<int>(sizeof(Raw));  // of what is asked for ahead, or twice that
  __m512 half = pivots;                                 // of a block whose other half comes next
  int i = 0;
  bool stopped = false;
  while (i < n && !stopped) {
    SketchBlock block{};
    int position = 0, part = n - i;
    __m512i from = lanes;
    if (kSketch) {
      position = static_cast<int>((index + i) & (r - 1));
      part = r - position < part ? r - position : part;
      block = sketch_block(key, (index + i) >> out.log2_buckets, r);
      sign_words(block, position, position + part, words);
      const __m512i turned =
          _mm512_and_si512(_mm512_sub_epi32(lanes, _mm512_set1_epi32(block.turn)), _mm512_set1_epi32(7));
      from = _mm512_or_si512(turned, _mm512_and_si512(lanes, _mm512_set1_epi32(8)));
    }
    const int begin = i, whole = i + part / kFusedStep * kFusedStep;
    int group = position / kGroup + block.shift;
    const auto values = [&](__m512 v0, __m512 v1) {  // false: not these
      const __m512i m0 = _mm512_and_si512(_mm512_castps_si512(v0), magnitude);
      const __m512i m1 = _mm512_and_si512(_mm512_castps_si512(v1), magnitude);
      const __m512i larger = _mm512_max_epu32(m0, m1);
      if (_mm512_cmpge_epu32_mask(larger, limit)) return false;
      max = _mm512_max_epu32(max, larger);
      least = _mm512_min_epu32(least, _mm512_min_epu32(_mm512_sub_epi32(m0, one), _mm512_sub_epi32(m1, one)));
      nonzero = _mm512_mask_sub_epi32(nonzero, _mm512_test_epi32_mask(m0, m0), nonzero, ones);
      nonzero = _mm512_mask_sub_epi32(nonzero, _mm512_test_epi32_mask(m1, m1), nonzero, ones);
      return true;
    };
    const auto project = [&](__m512 v0, __m512 v1, int at) {
      const std::uint32_t signs = words[(at - begin) / kFusedStep];
      float* const y = out.tile + (group & (groups - 1)) * kGroup;
      float* const f = kFold ? out.folded + (group & (out.fold / kGroup - 1)) * kGroup : nullptr;
      group += kFusedStep / kGroup;
      v0 = _mm512_mask_xor_ps(v0, static_cast<__mmask16>(signs), v0, sign);
      v1 = _mm512_mask_xor_ps(v1, static_cast<__mmask16>(signs >> 16), v1, sign);
      v0 = _mm512_permutexvar_ps(from, v0);
      v1 = _mm512_permutexvar_ps(from, v1);
      // By eights: sixteen would cross cache lines wherever the shift is odd.
      const __m256 parts[4] = {_mm512_castps512_ps256(v0), _mm512_extractf32x8_ps(v0, 1), _mm512_castps512_ps256(v1),
                               _mm512_extractf32x8_ps(v1, 1)};
      for (int g = 0; g < 4; ++g)
        _mm256_store_ps(y + g * kGroup, _mm256_add_ps(_mm256_load_ps(y + g * kGroup), parts[g]));
      if (!kFold) return;
      for (int g = 0; g < 4; ++g)
        _mm256_store_ps(f + g * kGroup, _mm256_add_ps(_mm256_load_ps(f + g * kGroup), parts[g]));
    };
    while (i < whole && !stopped) {
      const int stop = whole - i < kFusedStep * kTerms ? whole : i + kFusedStep * kTerms;
      for (; i < stop; i += kFusedStep) {
        const __m512 v0 = Reader<Raw>::load(raw + i), v1 = Reader<Raw>::load(raw + i + 16);
        if (!values(v0, v1)) {
          stopped = true;
          break;
        }
        sums.add(_mm512_fmsub_ps(v0, scales, pivots), 0);
        Reader<Raw>::count16(raw + i, first, second);
        sums.add(_mm512_fmsub_ps(v1, scales, pivots), 1);
        if (kSketch) project(v0, v1, i);
        if (quads != nullptr) {
          const __m512 pairs = pair_sums(v0, v1);
          if (i % kLeastBlock != 0) _mm512_store_ps(quads + i / kLeastBlock * 16, pair_sums(half, pairs));
          half = pairs;
        }
        Reader<Raw>::count16(raw + i + 16, first, second);
        for (int b = 0; b < kFusedStep * bytes; b += 64) GRADTAIL_PREFETCH(ahead + i * bytes + b);
      }
      sums.move();
    }
    if (!stopped && i < begin + part) {  // fewer than 32 values
      const int left = begin + part - i;
      const std::uint32_t mask = (1u << left) - 1;
      const auto k0 = static_cast<__mmask16>(mask), k1 = static_cast<__mmask16>(mask >> 16);
      const __m512 v0 = Reader<Raw>::load(raw + i, k0), v1 = Reader<Raw>::load(raw + i + 16, k1);
      if (!values(v0, v1)) {
        stopped = true;
      } else {
        sums.add(_mm512_maskz_mov_ps(k0, _mm512_fmsub_ps(v0, scales, pivots)), 0);
        sums.add(_mm512_maskz_mov_ps(k1, _mm512_fmsub_ps(v1, scales, pivots)), 1);
        sums.move();
        if (kSketch) project(v0, v1, i);
        float tail[kFusedStep];
        _mm512_storeu_ps(tail, v0);
        _mm512_storeu_ps(tail + 16, v1);
        for (int l = 0; l < left; ++l) {
          std::uint32_t* const counts = l % 2 != 0 ? second : first;
          ++counts[bits_of(tail[l]) >> kFusedShift];
        }
        i += left;
      }
    }
    if (kSketch && i > begin) out.touch((position / kGroup + block.shift) & (groups - 1), (i - begin + 7) / kGroup);
  }
  result.done = i;
  result.seen.max = _mm512_reduce_max_epu32(max);
  result.seen.min_less_one = _mm512_reduce_min_epu32(least);
  result.seen.zeros = static_cast<std::uint32_t>(i - _mm512_reduce_add_epi32(nonzero));
  for (int p = 0; p < 4; ++p) result.sums[p] = _mm512_reduce_add_pd(sums.total[p]);
}

// What the next chunk may take for granted.
struct Guess {
  bool usable = false;
  bool refused = false;  // the last one took no value
  int exponent = 0;
  float pivot = 0;  // before scaling
};

// Takes as many values of a chunk as the loop can; returns how many. `raw` are stored values, or those widened
// to `buffer`, which is scratch for kChunk + kStep else; `ahead` will be read next.
template <typename Raw>
int fused_chunk(const Raw* raw, int n, const Place& place, float* buffer, const void* ahead, Guess& guess, Record& r,
                Counters& counters, Sketch& out, float*& quads) {
  constexpr int limit = kLargestExponent<float>;
  const int e_scale = guess.exponent > limit ? limit : guess.exponent < -limit ? -limit : guess.exponent;
  const float scale = static_cast<float>(power_of_two(-e_scale)), pivot = guess.pivot * scale;
  const int top_exponent = guess.exponent + kFusedRange;  // values from 2^top_exponent on stop the loop
  const std::uint32_t stop_at = top_exponent > 127    ? kInfinityBits
                                : top_exponent < -126 ? 1u << 23
                                                      : static_cast<std::uint32_t>(top_exponent + 127) << 23;
  const bool in_float = top_exponent <= kMostInFloat && guess.exponent - kFusedRange >= kLeastInFloat;
  const auto* const next = static_cast<const char*>(ahead);
  const std::int64_t index = place.index(0);
  Fused f;
  {
    const SubnormalMode mode(guess.exponent > -limit + 50 ? SubnormalMode::kFlushAll : SubnormalMode::kFlushResults);
    if (out.tile != nullptr && in_float && out.direct)
      fused_loop<Raw, true, true>(raw, n, index, place.view->key, scale, pivot, stop_at, next, counters, out, quads, f);
    else if (out.tile != nullptr && in_float)
      fused_loop<Raw, true, false>(raw, n, index, place.view->key, scale, pivot, stop_at, next, counters, out, quads,
                                   f);
    else
      fused_loop<Raw, false, false>(raw, n, index, place.view->key, scale, pivot, stop_at, next, counters, out, quads,
                                    f);
  }
  const int done = f.done;
  if (done < n || f.seen.min_less_one < kNoSubnormalSums - 1) quads = nullptr;
  if (done < n) guess.usable = false;
  if (done == 0) return 0;
  r.count += done;
  r.zeros += f.seen.zeros;
  note_range(r, f.seen, counters.bits);
  if (f.seen.max == 0) return done;
  const double max_abs = static_cast<double>(float_of(f.seen.max)), top = max_abs * static_cast<double>(scale);
  const int e = exponent_of(max_abs);
  const double mean = f.sums[0] / done, square = mean * mean;
  // The rules of pivot_of and add_moments, here from all the values.
  const bool too_far = pivot != 0 && 4 * f.sums[1] > done * static_cast<double>(pivot) * pivot;
  const bool wants_pivot = pivot == 0 && 256 * square > top * top && f.sums[1] / done < square * (10.0 / 9);
  const bool again = guess.exponent - e > kFusedRange || too_far || wants_pivot;
  if (again || (out.tile != nullptr && !in_float)) {
    if (static_cast<const void*>(raw) != buffer) widen(raw, done, buffer);
    if (out.tile != nullptr && !in_float) add_sketch(out, place, buffer, done, max_abs);
  }
  if (again) {
    // Behind the values there may be others that are still to be read.
    float kept[kStep];
    const int length = padded(done);
    std::memcpy(kept, buffer + done, (length - done) * sizeof(float));
    add_moments(r, buffer, done, buffer + done, length, max_abs);
    std::memcpy(buffer + done, kept, (length - done) * sizeof(float));
    guess.pivot = wants_pivot ? static_cast<float>(mean / static_cast<double>(scale)) : 0;
  } else {
    shift_to_origin(f.sums, done, static_cast<double>(pivot));
    add_power_sums(r, f.sums, e_scale, max_abs);
  }
  guess.exponent = e;
  return done;
}
