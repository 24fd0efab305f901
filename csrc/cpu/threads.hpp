// A fixed team of threads. Work is split by the caller; who runs which share cannot change a result.
#pragma once

#include <functional>

namespace gradtail::cpu {

int team_size();
void set_team_size(int n);

// Run work(0) ... work(shares - 1) and return when all are done, also if the team is smaller than that by
// now. Share 0 runs on the calling thread. Returns false, having run nothing, if the team is busy with another caller.
bool run_on_team(int shares, const std::function<void(int)>& work);

}  // namespace gradtail::cpu
