// Vectors of W numbers with + and *, for sums that must keep their shape: compiler vectors where
// the compiler has them, else a plain loop. Included once per instruction set.
#pragma once

#include <cstring>

#include "../core/portable.hpp"

GRADTAIL_CORE_BEGIN

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

#if defined(__GNUC__) && !defined(GRADTAIL_PLAIN_LANES)
typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
typedef double Doubles __attribute__((vector_size(kLanes * sizeof(double))));
inline Doubles to_doubles(Floats v) { return __builtin_convertvector(v, Doubles); }
#else
template <typename T>
struct Lanes {
  T v[kLanes];
  T operator[](int i) const { return v[i]; }
  Lanes& operator+=(const Lanes& o) {
    for (int i = 0; i < kLanes; ++i) v[i] += o.v[i];
    return *this;
  }
  friend Lanes operator+(Lanes a, const Lanes& b) { return a += b; }
  friend Lanes operator*(const Lanes& a, const Lanes& b) {
    Lanes r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = a.v[i] * b.v[i];
    return r;
  }
  friend Lanes operator*(const Lanes& a, T b) {
    Lanes r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = a.v[i] * b;
    return r;
  }
  friend Lanes operator-(const Lanes& a, T b) {
    Lanes r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = a.v[i] - b;
    return r;
  }
};
using Floats = Lanes<float>;
using Doubles = Lanes<double>;
inline Doubles to_doubles(const Floats& f) {
  Doubles d;
  for (int i = 0; i < kLanes; ++i) d.v[i] = f.v[i];
  return d;
}
#endif

template <typename Vector, typename T>
inline Vector load(const T* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

GRADTAIL_CORE_END
