// The sketch of values that lie side by side, in float32 into the accumulator of the tile or, where float32
// would not do, in double into its sums. Part of pass.inl.

// Signs of the positions [first, last) of a block; bit 0 of words[0] belongs to position first / 32 * 32.
inline void sign_words(const SketchBlock& block, int first, int last, std::uint32_t* words) {
  const std::uint32_t low = static_cast<std::uint32_t>(first / kSignsAWord);
  const int n = (last - 1) / kSignsAWord - static_cast<int>(low) + 1;
  for (int i = 0; i < n; ++i) words[i] = sign_word(block, low + static_cast<std::uint32_t>(i));
}

// Call f(block, position, offset, count) for the parts of n values from `index` on that lie in one block.
template <typename F>
inline void for_blocks(std::uint64_t key, std::int64_t index, int n, const Sketch& out, F f) {
  const int r = out.buckets;
  for (int i = 0; i < n;) {
    const int p = static_cast<int>((index + i) & (r - 1)), count = r - p < n - i ? r - p : n - i;
    f(sketch_block(key, (index + i) >> out.log2_buckets, r), p, i, count);
    i += count;
  }
}

#if defined(__AVX2__)
// y[(l + turn) % 8] += (+-) x[l]
class GroupAdder {
 public:
  explicit GroupAdder(int turn)
      : from_(_mm256_and_si256(_mm256_sub_epi32(lanes(), _mm256_set1_epi32(turn)), _mm256_set1_epi32(7))) {}
  void add(float* y, const float* x, std::uint32_t signs) const {
    const __m256i bits = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(signs)), lanes());
    const __m256 v = _mm256_xor_ps(_mm256_loadu_ps(x), _mm256_castsi256_ps(_mm256_slli_epi32(bits, 31)));
    _mm256_storeu_ps(y, _mm256_add_ps(_mm256_loadu_ps(y), _mm256_permutevar8x32_ps(v, from_)));
  }

 private:
  static __m256i lanes() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
  __m256i from_;
};
#else
class GroupAdder {
 public:
  explicit GroupAdder(int turn) : turn_(turn) {}
  void add(float* y, const float* x, std::uint32_t signs) const {
    float v[kGroup];
    for (int l = 0; l < kGroup; ++l) v[(l + turn_) & (kGroup - 1)] = with_sign(x[l], signs, l);
    for (int l = 0; l < kGroup; ++l) y[l] += v[l];
  }

 private:
  int turn_;
};
#endif

// Finite values, small enough that kTile of them cannot overflow.
inline void sketch_floats(Sketch& out, std::uint64_t key, std::int64_t index, const float* x, int n) {
  const int r = out.buckets, groups = r / kGroup;
  for_blocks(key, index, n, out, [&](const SketchBlock& block, int p, int offset, int count) {
    std::uint32_t words[kChunk / kSignsAWord + 1];
    const int first = p / kSignsAWord, end = p + count;
    sign_words(block, p, end, words);
    const float* const from = x + offset - p;  // from[position]
    const int folds = out.fold / kGroup;
    const auto one = [&](int k) {
      const int bucket = bucket_of(block, k, r);
      const float v = with_sign(from[k], words[k / kSignsAWord - first], k);
      out.tile[bucket] += v;
      if (out.direct) out.folded[bucket & (out.fold - 1)] += v;
    };
    const GroupAdder adder(block.turn);
    const int whole = (p + kGroup - 1) / kGroup * kGroup;
    int k = p;
    for (; k < whole && k < end; ++k) one(k);
    for (; k + kGroup <= end; k += kGroup) {
      const int group = (k / kGroup + block.shift) & (groups - 1);
      const std::uint32_t signs = words[k / kSignsAWord - first] >> (k % kSignsAWord);
      adder.add(out.tile + group * kGroup, from + k, signs);
      if (out.direct) adder.add(out.folded + (group & (folds - 1)) * kGroup, from + k, signs);
    }
    for (; k < end; ++k) one(k);
    const int low = (p / kGroup + block.shift) & (groups - 1), touched = (end - 1) / kGroup - p / kGroup + 1;
    out.touch(low, touched);
  });
}

// Any finite values.
template <typename T>
void sketch_doubles(Sketch& out, std::uint64_t key, std::int64_t index, const T* x, int n) {
  for_blocks(key, index, n, out, [&](const SketchBlock& block, int p, int offset, int count) {
    for (int i = 0; i < count; ++i) {
      const int bucket = bucket_of(block, p + i, out.buckets);
      const std::uint32_t word = sign_word(block, static_cast<std::uint32_t>((p + i) / kSignsAWord));
      const double v = with_sign(static_cast<double>(x[offset + i]), word, p + i);
      out.total[bucket] += v;
      if (out.row != nullptr) out.row[bucket & (out.fold - 1)] += v;
    }
  });
}

// Groups [first, last) of the tile's accumulator go to the sums and become zeros.
template <bool kRows>
inline void move_groups(Sketch& s, int first, int last) {
  const int groups = s.buckets / kGroup;
  for (int g = first; g < last; ++g) {
    float* const y = s.tile + g * kGroup;
    const int to = (g & (groups - 1)) * kGroup;
#if defined(__AVX512F__)
    const __m512d v = _mm512_cvtps_pd(_mm256_loadu_ps(y));
    _mm512_storeu_pd(s.total + to, _mm512_add_pd(_mm512_loadu_pd(s.total + to), v));
    if (kRows) {
      double* const row = s.row + (to & (s.fold - 1));
      _mm512_storeu_pd(row, _mm512_add_pd(_mm512_loadu_pd(row), v));
    }
    _mm256_storeu_ps(y, _mm256_setzero_ps());
#else
    double v[kGroup];
    for (int l = 0; l < kGroup; ++l) v[l] = static_cast<double>(y[l]);
    for (int l = 0; l < kGroup; ++l) s.total[to + l] += v[l];
    if (kRows) {
      double* const row = s.row + (to & (s.fold - 1));
      for (int l = 0; l < kGroup; ++l) row[l] += v[l];
    }
    std::memset(y, 0, kGroup * sizeof(float));
#endif
  }
}

inline void move_groups(Sketch& s, int first, int last) {
  if (s.row != nullptr && !s.direct)
    move_groups<true>(s, first, last);
  else
    move_groups<false>(s, first, last);
}

void end_sketch(Sketch& s) {
  const SubnormalMode mode(SubnormalMode::kKeep);
  const int groups = s.buckets / kGroup;
  bool all = s.used > Sketch::kMostSpans;
  for (int i = 0, n = 0; i < s.used && !all; ++i) {
    n += s.spans[i].count;
    all = n >= groups;
  }
  if (all) {
    move_groups(s, 0, groups + Sketch::kSpare);
  } else {
    for (int i = 0; i < s.used; ++i) {  // where they overlap, zeros are added
      const int first = s.spans[i].first, last = first + s.spans[i].count;
      if (last <= groups) {
        move_groups(s, first, last);
      } else {
        move_groups(s, first, groups + Sketch::kSpare);
        move_groups(s, 0, last - groups);
      }
    }
  }
  s.used = 0;
}

void end_row(Sketch& s) {
  if (!s.direct) return;
  for (int b = 0; b < s.fold + kGroup * Sketch::kSpare; ++b) {
    s.row[b & (s.fold - 1)] += static_cast<double>(s.folded[b]);
    s.folded[b] = 0;
  }
}
