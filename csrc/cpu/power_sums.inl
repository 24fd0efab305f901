// The power sums of a chunk. Part of pass.inl.

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
