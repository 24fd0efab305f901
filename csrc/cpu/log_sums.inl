// Sums of blocks of neighbours and their logarithms. Part of pass.inl; core/log_sums.hpp says what they are.

constexpr LogTable kLogTable = GRADTAIL_LOG_TABLE;
constexpr int kBlocksAtOnce = 16;

#if defined(__AVX512F__)
// Sums of neighbours in each 128 bits: two of the first argument, then two of the second.
inline __m512 pair_sums(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

// Sums of neighbouring 128 bits: two of the first argument, then two of the second.
inline __m512 quarter_sums(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

// In the 128 bits l the sums of the elements 4 l ... 4 l + 3 of a block and of those 16, 32 and 48 on.
inline __m512 quads_of(const float* x) {
  return pair_sums(pair_sums(_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16)),
                   pair_sums(_mm512_loadu_ps(x + 32), _mm512_loadu_ps(x + 48)));
}

// Sums of 16 blocks whose quads these are: number 4 * g + l is element g of the 128 bits l.
template <typename Quads>
inline __m512 sums_of_16(const Quads& quads) {
  __m512 r[4];
  for (int g = 0; g < 4; ++g)
    r[g] = quarter_sums(quarter_sums(quads(4 * g), quads(4 * g + 1)), quarter_sums(quads(4 * g + 2), quads(4 * g + 3)));
  return pair_sums(pair_sums(r[0], r[1]), pair_sums(r[2], r[3]));
}

// Logarithms of 16 sums at a time, none of them zero, subnormal or not finite; see log2_of_normal.
struct LogLanes {
  __m512i sum = _mm512_setzero_si512(), squares = _mm512_setzero_si512();  // of a tile: they fit

  void add(__m512 sums, const __m512i (&c)[3]) {
    const __m512i u = _mm512_and_si512(_mm512_castps_si512(sums), _mm512_set1_epi32(0x7fffffff));
    const __m512i i = _mm512_srli_epi32(u, 19);  // of which the permutation takes the last four bits
    const __m512i t = _mm512_and_si512(_mm512_srli_epi32(u, 4), _mm512_set1_epi32(0x7fff));
    const __m512i bend = _mm512_srai_epi32(_mm512_mullo_epi32(_mm512_permutexvar_epi32(i, c[2]), t), 15);
    const __m512i slope = _mm512_add_epi32(_mm512_permutexvar_epi32(i, c[1]), bend);
    const __m512i rise = _mm512_add_epi32(_mm512_mullo_epi32(slope, t), _mm512_set1_epi32(1 << 14));
    const __m512i part = _mm512_add_epi32(_mm512_permutexvar_epi32(i, c[0]), _mm512_srai_epi32(rise, 15));
    const __m512i exponent = _mm512_sub_epi32(_mm512_srli_epi32(u, 23), _mm512_set1_epi32(127));
    const __m512i log2 = _mm512_add_epi32(_mm512_slli_epi32(exponent, kLogFraction),
                                          _mm512_srai_epi32(_mm512_add_epi32(part, _mm512_set1_epi32(2)), 2));
    constexpr int shift = kLogFraction - kSquaredFraction;
    const __m512i rounded = _mm512_srai_epi32(_mm512_add_epi32(log2, _mm512_set1_epi32(1 << (shift - 1))), shift);
    sum = _mm512_add_epi32(sum, log2);
    squares = _mm512_add_epi32(squares, _mm512_mullo_epi32(rounded, rounded));
  }
  void move(LogTally& to) {
    const __m512i odd = _mm512_srli_epi64(squares, 32);
    const __m512i even = _mm512_and_si512(squares, _mm512_set1_epi64(0xffffffff));
    to.sum += _mm512_reduce_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(sum))) +
              _mm512_reduce_add_epi64(_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(sum, 1)));
    to.squares += _mm512_reduce_add_epi64(_mm512_add_epi64(odd, even));
    *this = LogLanes();
  }
};

inline bool out_of_the_ordinary(__m512 sums) {
  const __m512i u = _mm512_and_si512(_mm512_castps_si512(sums), _mm512_set1_epi32(0x7fffffff));
  const __m512i above = _mm512_sub_epi32(u, _mm512_set1_epi32(static_cast<int>(kSmallestNormal)));
  return _mm512_cmpge_epu32_mask(above, _mm512_set1_epi32(static_cast<int>(kInfinityBits - kSmallestNormal))) != 0;
}

// Logarithms that wait to be added up.
struct Waiting {
  LogLanes of_64, of_256;

  void move(LogTally (&tally)[kBlockSizes]) {
    of_64.move(tally[0]);
    of_256.move(tally[1]);
  }
};

// All blocks of 4096 values whose quads these are; false, and nothing done, where a sum is out of the ordinary.
template <typename Quads>
bool count_whole(const Quads& quads, LogTally (&tally)[kBlockSizes], Waiting& waiting) {
  const __m512i c[3] = {_mm512_loadu_si512(kLogTable.c0), _mm512_loadu_si512(kLogTable.c1),
                        _mm512_loadu_si512(kLogTable.c2)};
  __m512 v[4];
  LogLanes of_64 = waiting.of_64;
  bool special = false;
  for (int j = 0; j < 4; ++j) {
    v[j] = sums_of_16([&](int k) { return quads(j * kBlocksAtOnce + k); });
    special |= out_of_the_ordinary(v[j]);
    of_64.add(v[j], c);
  }
  const __m512 of_256 = quarter_sums(quarter_sums(v[0], v[1]), quarter_sums(v[2], v[3]));
  if (special || out_of_the_ordinary(of_256)) return false;
  waiting.of_64 = of_64;
  waiting.of_256.add(of_256, c);
  tally[0].blocks += 64;
  tally[1].blocks += 16;
  const __m512 twice = pair_sums(of_256, of_256), of_1024 = pair_sums(twice, twice);
  float s[16];
  _mm512_storeu_ps(s, of_1024);
  for (int j = 0; j < 4; ++j) add_block(tally[2], s[4 * j], false, kLogTable);
  add_block(tally[3], (s[0] + s[4]) + (s[8] + s[12]), false, kLogTable);
  return true;
}

bool count_whole(const float* x, LogTally (&tally)[kBlockSizes], Waiting& waiting) {
  return count_whole([=](int k) { return quads_of(x + k * kLeastBlock); }, tally, waiting);
}

bool count_quads(const float* quads, LogTally (&tally)[kBlockSizes], Waiting& waiting) {
  return count_whole([=](int k) { return _mm512_load_ps(quads + k * 16); }, tally, waiting);
}

void sums_in_order(const float* x, int blocks, float* out) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (int b = 0; b < blocks; b += kBlocksAtOnce, x += kBlocksAtOnce * kLeastBlock) {
    const int left = blocks - b;
    const __m512 found =
        sums_of_16([=](int k) { return k < left ? quads_of(x + k * kLeastBlock) : _mm512_setzero_ps(); });
    const __mmask16 there = left < kBlocksAtOnce ? static_cast<__mmask16>((1u << left) - 1) : __mmask16{0xffff};
    _mm512_mask_storeu_ps(out + b, there, _mm512_permutexvar_ps(order, found));
  }
}
#else
struct Waiting {
  void move(LogTally (&)[kBlockSizes]) {}
};

bool count_whole(const float*, LogTally (&)[kBlockSizes], Waiting&) { return false; }
bool count_quads(const float*, LogTally (&)[kBlockSizes], Waiting&) { return false; }

#if defined(__AVX2__)
// Sums of neighbours in each 128 bits: two of the first argument, then two of the second.
inline __m256 pair_sums(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
}
inline __m128 pair_sums(__m128 a, __m128 b) {
  return _mm_add_ps(_mm_shuffle_ps(a, b, 0x88), _mm_shuffle_ps(a, b, 0xdd));
}

// Sums of the four eights of 32 values.
inline __m128 eights_of(const float* x) {
  const __m256 v = pair_sums(pair_sums(_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)),
                             pair_sums(_mm256_loadu_ps(x + 16), _mm256_loadu_ps(x + 24)));
  return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}
inline __m128 sixteens_of(const float* x) { return pair_sums(eights_of(x), eights_of(x + 32)); }

inline void sums_in_order(const float* x, int blocks, float* out) {
  int b = 0;
  for (; b + 4 <= blocks; b += 4, x += 4 * kLeastBlock) {
    const __m128 first = pair_sums(sixteens_of(x), sixteens_of(x + kLeastBlock));
    const __m128 last = pair_sums(sixteens_of(x + 2 * kLeastBlock), sixteens_of(x + 3 * kLeastBlock));
    _mm_storeu_ps(out + b, pair_sums(first, last));
  }
  for (; b < blocks; ++b, x += kLeastBlock) {
    const __m128 s = sixteens_of(x), halves = pair_sums(s, s);
    _mm_store_ss(out + b, pair_sums(halves, halves));
  }
}
#else
inline void halve(const float* GRADTAIL_RESTRICT x, int n, float* GRADTAIL_RESTRICT out) {
  for (int j = 0; j < n; ++j) out[j] = x[2 * j] + x[2 * j + 1];
}

inline void sums_in_order(const float* x, int blocks, float* out) {
  alignas(64) float a[kBlocksAtOnce * kLeastBlock / 2], b[kBlocksAtOnce * kLeastBlock / 4];
  for (; blocks > 0; blocks -= kBlocksAtOnce, x += kBlocksAtOnce * kLeastBlock, out += kBlocksAtOnce) {
    const int n = blocks < kBlocksAtOnce ? blocks : kBlocksAtOnce;
    halve(x, n * 32, a);
    halve(a, n * 16, b);
    halve(b, n * 8, a);
    halve(a, n * 4, b);
    halve(b, n * 2, a);
    halve(a, n, out);
  }
}
#endif
#endif

// All blocks of a piece whose sums of 64 values are s[first], ..., s[last - 1]; bit i of `bad` is set where a
// value of s[i] is not finite.
inline void count_levels(const float* s, int first, int last, std::uint64_t bad, LogTally (&tally)[kBlockSizes]) {
  float next[kBlocksAPiece / 4 + kBlocksAPiece / 16 + 1];
  float* to = next;
  std::uint64_t mask = 1;
  for (int level = 0; level < kBlockSizes; ++level) {
    for (int i = first; i < last; ++i) add_block(tally[level], s[i], (bad & mask << (i << 2 * level)) != 0, kLogTable);
    if (level + 1 == kBlockSizes) return;
    first = (first + 3) / 4;
    last /= 4;
    for (int i = first; i < last; ++i) to[i] = (s[4 * i] + s[4 * i + 1]) + (s[4 * i + 2] + s[4 * i + 3]);
    s = to;
    to += kBlocksAPiece >> 2 * (level + 1);
    mask |= mask << (1 << 2 * level) | mask << (2 << 2 * level) | mask << (3 << 2 * level);
  }
}

inline void widen(const double* raw, int n, float* out) {
  for (int i = 0; i < n; ++i) out[i] = static_cast<float>(raw[i]);
}

// n values of one run of a view, from place `at` of 4096 on; not beyond the last.
template <typename Raw>
void count_piece(const Raw* raw, int at, int n, LogTally (&tally)[kBlockSizes], Waiting& waiting) {
  const int first = (at + kLeastBlock - 1) / kLeastBlock, last = (at + n) / kLeastBlock, blocks = last - first;
  if (blocks <= 0) return;
  raw += first * kLeastBlock - at;
  alignas(64) float sums[kBlocksAPiece];
  alignas(64) float wide[std::is_same<Raw, float>::value ? 1 : kMostBlock];
  const float* x;
  if constexpr (std::is_same<Raw, float>::value) {
    x = raw;
  } else {
    widen(raw, blocks * kLeastBlock, wide);
    x = wide;
  }
  if (blocks == kBlocksAPiece && count_whole(x, tally, waiting)) return;
  sums_in_order(x, blocks, sums + first);
  std::uint64_t bad = 0;
  for (int b = first; b < last; ++b) {
    if (is_finite(sums[b])) continue;
    for (int i = 0; i < kLeastBlock; ++i)
      if (!is_finite(x[(b - first) * kLeastBlock + i])) bad |= std::uint64_t{1} << b;
  }
  count_levels(sums, first, last, bad, tally);
}

// The pieces of a view that begin in a tile, each at the beginning of a run or at a multiple of 4096 values.
template <typename Raw>
class BlockLogs {
 public:
  BlockLogs(const Raw* raw, const Tile& tile) : raw_(raw), tile_(tile), tally_(tile.logs) {
    if (tally_ == nullptr || tile.offset == 0) return;
    const Place here{tile.view, tile.offset};
    const bool begins = here.left_in_run(0) == tile.view->run;
    if (!begins && here.index(0) % kMostBlock != 0) at_ = length();
  }

  // Where the loop over the n values from place i on is to leave their quads; null: nowhere.
  float* wanted_quads(std::int64_t i, std::int64_t n) {
    const bool whole = tally_ != nullptr && at_ == i && n == kMostBlock && length() == kMostBlock;
    return whole ? quads_ : nullptr;
  }

  // All that lie within the first `done` values, which are in the cache; `quads` are those of the last ones.
  void go(std::int64_t done, const float* quads = nullptr) {
    if (tally_ == nullptr) return;
    if (quads != nullptr && count_quads(quads, *tally_, waiting_)) at_ += kMostBlock;
    while (at_ < tile_.size) {
      const std::int64_t n = length();
      if (at_ + n > done && done < tile_.size) return;
      count_piece(raw_ + at_, static_cast<int>(Place{tile_.view, tile_.offset + at_}.index(0) % kMostBlock),
                  static_cast<int>(n), *tally_, waiting_);
      at_ += n;
    }
    waiting_.move(*tally_);
  }

 private:
  // To the end of the piece that the next value lies in.
  std::int64_t length() const {
    const Place here{tile_.view, tile_.offset + at_};
    std::int64_t n = kMostBlock - here.index(0) % kMostBlock;
    const std::int64_t in_run = here.left_in_run(0), in_view = tile_.view->size - here.offset;
    n = in_run < n ? in_run : n;
    return in_view < n ? in_view : n;
  }

  const Raw* raw_;
  const Tile& tile_;
  LogTally (*tally_)[kBlockSizes];
  std::int64_t at_ = 0;
  Waiting waiting_;
  alignas(64) float quads_[kBlocksAPiece * 16];
};
