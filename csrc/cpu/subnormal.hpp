// How this thread treats subnormal numbers, put back at the end of the scope. Frameworks let users change
// it (torch.set_flush_denormal); what we report must not depend on that.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "../core/portable.hpp"

GRADTAIL_CORE_BEGIN

class SubnormalMode {
 public:
#if defined(__SSE2__)
  static constexpr unsigned kKeep = 0, kFlushResults = 0x8000, kFlushAll = 0x8040;
  explicit SubnormalMode(unsigned mode) : saved_(_mm_getcsr()) { _mm_setcsr((saved_ & ~0x8040u) | mode); }
  ~SubnormalMode() { _mm_setcsr(saved_); }
  SubnormalMode(const SubnormalMode&) = delete;
  SubnormalMode& operator=(const SubnormalMode&) = delete;

 private:
  unsigned saved_;
#else
  static constexpr unsigned kKeep = 0, kFlushResults = 1, kFlushAll = 2;
  explicit SubnormalMode(unsigned) {}
#endif
};

GRADTAIL_CORE_END
