#include "threads.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
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
  explicit Team(int helpers) {
    for (int i = 0; i < helpers; ++i) threads_.emplace_back([this, i] { serve(i + 1); });
  }
  ~Team() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    start_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  int size() const { return static_cast<int>(threads_.size()) + 1; }

  void run(int shares, const std::function<void(int)>& work) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      shares_ = shares;
      pending_ = size() - 1;
      ++round_;
    }
    start_.notify_all();
    work(0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
    work_ = nullptr;
  }

 private:
  void serve(int share) {
    unsigned long seen = 0;
    for (;;) {
      const std::function<void(int)>* work = nullptr;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, [&] { return stop_ || round_ != seen; });
        if (stop_) return;
        seen = round_;
        if (share < shares_) work = work_;
      }
      if (work) (*work)(share);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--pending_ == 0) done_.notify_one();
    }
  }

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

int initial_size() {
  if (const char* text = std::getenv("GRADTAIL_NUM_THREADS")) {
    const int n = std::atoi(text);
    if (n > 0) return n;
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
std::unique_ptr<Team> team;
long team_process = 0;
int wanted = 0;

}  // namespace

int team_size() {
  if (wanted == 0) wanted = initial_size();
  return wanted;
}

void set_team_size(int n) {
  std::lock_guard<std::mutex> lock(owner);
  wanted = n;
}

bool run_on_team(int shares, const std::function<void(int)>& work) {
  std::unique_lock<std::mutex> lock(owner, std::try_to_lock);
  if (!lock) return false;
  if (team && team_process != process()) (void)team.release();  // a forked child has no such threads
  if (!team || team->size() != team_size()) {
    team.reset();
    team = std::make_unique<Team>(team_size() - 1);
    team_process = process();
  }
  team->run(std::min(shares, team->size()), work);
  return true;
}

}  // namespace gradtail::cpu
