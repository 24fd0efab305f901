#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace gradtail::cpu {
namespace {

class Team {
 public:
  // Fewer threads than asked for where the system gives no more: those that started do all the work. An
  // exception from here would destroy the mutex that they wait on.
  explicit Team(int wanted) : wanted_(wanted) {
    threads_.reserve(wanted - 1);
    try {
      for (int i = 1; i < wanted; ++i) threads_.emplace_back([this, i] { serve(i); });
    } catch (const std::system_error&) {  // no thread
    } catch (const std::bad_alloc&) {     // no memory for one
    }
  }
  ~Team() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    start_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  int wanted() const { return wanted_; }
  int size() const { return static_cast<int>(threads_.size()) + 1; }  // with the caller

  void run(int shares, const std::function<void(int)>& work) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      shares_ = shares;
      pending_ = size() - 1;
      ++round_;
    }
    start_.notify_all();
    for (int i = 0; i < shares; i += size()) work(i);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
    work_ = nullptr;
  }

 private:
  void serve(int first) {
    unsigned long seen = 0;
    for (;;) {
      const std::function<void(int)>* work = nullptr;
      int shares = 0, step = 0;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, [&] { return stop_ || round_ != seen; });
        if (stop_) return;
        seen = round_;
        work = work_, shares = shares_, step = size();  // all have started: a round is on
      }
      for (int i = first; i < shares; i += step) (*work)(i);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--pending_ == 0) done_.notify_one();
    }
  }

  const int wanted_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  const std::function<void(int)>* work_ = nullptr;
  int shares_ = 0, pending_ = 0;
  unsigned long round_ = 0;
  bool stop_ = false;
};

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

constexpr long kMostFromEnvironment = 1024;  // more is a typing error

int initial_size() {
  if (const char* text = std::getenv("GRADTAIL_NUM_THREADS")) {
    const long n = std::strtol(text, nullptr, 10);
    if (n > 0) return static_cast<int>(std::min(n, kMostFromEnvironment));
  }
  return usable_cores();
}

long process() {
#if defined(_WIN32)
  return 0;
#else
  return static_cast<long>(getpid());
#endif
}

std::mutex owner;  // held while the team works or changes size
// Never destroyed at exit: a forked child would wait there for threads that it does not have, and a
// daemon thread may still be in the pass.
Team* team = nullptr;
long team_process = 0;
std::atomic<int> wanted{0};

}  // namespace

int team_size() {
  if (wanted == 0) wanted = initial_size();
  return wanted;
}

void set_team_size(int n) { wanted = std::max(n, 1); }

bool run_on_team(int shares, const std::function<void(int)>& work) {
  std::unique_lock<std::mutex> lock(owner, std::try_to_lock);
  if (!lock) return false;
  if (team && team_process != process()) team = nullptr;  // a forked child has no such threads
  const int size = team_size();
  if (!team || team->wanted() != size) {
    delete team;
    team = nullptr;
    team = new Team(size);
    team_process = process();
  }
  team->run(shares, work);
  return true;
}

}  // namespace gradtail::cpu
