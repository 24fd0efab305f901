// The moments of single coordinates of one tile. Part of pass.inl.

constexpr int kRow = 4 * kGroup;  // floats of a state row

// x / 2^exponent. Values of a tile, as float32.
template <typename Raw>
class Scaled {
 public:
  explicit Scaled(int exponent)
      : wide_(power_of_two(-exponent)),
        in_float_(sizeof(Raw) <= 4 && exponent >= -126 && exponent <= 126),
        narrow_(in_float_ ? static_cast<float>(wide_) : 0.0f) {}
  void get(const Raw* raw, int n, float* out) const {
    if (in_float_) {
      float x[kGroup] = {};
      copy(raw, n, x);
      for (int l = 0; l < kGroup; ++l) out[l] = x[l] * narrow_;
    } else {
      for (int l = 0; l < n; ++l) out[l] = static_cast<float>(as_double(raw[l]) * wide_);
      for (int l = n; l < kGroup; ++l) out[l] = 0;
    }
  }
  bool in_float() const { return in_float_; }
  float factor() const { return narrow_; }

 private:
  static void copy(const Raw* raw, int n, float* out) {
    if (n == kGroup) {
      copy_values(raw, out);
    } else {
      for (int l = 0; l < n; ++l) out[l] = static_cast<float>(as_double(raw[l]));
    }
  }
  static void copy_values(const float* raw, float* out) { std::memcpy(out, raw, kGroup * sizeof(float)); }
  static void copy_values(const double*, float*) {}  // those go through double
  static void copy_values(const Bfloat* raw, float* out) {
    for (int l = 0; l < kGroup; ++l) out[l] = widen_bfloat16(raw[l].bits);
  }
  static void copy_values(const Half* raw, float* out) { widen(raw, kGroup, out); }
  static double as_double(double x) { return x; }
  static double as_double(float x) { return static_cast<double>(x); }
  static double as_double(Half x) { return static_cast<double>(widen_float16(x.bits)); }
  static double as_double(Bfloat x) { return static_cast<double>(widen_bfloat16(x.bits)); }

  double wide_;
  bool in_float_;
  float narrow_;
};

// Values whose fourth powers a float32 can add up; NaN is not.
inline bool all_usable(const float* x) {
  bool usable = true;
  for (int l = 0; l < kGroup; ++l) usable = usable && x[l] < kMostScaled && x[l] > -kMostScaled;
  return usable;
}

// Lanes [first, last) of one group.
inline void update_lanes(const float* x, const CountFactors& n, float* state, int first, int last) {
  for (int l = first; l < last; ++l)
    add_value(x[l], n, state[l], state[kGroup + l], state[2 * kGroup + l], state[3 * kGroup + l]);
}

#if defined(__AVX2__)
// CountFactors for eight.
struct WideFactors {
  __m256 inverse, less_one, less_two, square;
  explicit WideFactors(const CountFactors& n)
      : inverse(_mm256_set1_ps(n.inverse)),
        less_one(_mm256_set1_ps(n.less_one)),
        less_two(_mm256_set1_ps(n.less_two)),
        square(_mm256_set1_ps(n.square)) {}
};

inline bool all_usable(__m256 x) {
  const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  return _mm256_movemask_ps(_mm256_cmp_ps(magnitude, _mm256_set1_ps(kMostScaled), _CMP_LT_OQ)) == 0xff;
}

// The lines of add_value for a whole group.
inline void update_group(__m256 x, const WideFactors& n, float* state) {
  const __m256 mean = _mm256_loadu_ps(state), m2 = _mm256_loadu_ps(state + kGroup);
  const __m256 m3 = _mm256_loadu_ps(state + 2 * kGroup), m4 = _mm256_loadu_ps(state + 3 * kGroup);
  const __m256 delta = _mm256_sub_ps(x, mean), step = _mm256_mul_ps(delta, n.inverse);
  const __m256 term = _mm256_mul_ps(_mm256_mul_ps(delta, step), n.less_one), square = _mm256_mul_ps(step, step);
  const __m256 six = _mm256_set1_ps(6), four = _mm256_set1_ps(4), three = _mm256_set1_ps(3);
  __m256 fourth = _mm256_fnmadd_ps(_mm256_mul_ps(four, step), m3, m4);
  fourth = _mm256_fmadd_ps(_mm256_mul_ps(six, square), m2, fourth);
  fourth = _mm256_fmadd_ps(_mm256_mul_ps(term, square), n.square, fourth);
  __m256 third = _mm256_fnmadd_ps(_mm256_mul_ps(three, step), m2, m3);
  third = _mm256_fmadd_ps(_mm256_mul_ps(term, step), n.less_two, third);
  _mm256_storeu_ps(state, _mm256_add_ps(mean, step));
  _mm256_storeu_ps(state + kGroup, _mm256_add_ps(m2, term));
  _mm256_storeu_ps(state + 2 * kGroup, third);
  _mm256_storeu_ps(state + 3 * kGroup, fourth);
}

inline __m256 load_group(const float* raw) { return _mm256_loadu_ps(raw); }
inline __m256 load_group(const Half* raw) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(raw)));
}
inline __m256 load_group(const Bfloat* raw) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(raw));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// Whole groups side by side, all of them followed.
template <typename Raw>
void update_all(const Raw* raw, std::int64_t groups, float scale, float* state, std::uint32_t* count) {
  const __m256 scales = _mm256_set1_ps(scale);
  std::uint32_t known = 0;
  WideFactors factors{CountFactors{}};
  for (std::int64_t g = 0; g < groups; ++g) {
    const __m256 x = _mm256_mul_ps(load_group(raw + g * kGroup), scales);
    if (!all_usable(x)) continue;
    const std::uint32_t now = ++count[g];
    if (now != known) {
      known = now;
      factors = WideFactors(count_factors(now));
    }
    update_group(x, factors, state + g * kRow);
  }
}

inline void update_group(const float* x, const CountFactors& n, float* state) {
  update_group(_mm256_loadu_ps(x), WideFactors(n), state);
}
#else
inline void update_group(const float* x, const CountFactors& n, float* state) { update_lanes(x, n, state, 0, kGroup); }
#endif

template <typename Raw>
void update_runs(const Tile& tile, const Piece& piece) {
  const BufferView& view = *tile.view;
  const Raw* const data = reinterpret_cast<const Raw*>(static_cast<std::uintptr_t>(view.data));
  auto* const state = reinterpret_cast<float*>(static_cast<std::uintptr_t>(piece.state));
  auto* const count = reinterpret_cast<std::uint32_t*>(static_cast<std::uintptr_t>(piece.count));
  const Scaled<Raw> scaled(piece.exponent);
  const std::int64_t cell = piece.cell, end = tile.offset + tile.size;
  std::uint32_t known = 0;
  CountFactors factors{};
  for (std::int64_t q = tile.offset / view.run; q * view.run < end; ++q) {
    const std::int64_t begin = q * view.run, length = view.size - begin < view.run ? view.size - begin : view.run;
    const std::int64_t a = view.start + q * view.stride;  // index of the run's first element
    // A group belongs to the tile in which its first element of this run lies.
    const std::int64_t low = tile.offset > begin ? tile.offset - begin : 0;
    const std::int64_t high = end - begin < length ? end - begin : length;
    const std::int64_t first = low == 0 ? a / kGroup : (a + low + kGroup - 1) / kGroup;
    const std::int64_t last = (a + high - 1) / kGroup + 1;
    if (first >= last) continue;
    const std::int64_t first_row = q * piece.cells_per_run - a / kGroup / cell;
    std::int64_t id = first / cell;
#if defined(__AVX2__)
    if constexpr (sizeof(Raw) <= sizeof(float)) {
      const std::int64_t whole = (a + length) / kGroup;  // the group after these may be cut
      const std::int64_t groups = (whole < last ? whole : last) - first;
      if (cell == 1 && scaled.in_float() && first * kGroup >= a && groups > 0) {
        update_all(data + begin + first * kGroup - a, groups, scaled.factor(), state + (first_row + id) * kRow,
                   count + first_row + id);
        id += groups;
      }
    }
#endif
    for (; id <= (last - 1) / cell; ++id) {
      const std::int64_t group = chosen_group(view.key, id, cell, piece.elements);
      if (group < first || group >= last) continue;
      const std::int64_t row = first_row + id, at = group * kGroup - a;  // of its lane 0 within the run
      float* const own = state + row * kRow;
      const int from = at < 0 ? static_cast<int>(-at) : 0;
      const int to = at + kGroup > length ? static_cast<int>(length - at) : kGroup;
      alignas(32) float x[kGroup] = {};
      if (from == 0 && to == kGroup) {
        scaled.get(data + begin + at, kGroup, x);
      } else {
        float packed[kGroup];
        scaled.get(data + begin + at + from, to - from, packed);
        for (int l = from; l < to; ++l) x[l] = packed[l - from];
      }
      if (!all_usable(x)) continue;
      if (++count[row] != known) {
        known = count[row];
        factors = count_factors(known);
      }
      if (to - from == kGroup)
        update_group(x, factors, own);
      else
        update_lanes(x, factors, own, from, to);
    }
  }
}

void update_piece(const Tile& tile, const Piece& piece) {
  if (piece.state == 0 || tile.size == 0) return;
  const SubnormalMode mode(SubnormalMode::kKeep);
  switch (tile.view->dtype) {
    case kFloat64:
      return update_runs<double>(tile, piece);
    case kFloat32:
      return update_runs<float>(tile, piece);
    case kFloat16:
      return update_runs<Half>(tile, piece);
    default:
      return update_runs<Bfloat>(tile, piece);
  }
}
