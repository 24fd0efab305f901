#include "fibers.hpp"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <vector>

#include "order.hpp"
#include "red_zone.hpp"

namespace gradtail::simulated {
namespace {

constexpr std::size_t kStackBytes = 64 * 1024;
constexpr std::size_t kBelowStack = 64 * 1024;  // what goes there, past a red zone, is an error that harms nobody
constexpr std::uint64_t kUndefined = 0xcdcdcdcdcdcdcdcd;  // what a shuffle reads from a lane that is not there

enum class State { kReady, kWaitsForBlock, kWaitsForWarp, kEnded };

struct Fiber {
  jmp_buf resume;
  std::unique_ptr<unsigned char[]> stack;
  bool entered = false;  // its stack has a frame of live_forever to come back to
  State state = State::kReady;
  Site site{};
  WarpOperation operation{};
  unsigned mask = 0;
  int source = 0;
  std::uint64_t value = 0;  // given to the operation, then its result
};

struct Warp {
  unsigned alive = 0, waiting = 0;  // a bit for each lane
};

Settings current_settings;
Random random_order(0);
std::uint64_t switch_count = 0;

// The block that runs. One at a time.
std::vector<Fiber> fibers(kMostThreads);
Warp warps[kMostThreads / kWarpLanes];
int threads = 0, alive = 0, current = 0;
// Among the ready threads the one of the lowest rank runs.
int thread_of_rank[kMostThreads], rank_of_thread[kMostThreads];
std::uint64_t ready[kMostThreads / 64];  // a bit for each rank
int at_block_barrier = 0, first_at_barrier = 0, predicate_of_any = 0;
const std::function<void()>* kernel_body = nullptr;
jmp_buf scheduler;
std::string failure;
std::vector<unsigned char> shared;  // with its red zones
unsigned char* shared_begin = nullptr;
std::size_t shared_size = 0;

void make_ready(int thread) {
  fibers[thread].state = State::kReady;
  const int rank = rank_of_thread[thread];
  ready[rank / 64] |= std::uint64_t{1} << rank % 64;
}

void choose_ranks() {
  choose_order(current_settings.threads, threads, random_order, thread_of_rank);
  for (int rank = 0; rank < threads; ++rank) rank_of_thread[thread_of_rank[rank]] = rank;
}

std::string described(int thread) {
  const Fiber& f = fibers[thread];
  std::string text = "thread " + std::to_string(thread);
  if (f.state == State::kEnded) return text + " has ended";
  if (f.state == State::kReady) return text + " runs";
  const std::string file = f.site.file;
  return text + " waits at " + f.site.operation + " (" + file.substr(file.rfind('/') + 1) + ":" +
         std::to_string(f.site.line) + ")";
}

void set_failure(const std::string& what) { failure = what + ", block " + std::to_string(blockIdx.x); }
void set_divergence(int thread, int other) {
  set_failure("divergent barrier: " + described(thread) + ", " + described(other));
}

// Ends the block. Called where no object with a destructor lives: the stacks are left as they are.
constexpr int kAllEnded = 1, kFailed = 2;
[[noreturn]] void leave(int how) { _longjmp(scheduler, how); }

bool same_place(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0) &&
         (a.operation == b.operation || std::strcmp(a.operation, b.operation) == 0);
}

// Nobody can run and not all have ended: name two that wait for different things.
[[noreturn]] void report_deadlock() {
  int first = 0;
  while (fibers[first].state == State::kEnded) ++first;
  int other = first;
  for (int t = first + 1; t < threads && other == first; ++t)
    if (fibers[t].state != State::kEnded && !same_place(fibers[first].site, fibers[t].site)) other = t;
  for (int t = 0; t < threads && other == first; ++t)
    if (fibers[t].state == State::kEnded || fibers[t].mask != fibers[first].mask) other = t;
  set_divergence(first, other);
  leave(kFailed);
}

int take_ready() {
  for (int word = 0; word < (threads + 63) / 64; ++word) {
    if (ready[word] == 0) continue;
    const int bit = __builtin_ctzll(ready[word]);
    ready[word] &= ready[word] - 1;
    return thread_of_rank[word * 64 + bit];
  }
  if (alive == 0) leave(kAllEnded);
  report_deadlock();
}

void live_forever();

[[noreturn]] void enter(int thread) {
  static ucontext_t first_entry;
  current = thread;
  ++switch_count;
  const unsigned at = static_cast<unsigned>(thread);
  threadIdx = {at % blockDim.x, at / blockDim.x % blockDim.y, at / (blockDim.x * blockDim.y)};
  Fiber& f = fibers[thread];
  if (f.entered) _longjmp(f.resume, 1);
  f.entered = true;
  if (f.stack == nullptr) {
    f.stack.reset(new unsigned char[kBelowStack + kStackBytes]);
    paint_red_zone(f.stack.get() + kBelowStack - kRedZone);
  }
  getcontext(&first_entry);
  first_entry.uc_stack.ss_sp = f.stack.get() + kBelowStack;
  // Not all at the same distance from a page, or they would share a few lines of the first cache.
  first_entry.uc_stack.ss_size = kStackBytes - at % 32 * 128;
  first_entry.uc_link = nullptr;
  makecontext(&first_entry, live_forever, 0);
  setcontext(&first_entry);
  std::abort();  // setcontext comes back only if it fails
}

__attribute__((noinline)) void run_others() {
  const int next = take_ready();
  if (next == current) return;
  if (_setjmp(fibers[current].resume) == 0) enter(next);
}

void release_block() {
  at_block_barrier = 0;
  for (std::uint64_t& word : ready) word = 0;
  choose_ranks();
  for (int t = 0; t < threads; ++t) {
    if (fibers[t].state == State::kEnded) continue;
    fibers[t].value = predicate_of_any != 0;
    make_ready(t);
  }
  predicate_of_any = 0;
}

void finish_warp_operation(int first_thread, unsigned group, WarpOperation operation) {
  std::uint64_t given[kWarpLanes] = {};
  std::uint64_t ballot = 0;
  for (unsigned lanes = group; lanes != 0; lanes &= lanes - 1) {
    const int l = __builtin_ctz(lanes);
    given[l] = fibers[first_thread + l].value;
    ballot |= std::uint64_t{given[l] != 0} << l;
  }
  for (unsigned lanes = group; lanes != 0; lanes &= lanes - 1) {
    Fiber& f = fibers[first_thread + __builtin_ctz(lanes)];
    f.value = operation == WarpOperation::kBallot ? ballot : group >> f.source & 1 ? given[f.source] : kUndefined;
  }
}

// Whether all lanes that a waiting one waits for have come. Fails if they came to different places.
bool release_warp(int waiting) {
  const int w = waiting / kWarpLanes, first_thread = w * kWarpLanes;
  const Fiber& f = fibers[waiting];
  const unsigned group = f.mask & warps[w].alive;
  if ((warps[w].waiting & group) != group) return false;
  for (unsigned lanes = group; lanes != 0; lanes &= lanes - 1) {
    const int other = first_thread + __builtin_ctz(lanes);
    if (fibers[other].mask == f.mask && same_place(fibers[other].site, f.site)) continue;
    set_divergence(waiting, other);
    leave(kFailed);
  }
  finish_warp_operation(first_thread, group, f.operation);
  warps[w].waiting &= ~group;
  for (unsigned lanes = group; lanes != 0; lanes &= lanes - 1) make_ready(first_thread + __builtin_ctz(lanes));
  return true;
}

void end_thread() {
  const int w = current / kWarpLanes;
  fibers[current].state = State::kEnded;
  --alive;
  warps[w].alive &= ~(1u << current % kWarpLanes);
  if (at_block_barrier > 0) {
    if (current_settings.strict) {
      set_divergence(current, first_at_barrier);
      leave(kFailed);
    }
    if (at_block_barrier == alive) release_block();
  }
  // The others may have waited for this lane alone.
  unsigned asked = 0;
  while (const unsigned rest = warps[w].waiting & ~asked) {
    const int l = __builtin_ctz(rest);
    asked |= 1u << l;
    release_warp(w * kWarpLanes + l);
  }
}

// One block after another, because a first entry costs system calls.
void live_forever() {
  for (;;) {
    (*kernel_body)();
    end_thread();
    if (_setjmp(fibers[current].resume) == 0) enter(take_ready());
  }
}

void prepare_block(dim3 block) {
  threads = alive = static_cast<int>(block.x * block.y * block.z);
  at_block_barrier = predicate_of_any = 0;
  for (std::uint64_t& word : ready) word = 0;
  for (Warp& warp : warps) warp = {};
  choose_ranks();
  for (int t = 0; t < threads; ++t) {
    warps[t / kWarpLanes].alive |= 1u << t % kWarpLanes;
    fibers[t].mask = 0;
    make_ready(t);
  }
}

// Whether all threads ended. Nothing here has a destructor: fibers come back by a jump.
__attribute__((noinline)) bool run_fibers() {
  switch (_setjmp(scheduler)) {
    case 0:
      enter(take_ready());
    case kAllEnded:
      return true;
    default:
      return false;
  }
}

void prepare_shared(std::size_t bytes) {
  constexpr std::size_t kAlignment = 16;
  shared.resize(bytes + 2 * kRedZone + kAlignment);
  const auto past = reinterpret_cast<std::uintptr_t>(shared.data()) % kAlignment;
  shared_begin = shared.data() + kRedZone + (kAlignment - past);
  shared_size = bytes;
  paint_red_zones(shared_begin, bytes);
}

void run_block(dim3 block) {
  prepare_block(block);
  if (current_settings.poison) std::fill_n(shared_begin, shared_size, kPoison);
  failure.clear();
  const bool failed = !run_fibers();
  for (int t = 0; t < threads; ++t) {
    if (failed) fibers[t].entered = false;  // left half way: to start with an empty stack
    unsigned char* const below = fibers[t].stack ? fibers[t].stack.get() + kBelowStack - kRedZone : nullptr;
    if (!below || is_painted(below)) continue;
    paint_red_zone(below);
    set_failure("thread " + std::to_string(t) + " used more than 64 KiB of stack");
  }
  if (failure.empty() && !is_intact(shared_begin, shared_size))
    set_failure("write outside the shared memory of " + std::to_string(shared_size) + " bytes");
}

}  // namespace

const Settings& settings() { return current_settings; }

void set_settings(const Settings& settings) {
  current_settings = settings;
  random_order = Random(settings.seed);
}

std::uint64_t switches() { return switch_count; }
unsigned char* shared_memory() { return shared_begin; }
int lane() { return current % kWarpLanes; }

int wait_for_block(int predicate, Site site) {
  Fiber& f = fibers[current];
  f.site = site;
  f.state = State::kWaitsForBlock;
  if (current_settings.strict && alive < threads) {
    int other = 0;
    while (fibers[other].state != State::kEnded) ++other;
    set_divergence(current, other);
    leave(kFailed);
  }
  if (at_block_barrier == 0) first_at_barrier = current;
  if (!same_place(fibers[first_at_barrier].site, site)) {
    set_divergence(current, first_at_barrier);
    leave(kFailed);
  }
  predicate_of_any |= predicate != 0;
  if (++at_block_barrier == alive) release_block();
  run_others();
  return static_cast<int>(f.value);
}

std::uint64_t wait_for_warp(WarpOperation operation, unsigned mask, std::uint64_t value, int source, Site site) {
  Fiber& f = fibers[current];
  f.site = site;
  f.state = State::kWaitsForWarp;
  f.operation = operation;
  f.mask = mask;
  f.value = value;
  f.source = source & (kWarpLanes - 1);
  if ((mask >> lane() & 1) == 0) {
    set_failure(described(current) + " with a mask that leaves it out");
    leave(kFailed);
  }
  warps[current / kWarpLanes].waiting |= 1u << lane();
  release_warp(current);
  run_others();
  return f.value;
}

void run(const std::string& kernel, dim3 grid, dim3 block, std::size_t shared_bytes,
         const std::function<void()>& body) {
  kernel_body = &body;
  gridDim = grid;
  blockDim = block;
  prepare_shared(shared_bytes);
  std::vector<int> order(std::size_t{grid.x} * grid.y * grid.z);
  choose_order(current_settings.blocks, static_cast<int>(order.size()), random_order, order.data());
  for (const int at : order) {
    const auto b = static_cast<unsigned>(at);
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
    run_block(block);
    if (!failure.empty()) throw std::runtime_error("kernel " + kernel + ": " + failure);
  }
}

}  // namespace gradtail::simulated
