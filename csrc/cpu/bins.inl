// Counting bins. Part of pass.inl.

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

// The two counters of bins [from, to) join those of a row, and become zeros. Their sum has 32 bits: counts
// taken back may have wrapped.
inline void move_counts(const Counters& counters, std::int64_t from, std::int64_t to, std::uint64_t* row) {
  std::uint32_t* GRADTAIL_RESTRICT first = counters.first;
  std::uint32_t* GRADTAIL_RESTRICT second = counters.second;
  std::uint64_t* GRADTAIL_RESTRICT counts = row;
  for (std::int64_t i = from; i < to; ++i) {
    const std::uint32_t count = first[i] + second[i];
    counts[i] += count;
    first[i] = second[i] = 0;
  }
}

void flush(const Counters& counters, std::int64_t low, std::int64_t high, std::uint64_t* row) {
  const std::int64_t half = std::int64_t{1} << (8 + counters.bits);
  move_counts(counters, 0, 1, row);
  move_counts(counters, half, half + 1, row);
  if (low > high) return;
  if (low < 1) low = 1;
  move_counts(counters, low, high + 1, row);
  move_counts(counters, half + low, half + high + 1, row);
}

void note_range(Record& r, const Scan& seen, int bits) {
  if (seen.max == 0) return;
  const std::int64_t low = bin_of(seen.min_less_one + 1, bits), high = bin_of(seen.max, bits);
  if (low < r.low_bin) r.low_bin = low;
  if (high > r.high_bin) r.high_bin = high;
}

// Bins and zeros of a chunk of finite float32 values of which `extra` are zeros of our own making; `ahead`
// is what will be read next.
template <typename Raw>
void add_magnitudes(Record& r, const Scan& seen, const float* x, int n, int extra, Counters& counters,
                    const Raw* ahead) {
  r.zeros += static_cast<std::int64_t>(seen.zeros) - extra;
  note_range(r, seen, counters.bits);
  count_bins(x, n, counters, reinterpret_cast<const char*>(ahead), sizeof(Raw));
  counters.first[0] -= extra;  // modulo 2^32 until the two counters are joined
}
