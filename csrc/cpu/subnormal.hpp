// How this thread treats subnormal numbers, put back at the end of the scope. Frameworks let users change
// it (torch.set_flush_denormal); what we report must not depend on that.
// With neither SSE2 nor a GNU compiler for AArch64 (MSVC on ARM) this does nothing: the thread's own mode holds.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <cstdint>

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
#elif defined(__aarch64__) && defined(__GNUC__)
  // FPCR.FZ flushes arguments together with results, so results alone are not flushed here: slower, never wrong.
  static constexpr std::uint64_t kKeep = 0, kFlushResults = 0, kFlushAll = std::uint64_t{1} << 24;
  explicit SubnormalMode(std::uint64_t mode) {
    asm volatile("mrs %0, fpcr" : "=r"(saved_) : : "memory");
    set((saved_ & ~kFlushAll) | mode);
  }
  ~SubnormalMode() { set(saved_); }
  SubnormalMode(const SubnormalMode&) = delete;
  SubnormalMode& operator=(const SubnormalMode&) = delete;

 private:
  static void set(std::uint64_t fpcr) { asm volatile("msr fpcr, %0" : : "r"(fpcr) : "memory"); }

  std::uint64_t saved_;
#else
  static constexpr unsigned kKeep = 0, kFlushResults = 1, kFlushAll = 2;
  explicit SubnormalMode(unsigned) {}
#endif
};

GRADTAIL_CORE_END
